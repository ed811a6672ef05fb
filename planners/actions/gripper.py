"""The gripper: an action entry for which small values mean nothing, or which knows a few values only.

V-JEPA 2-AC clips the gripper's command at 0.75 and treats sizes below 0.25 as none (its notebook, `mpc_utils.py`): bound the entry of the
box by -0.75 and 0.75, and use `Gripper(dim, dead_zone=0.25)`.

Letters: B problems, S candidates, A action dimensions, L levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from goalward import UserError


@dataclass(frozen=True, slots=True)
class Gripper:
    """What a gripper's action entry may be. Where a rate limit leaves no such value, the limited value stands: limits come first."""

    action_dim: int
    """Which entry."""
    dead_zone: float = 0.0
    """Sizes below this become 0: hold."""
    levels: tuple[float, ...] | None = None
    """The only values allowed, for example (-1.0, 0.0, 1.0); None: any outside the dead zone."""

    def __post_init__(self) -> None:
        """Checks every field."""
        if self.action_dim < 0:
            raise UserError(f"gripper: action entry {self.action_dim}; give its number, from 0")
        if not 0.0 <= self.dead_zone < 1e9:
            raise UserError(f"gripper: dead_zone {self.dead_zone!r} is not allowed; give a number of at least 0")
        if self.levels is not None and (not self.levels or not all(math.isfinite(level) for level in self.levels)):
            raise UserError(f"gripper: levels {self.levels}; give at least one finite number, or None")
        if self.levels is not None and self.dead_zone > 0:
            raise UserError("gripper: levels and a dead_zone; levels alone say which values there are")

    @property
    def action_dims(self) -> tuple[int, ...]:
        """The entries this rules."""
        return (self.action_dim,)

    def pull(self, action_BSA: Tensor, low_BSA: Tensor, high_BSA: Tensor, wanted_BSA: Tensor) -> Tensor:
        """Moves the entry to the nearest allowed value inside its interval; see `Ball.pull` for the arguments."""
        dim = self.action_dim
        value, low, high = action_BSA[..., dim], low_BSA[..., dim], high_BSA[..., dim]
        if self.levels is not None:
            levels_L = value.new_tensor(sorted(self.levels))
            allowed = (levels_L >= low[..., None]) & (levels_L <= high[..., None])
            distance = torch.where(allowed, (levels_L - value[..., None]).abs(), float("inf"))
            nearest = levels_L[distance.argmin(-1)]
            moved = torch.where(allowed.any(-1), nearest, value)
        else:
            edge = torch.where(value < 0, -self.dead_zone, self.dead_zone).to(value.dtype)
            zero_fits, edge_fits = (low <= 0) & (high >= 0), (edge >= low) & (edge <= high)
            quiet = torch.where(zero_fits, 0.0, torch.where(edge_fits, edge, value))
            moved = torch.where(value.abs() < self.dead_zone, quiet, value)
        pulled_BSA = action_BSA.clone()
        pulled_BSA[..., dim] = moved
        return pulled_BSA
