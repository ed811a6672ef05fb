"""Attention that can be continued: its logarithm of the sum of exponentials is kept, so that one more key can be added exactly.

    softmax over old keys and a new one  =  (1 - g) * old attention + g * v_new        g = sigmoid(q . k_new - old log-sum-exp)

(The merging of partial softmaxes: Milakov & Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135, section 3.1.)

Letters: M loose frames, J queries, X keys, K heads, E head width, S candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
