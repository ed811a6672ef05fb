"""Weights and inputs made by a formula, so that two programs, and a test without either, see the same numbers.

    u_i = frac(43758.5453 sin(12.9898 (i + 1) + 78.233 seed))         uniform in [0, 1), a common hash of shader programs

Letters: B problems, T frames, N patch tokens, D width, A = P = 7 entries of actions and states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from goalward.wm.vjepa2_ac.config import EXTRINSICS_DIM, STATE_DIM, VJepa2ACConfig
from goalward.wm.vjepa2_ac.latents import layer_normalised
from goalward.wm.vjepa2_ac.mapping import expected_shapes

TINY = VJepa2ACConfig(dim=6, width=28, depth=2, heads=2, hidden=112, rows=2, columns=2)
"""The size of the golden values: all four parts of a head (time, row, column, rest) are there."""


def uniform(*shape: int, seed: int) -> Tensor:
    """Numbers of mean 0 and variance 1, float32."""
    index = torch.arange(math.prod(shape), dtype=torch.float64) + 1.0
    value = 43758.5453 * torch.sin(12.9898 * index + 78.233 * seed)
    return ((value - value.floor() - 0.5) * math.sqrt(12.0)).reshape(shape).to(torch.float32)


def weights(config: VJepa2ACConfig, *, seed: int = 0) -> dict[str, Tensor]:
    """Weights by their published names: matrices that keep the scale of their input, so that attention is far from uniform."""
    made = {}
    for number, (name, shape) in enumerate(sorted(expected_shapes(config).items())):
        noise = uniform(*shape, seed=1000 * seed + number)
        if len(shape) == 2:
            made[name] = noise * shape[1] ** -0.5
        else:
            made[name] = 0.1 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return made


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """A window of frames, and where it leads."""

    z_BTND: Tensor
    """Layer-normalised tokens."""
    z_goal_BND: Tensor
    """The goal's."""
    states_BTP: Tensor
    """Poses: within a metre, any angle, a gripper from 0 to 1."""
    actions_BTA: Tensor
    """A few centimetres and tenths of radians."""
    extrinsics_BTE: Tensor
    """The camera's pose."""


def inputs(config: VJepa2ACConfig, *, problems: int, frames: int, seed: int = 0) -> Inputs:
    """Makes a window."""
    B, T, N, D = problems, frames, config.num_patches, config.dim
    state = uniform(B, T, STATE_DIM, seed=seed + 2) * 0.5
    state[..., 6] = state[..., 6].abs().clamp(max=1.0)
    return Inputs(
        z_BTND=layer_normalised(uniform(B, T, N, D, seed=seed)),
        z_goal_BND=layer_normalised(uniform(B, N, D, seed=seed + 1)),
        states_BTP=state,
        actions_BTA=uniform(B, T, STATE_DIM, seed=seed + 3) * torch.tensor([0.04] * 3 + [0.1] * 3 + [0.3]),
        extrinsics_BTE=uniform(B, T, EXTRINSICS_DIM, seed=seed + 4) * 0.5,
    )
