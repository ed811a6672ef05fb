"""What the candidates of a plan share with V-JEPA 2-AC, exactly, and what they cannot share.

Letters in array names: B problems, T observed frames, U = T - 1 actions between them, N patch tokens, D width of the encoder's tokens,
L tokens of a frame, J = L - 1 tokens of the last frame without its action, W width, K heads, E head width, X keys of the earlier frames,
A actions, P states, M loose frames.

Attention is causal from frame to frame and goes both ways inside a frame, and frame t's tokens see the action of step t. It follows that

* the keys and values of all frames before the last, in every layer, depend on what was done and seen alone: computed once per plan;
* of the last frame, whose action is the candidate's, only what no attention has mixed yet is shared: the embedded tokens, and the first
  layer's queries, keys and values of all of them but the action. The first layer's attention is then shared but for one key per candidate,

      softmax over shared keys and the action's  =  (1 - g) * shared attention + g * v_action,   g = sigmoid(q . k_action - log-sum-exp);

* from the second layer on, every token of the last frame is the candidate's own. With one frame of context and one step, as published, that
  is nearly all of the work: sharing saves much only with more frames of context or more steps, where the public code recomputes the window.
  (Our own predictor keeps actions out of observed frames for this reason, see `wm/predictor.py`.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from goalward.wm.vjepa2_ac.attention import summed_attention

if TYPE_CHECKING:
    from goalward.wm.vjepa2_ac.predictor import VJepa2ACPredictor


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstLayer:
    """The first layer's part of the last observed frame that no action has touched."""

    x_BJW: Tensor
    """Embedded tokens."""
    k_BJKE: Tensor
    """Keys."""
    v_BJKE: Tensor
    """Values."""
    q_BJKE: Tensor
    """Queries, scaled by 1 / sqrt(E)."""
    attended_BJKE: Tensor
    """Attention to the earlier frames and these tokens, without the action."""
    log_sum_BJK: Tensor
    """Logarithm of the sum of exponentials of the scores behind it, float32 or better."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ACContext:
    """The observed past of B problems: what all candidates share."""

    keys: tuple[Tensor, ...]
    """Per layer [B, X, K, E], of the frames before the last; X may be 0."""
    values: tuple[Tensor, ...]
    """The same."""
    first: FirstLayer
    """The last frame."""
    state_BP: Tensor
    """Where the end effector was in the last frame."""
    extrinsics_BE: Tensor | None
    """The camera's pose in the last frame, where it is used; it is taken to stay."""
    time: int
    """T - 1, the last frame's position in time."""

    @property
    def num_problems(self) -> int:
        """B."""
        return self.state_BP.shape[0]

    def one(self, b: int) -> ACContext:
        """Copies one problem out: a part of a batch may lie in memory so that kernels round it differently (`wm/invariance.py`)."""
        first = {name: getattr(self.first, name)[b : b + 1].clone() for name in self.first.__slots__}
        return ACContext(
            keys=tuple(keys[b : b + 1].clone() for keys in self.keys),
            values=tuple(values[b : b + 1].clone() for values in self.values),
            first=FirstLayer(**first),
            state_BP=self.state_BP[b : b + 1].clone(),
            extrinsics_BE=None if self.extrinsics_BE is None else self.extrinsics_BE[b : b + 1].clone(),
            time=self.time,
        )

    @classmethod
    def join(cls, contexts: list[ACContext]) -> ACContext:
        """Puts problems one after the other."""
        first = {name: torch.cat([getattr(context.first, name) for context in contexts]) for name in contexts[0].first.__slots__}
        extrinsics = [context.extrinsics_BE for context in contexts if context.extrinsics_BE is not None]
        return cls(
            keys=tuple(torch.cat(layer) for layer in zip(*(context.keys for context in contexts), strict=True)),
            values=tuple(torch.cat(layer) for layer in zip(*(context.values for context in contexts), strict=True)),
            first=FirstLayer(**first),
            state_BP=torch.cat([context.state_BP for context in contexts]),
            extrinsics_BE=torch.cat(extrinsics) if extrinsics else None,
            time=contexts[0].time,
        )


def primed(
    predictor: VJepa2ACPredictor, z_BTND: Tensor, states_BTP: Tensor, actions_BUA: Tensor, extrinsics_BTE: Tensor | None
) -> ACContext:
    """Digests the observed frames, one after the other, so that no mask is needed; see `VJepa2ACPredictor.prime`."""
    if len(z_BTND) > 1:  # one problem after the other, so that none feels the others, to the last bit
        given = [[None if values is None else values[b : b + 1].clone() for values in (z_BTND, states_BTP, actions_BUA, extrinsics_BTE)]
                 for b in range(len(z_BTND))]  # fmt: skip
        return ACContext.join([primed(predictor, *one) for one in given])  # type: ignore[arg-type]
    layers, last = predictor.layers, z_BTND.shape[1] - 1
    empty = z_BTND.new_empty(len(z_BTND), 0, predictor.config.heads, predictor.config.head_width, dtype=predictor.dtype)
    keys, values = [empty] * len(layers), [empty] * len(layers)
    extrinsics = None if extrinsics_BTE is None or not predictor.config.extrinsics else extrinsics_BTE
    for time in range(last):
        action = predictor.condition(predictor.action, actions_BUA[:, time])
        x = torch.cat([action, _known(predictor, z_BTND, states_BTP, extrinsics, time)], dim=1)
        turning = predictor.turning(time)
        for index, block in enumerate(layers):
            q, k, v = block.queries_keys_values(x, *turning)
            keys[index], values[index] = torch.cat([keys[index], k], dim=1), torch.cat([values[index], v], dim=1)
            if index < len(layers) - 1:  # nothing reads the last layer's tokens of these frames
                x = block.attend(x, q, keys[index], values[index])
    x_BJW = _known(predictor, z_BTND, states_BTP, extrinsics, last)
    cosine, sine = (table[1:] for table in predictor.turning(last))  # all but the action's
    q, k, v = layers[0].queries_keys_values(x_BJW, cosine, sine)
    q = q * predictor.config.head_width**-0.5
    attended, log_sum = summed_attention(q, torch.cat([keys[0], k], dim=1), torch.cat([values[0], v], dim=1))
    return ACContext(
        keys=tuple(keys),
        values=tuple(values),
        first=FirstLayer(x_BJW=x_BJW, k_BJKE=k, v_BJKE=v, q_BJKE=q, attended_BJKE=attended, log_sum_BJK=log_sum),
        state_BP=states_BTP[:, last],
        extrinsics_BE=None if extrinsics is None else extrinsics[:, last],
        time=last,
    )


def _known(predictor: VJepa2ACPredictor, z_BTND: Tensor, states_BTP: Tensor, extrinsics_BTE: Tensor | None, time: int) -> Tensor:
    """The tokens of an observed frame but its action's, [B, J, W]."""
    parts = [predictor.condition(predictor.state, states_BTP[:, time])]
    if extrinsics_BTE is not None:
        parts.append(predictor.condition(predictor.extrinsics, extrinsics_BTE[:, time]))
    return torch.cat([*parts, predictor.embed(z_BTND[:, time].to(predictor.dtype))], dim=1)
