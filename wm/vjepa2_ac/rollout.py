"""Rolls candidates out with V-JEPA 2-AC: exactly what the naive window gives, without computing anything twice.

Letters in array names: B problems, S candidates, H horizon steps, N patch tokens, D width of the encoder's tokens, L tokens of a frame,
J = L - 1 tokens of a frame without its action, W width, K heads, E head width, A actions, P states.

The keys and values of a candidate's earlier frames are kept along the horizon, so that a step costs one frame; `context.py` says what is
shared besides. No mask is needed, because a frame may see all that came before it and all of itself.

Problems are computed one after the other, and candidates in parts of a fixed size whose activations fit the cache of a CPU: quicker there,
and memory does not grow with the number of candidates except for the predictions themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from goalward.wm.vjepa2_ac.attention import summed_attention, with_one_more
from goalward.wm.vjepa2_ac.latents import layer_normalised
from goalward.wm.vjepa2_ac.poses import pose_after

if TYPE_CHECKING:
    from goalward.wm.vjepa2_ac.context import ACContext
    from goalward.wm.vjepa2_ac.predictor import VJepa2ACPredictor

_CPU_ELEMENTS = 2**20
_GPU_ELEMENTS = 2**28
"""Activations of the widest layer in one part; measured."""


def rolled(predictor: VJepa2ACPredictor, context: ACContext, actions_BSHA: Tensor) -> Tensor:
    """Predicts z_BSHND; see `VJepa2ACPredictor.rollout`."""
    B, S, H, _ = actions_BSHA.shape
    size = part_size(predictor, S, context.state_BP.device)
    if torch.is_grad_enabled():
        problems = [(context.one(b), torch.split(actions_BSHA[b], size)) for b in range(B)]
        return torch.stack([
            torch.cat([torch.stack(list(_frames(predictor, one, part_SHA)), dim=1) for part_SHA in parts]) for one, parts in problems
        ])  # fmt: skip
    config = predictor.config
    dtype = torch.promote_types(predictor.dtype, torch.float32)
    z_BSHND = torch.empty(B, S, H, config.num_patches, config.dim, dtype=dtype, device=context.state_BP.device)
    with torch.inference_mode():  # what leaves it was made outside: an ordinary tensor, fit for gradients elsewhere
        for b in range(B):
            one, parts = context.one(b), torch.split(actions_BSHA[b].clone(), size)
            for part_SHA, into_SHND in zip(parts, torch.split(z_BSHND[b], size), strict=True):
                for step, z_SND in enumerate(_frames(predictor, one, part_SHA)):
                    into_SHND[:, step] = z_SND
    return z_BSHND


def part_size(predictor: VJepa2ACPredictor, num_candidates: int, device: torch.device) -> int:
    """How many candidates are computed together."""
    limit = _CPU_ELEMENTS if device.type == "cpu" else _GPU_ELEMENTS
    return max(1, min(num_candidates, limit // (predictor.config.num_tokens * predictor.config.hidden)))


def _frames(predictor: VJepa2ACPredictor, context: ACContext, actions_SHA: Tensor) -> Iterator[Tensor]:
    """Predicts frame after frame, each z_SND, for some candidates of one problem."""
    S = len(actions_SHA)
    state_SP = context.state_BP.expand(S, -1)
    shared = zip(context.keys, context.values, strict=True)
    past = [(k.expand(S, -1, -1, -1), v.expand(S, -1, -1, -1)) for k, v in shared]
    z_SND: Tensor | None = None
    for step, action_SA in enumerate(actions_SHA.unbind(1)):
        action_S1W = predictor.condition(predictor.action, action_SA)
        if z_SND is None:
            x_SLW, *made = _first_layer(predictor, context, action_S1W)
            past[0] = _joined(past[0], made[0], made[1])
        else:
            conditions = [action_S1W, predictor.condition(predictor.state, state_SP)]
            if context.extrinsics_BE is not None:
                conditions.append(predictor.condition(predictor.extrinsics, context.extrinsics_BE.expand(S, -1)))
            x_SLW = torch.cat([*conditions, predictor.embed(z_SND.to(predictor.dtype))], dim=1)
        turning = predictor.turning(context.time + step)
        first = 1 if z_SND is None else 0
        for index, block in enumerate(predictor.layers[first:], start=first):
            q, k, v = block.queries_keys_values(x_SLW, *turning)
            past[index] = _joined(past[index], k, v)
            if index == predictor.config.depth - 1:  # nothing reads what the last layer makes of actions and states
                x_SLW, q = (x[:, predictor.config.num_conditions :] for x in (x_SLW, q))
            x_SLW = block.attend(x_SLW, q, *past[index])
        # A predictor of one layer has had it already, with all tokens.
        z_SND = layer_normalised(predictor.predicted(x_SLW[:, -predictor.config.num_patches :]))
        state_SP = pose_after(state_SP, action_SA)
        yield z_SND


def _joined(past: tuple[Tensor, Tensor], k_SLKE: Tensor, v_SLKE: Tensor) -> tuple[Tensor, Tensor]:
    """Adds keys and values; copying them costs as much as a hundredth of the products they enter."""
    if not past[0].shape[1]:
        return k_SLKE, v_SLKE
    return torch.cat([past[0], k_SLKE], dim=1), torch.cat([past[1], v_SLKE], dim=1)


def _first_layer(predictor: VJepa2ACPredictor, context: ACContext, action_S1W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first layer of the first step, where only the action is the candidate's; tokens, keys and values of the frame."""
    first, block = context.first, predictor.layers[0]
    S = len(action_S1W)
    cosine, sine = (table[:1] for table in predictor.turning(context.time))
    q, k, v = block.queries_keys_values(action_S1W, cosine, sine)  # [S, 1, K, E]
    scores_SJK = torch.einsum("jke,ske->sjk", first.q_BJKE[0], k[:, 0])
    known_SJKE = with_one_more(first.attended_BJKE, first.log_sum_BJK, scores_SJK, v)
    # The actions' own queries: rows of one product with the shared keys, and each with its own key.
    q = q * predictor.config.head_width**-0.5
    keys, values = torch.cat([context.keys[0], first.k_BJKE], dim=1), torch.cat([context.values[0], first.v_BJKE], dim=1)
    attended, log_sum = (part.transpose(0, 1) for part in summed_attention(q.transpose(0, 1), keys, values))
    action_S1KE = with_one_more(attended, log_sum, (q * k).sum(dim=-1), v)
    x_SLW = torch.cat([action_S1W, first.x_BJW.expand(S, -1, -1)], dim=1)
    x_SLW = block.finish(x_SLW, torch.cat([action_S1KE, known_SJKE], dim=1).flatten(-2))
    keys, values = (torch.cat([mine, shared.expand(S, -1, -1, -1)], dim=1) for mine, shared in ((k, first.k_BJKE), (v, first.v_BJKE)))
    return x_SLW, keys, values
