"""What one step of one candidate costs from three observed frames: V-JEPA 2-AC, public and ours, and our own predictor of its size.

Our own (`wm/predictor.py`) keeps actions out of observed frames: everything about them is shared, while V-JEPA 2-AC must compute the last
observed frame anew for every candidate. Random weights; they cost the same as trained ones.

Letters: S candidates, H horizon steps, T context frames, N patch tokens, D width, A = 7 action entries, W width inside, E head width.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from goalward.experiments.bench.vjepa2_ac.clock import seconds
from goalward.experiments.bench.vjepa2_ac.public import PublicCode
from goalward.experiments.bench.vjepa2_ac.synthetic import inputs, uniform, weights
from goalward.wm.predictor import LatentPredictor, PredictorConfig
from goalward.wm.vjepa2_ac.config import STATE_DIM, VJepa2ACConfig
from goalward.wm.vjepa2_ac.folder import predictor_of

_CONTEXT, _HORIZON = 3, 2
_BASE = VJepa2ACConfig(dim=64, width=128, depth=4, heads=4, hidden=512, rows=16, columns=16)
_GRIDS = ((16, 4), (8, 16), (4, 64))
"""Side of the grid of patches, and candidates."""


def matched(config: VJepa2ACConfig) -> PredictorConfig:
    """Our own predictor's size with as many parameters in its layers: 12 W^2 = 2 E W + 5 W^2 + 2 W hidden, modulation included."""
    hidden_ratio = 3.5 - 1.0 / config.heads
    return PredictorConfig(
        width=config.width, depth=config.depth, heads=config.heads, key_heads=1, mlp_ratio=hidden_ratio, context_frames=_CONTEXT,
        horizon=_HORIZON,
    )  # fmt: skip


def candidate_steps(public: PublicCode, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds per candidate-step for several numbers of patches, in turns."""
    rows = []
    for side, candidates in _GRIDS:
        config = dataclasses.replace(_BASE, rows=side, columns=side)
        calls, parameters = _calls(public, config, candidates)
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for round_number in range(rounds + 1):
            for name, call in calls.items():
                spent_s = seconds(call)
                if round_number:
                    taken[name].append(spent_s / (candidates * _HORIZON))
        rows.append({
            "patches": side * side, "candidates": candidates, "context": _CONTEXT, "horizon": _HORIZON, "parameters": parameters,
            "ms": {name: statistics.median(times) * 1e3 for name, times in taken.items()},
        })  # fmt: skip
    return rows


def _calls(public: PublicCode, config: VJepa2ACConfig, candidates: int) -> tuple[dict[str, Callable[[], Any]], dict[str, int]]:
    given, window = weights(config), inputs(config, problems=1, frames=_CONTEXT)
    theirs = public.predictor(config, given, max_frames=8)
    z, states, past = window.z_BTND, window.states_BTP, window.actions_BTA[:, : _CONTEXT - 1]
    actions = uniform(1, candidates, _HORIZON, STATE_DIM, seed=5) * 0.03
    whole = torch.cat([past.expand(candidates, -1, -1), actions[0]], dim=1)
    own = LatentPredictor(
        matched(config), num_tokens=config.num_patches, dim=config.dim, action_dim=STATE_DIM, generator=torch.Generator().manual_seed(0)
    ).requires_grad_(False)

    @torch.no_grad()
    def by_public() -> Tensor:
        return public.rolled(theirs, z.expand(candidates, -1, -1, -1), states.expand(candidates, -1, -1), whole, None, _HORIZON)

    calls: dict[str, Callable[[], Any]] = {"public": by_public}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        calls[f"V-JEPA 2-AC here, {name}"] = _ours(predictor_of(given, config, dtype=dtype), z, states, past, actions)
        calls[f"our own, {name}"] = _own(own.to(dtype) if dtype is torch.float32 else _copy(own, dtype), z, actions)
    counts = {"V-JEPA 2-AC": sum(t.numel() for t in given.values()), "our own": sum(p.numel() for p in own.parameters())}
    return calls, counts


def _copy(own: LatentPredictor, dtype: torch.dtype) -> LatentPredictor:
    other = LatentPredictor(own.config, num_tokens=own.num_tokens, dim=own.dim, action_dim=own.action_dim)
    other.load_state_dict(own.state_dict())
    return other.to(dtype).requires_grad_(False)


def _ours(predictor: Any, z: Tensor, states: Tensor, past: Tensor, actions: Tensor) -> Callable[[], Tensor]:
    @torch.no_grad()
    def roll() -> Tensor:
        rolled: Tensor = predictor.rollout(context, actions)
        return rolled

    with torch.no_grad():
        context = predictor.prime(z, states, past)
    return roll


def _own(predictor: LatentPredictor, z: Tensor, actions: Tensor) -> Callable[[], Tensor]:
    @torch.no_grad()
    def roll() -> Tensor:
        return predictor.rollout(context, actions)

    with torch.no_grad():
        context = predictor.prime(z)
    return roll
