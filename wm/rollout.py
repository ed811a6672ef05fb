"""A rollout under way: predicts one frame after the other, for all candidates of B problems at once.

Letters in array names: B problems, S candidates, H horizon steps, N tokens per frame, D latent width, W width inside; K key heads,
L keys of the observed frames, M keys of all frames seen so far, E head width, Q queries (tokens times query heads per key head).

Small contexts are copied in front of each candidate's own keys, large ones are shared by all candidates of a problem and never copied;
both are exact, and which is faster is a matter of size alone (`COPIED_KEYS`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from goalward.wm.attention import attention, attention_with_shared_context

if TYPE_CHECKING:
    from goalward.wm.predictor import LatentPredictor, PredictorContext

COPIED_KEYS = 32
"""Contexts of at most so many keys (T * N) are copied for each candidate: with few keys one product is up to 9 % faster than two."""


class KeyValueCache:
    """Keys and values that one layer has made so far in a rollout.

    They are joined anew at every step rather than written into a buffer of full length: oneDNN's bfloat16 products copy every operand
    that is a part of a longer buffer, and gradients pass through.
    """

    def __init__(self, k_BKLE: Tensor, v_BKLE: Tensor, num_candidates: int) -> None:
        """Starts with the observed past, shared by `num_candidates` candidates of each problem."""
        self._context = (k_BKLE, v_BKLE)
        self._num_candidates = num_candidates
        self._copied = k_BKLE.shape[2] <= COPIED_KEYS
        self._own: list[Tensor] = []

    def attend(self, q_RKQE: Tensor, k_RKNE: Tensor, v_RKNE: Tensor) -> Tensor:
        """Adds the keys and values of a frame, then attends to all there are.

        Returns:
            [R, K, Q, E], where R = B * S.
        """
        new = (k_RKNE, v_RKNE)
        if self._own:
            self._own = [torch.cat([old, part], dim=2) for old, part in zip(self._own, new, strict=True)]
        elif self._copied:
            self._own = [self._join(shared, part) for shared, part in zip(self._context, new, strict=True)]
        else:
            self._own = [part.contiguous() for part in new]
        if self._copied:
            return attention(q_RKQE, *self._own)
        return attention_with_shared_context(q_RKQE, *self._context, *self._own)

    def _join(self, shared_BKLE: Tensor, own_RKNE: Tensor) -> Tensor:
        B, K, L, E = shared_BKLE.shape
        S, N = self._num_candidates, own_RKNE.shape[2]
        repeated = shared_BKLE[:, None].expand(B, S, K, L, E)
        return torch.cat([repeated, own_RKNE.reshape(B, S, K, N, E)], dim=3).reshape(B * S, K, L + N, E)


class Rollout:
    """A rollout under way: the keys and values of the frames predicted so far."""

    def __init__(
        self,
        predictor: LatentPredictor,
        context: PredictorContext,
        modulation_BSHI31W: Tensor,
        *,
        tokens: Tensor | None = None,
        layers: int | None = None,
    ) -> None:
        """Use `LatentPredictor.start`; I is the layer."""
        self._predictor, self._modulation = predictor, modulation_BSHI31W
        self._token_NW = predictor.token if tokens is None else predictor.token[tokens]
        self._blocks = predictor.layers()[:layers]
        num_candidates = modulation_BSHI31W.shape[1]
        pairs = zip(context.keys, context.values, strict=True)
        self._caches = [KeyValueCache(k, v, num_candidates) for k, v in pairs]
        self._time = 0

    def steer(self, actions_BSA: Tensor) -> None:
        """Adds one more action to those that the rollout was started with: for whoever decides it from the frames predicted so far.

        Args:
            actions_BSA: Normalised.
        """
        self._modulation = torch.cat([self._modulation, self._predictor.modulation(actions_BSA[:, :, None])], dim=2)

    def step(self, z_BSND: Tensor) -> Tensor:
        """Predicts the frame after `z_BSND` under the next action.

        Args:
            z_BSND: Normalised, float32 or float64; S may be 1: a frame that all candidates share.

        Returns:
            z_BSND of all S candidates, of the same dtype.
        """
        predictor, time = self._predictor, self._time
        B, S = self._modulation.shape[:2]
        N = z_BSND.shape[2]
        position_NW = self._token_NW + predictor.step[min(time, predictor.config.horizon - 1)]
        x = F.linear(z_BSND.to(predictor.project.dtype), predictor.project) + position_NW
        for index, block in enumerate(self._blocks):
            scale, shift, gate = self._modulation[:, :, time, index].unbind(2)
            q, k, v, m = block.queries_keys_values(modulate(x, scale, shift).reshape(B * S, N, -1))
            mixed = block.merge(self._caches[index].attend(q, k, v), m)
            x = torch.addcmul(x, mixed.reshape(B, S, N, -1), gate)
        self._time += 1
        return z_BSND + F.linear(F.layer_norm(x, x.shape[-1:]), predictor.head).to(z_BSND.dtype)


def modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Normalises tokens over their width, then scales and shifts them (AdaLN, arXiv 2212.09748, section 3.2)."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), scale)
