"""Attention, and attention that can be continued: the logarithm of the sum of exponentials is kept, so that one more key can be added.

    softmax over old keys and a new one  =  (1 - g) * old attention + g * v_new        g = sigmoid(q . k_new - old log-sum-exp)

(The merging of partial softmaxes: Milakov & Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135, section 3.1.)

Letters: M loose frames, J queries, X keys, K heads, E head width, S candidates.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_FEW_KEYS = {torch.float32: 40, torch.bfloat16: 128}
"""On a CPU, plain products are up to 1.25 (float32) and twice (bfloat16) as fast as the fused attention up to so many keys; measured."""


def attention(q_MLKE: Tensor, k_MXKE: Tensor, v_MXKE: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attends, with queries that are not scaled yet; `mask` [L, X] says what may be seen, if not all.

    Returns:
        [M, L, K, E].
    """
    q, k, v = (heads.transpose(1, 2) for heads in (q_MLKE, k_MXKE, v_MXKE))
    if mask is not None or q.device.type != "cpu" or k.shape[2] > _FEW_KEYS.get(q.dtype, 0):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return (torch.softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype) @ v).transpose(1, 2)


def summed_attention(q_MJKE: Tensor, k_MXKE: Tensor, v_MXKE: Tensor) -> tuple[Tensor, Tensor]:
    """Attends with scaled queries.

    Returns:
        The attention [M, J, K, E], and the logarithm of the sum of exponentials of its scores [M, J, K], float32 or better.
    """
    scores = torch.einsum("mjke,mxke->mkjx", q_MJKE, k_MXKE)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    attended = torch.einsum("mkjx,mxke->mjke", torch.softmax(scores, dim=-1).to(v_MXKE.dtype), v_MXKE)
    return attended, torch.logsumexp(scores, dim=-1).transpose(1, 2)


def with_one_more(attended: Tensor, log_sum: Tensor, scores_SJK: Tensor, v_S1KE: Tensor) -> Tensor:
    """Adds one key to an attention.

    Args:
        attended: [S or 1, J, K, E].
        log_sum: [S or 1, J, K].
        scores_SJK: Of the scaled queries with the new key.
        v_S1KE: The new value.

    Returns:
        [S, J, K, E].
    """
    share = torch.sigmoid(scores_SJK.to(log_sum.dtype) - log_sum).to(attended.dtype)
    return torch.lerp(attended, v_S1KE, share[..., None])
