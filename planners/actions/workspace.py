"""The workspace: a box that the end effector must not leave.

Letters: B problems, S candidates, A action dimensions, E workspace axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.actions.base import Situation
from goalward.planners.actions.entries import put, take


@dataclass(frozen=True, slots=True, eq=False)
class Workspace:
    """Keeps the end effector inside a box: measured position plus all displacements so far."""

    low_E: Tensor
    """Lower corner, float64 [E], metres."""
    high_E: Tensor
    """Upper corner."""
    action_dims: tuple[int, ...] = (0, 1, 2)
    """Which action entries displace the end effector along the E axes, metres."""
    _corners_2E: Tensor = field(init=False, repr=False)
    _inward_2: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuses boxes that are not finite or have no inside."""
        low, high = self.low_E, self.high_E
        if low.shape != (len(self.action_dims),) or low.shape != high.shape or len(set(self.action_dims)) != len(self.action_dims):
            raise UserError(
                f"workspace: corners of {low.numel()} and {high.numel()} numbers for action entries {self.action_dims}; "
                "give one lower and one upper number for each displacement entry"
            )
        # Displacements are rounded to float32; this much (0.1 micrometre for a metre) keeps the exact sum inside all the same.
        margin = 2.0**-23 * torch.maximum(low.abs(), high.abs()).amax().clamp(min=2.0**-10)
        if not bool(torch.isfinite(low).all() & torch.isfinite(high).all() & (low + 2 * margin < high).all()):
            raise UserError(f"workspace: low {low.tolist()}, high {high.tolist()} metres; must be finite with low < high on every axis")
        object.__setattr__(self, "_corners_2E", torch.stack([low + margin, high - margin]))
        object.__setattr__(self, "_inward_2", torch.tensor([1.0, -1.0]).to(low)[:, None, None, None] * 2.0**-24)

    @classmethod
    def of(
        cls, low_m: Sequence[float], high_m: Sequence[float], *, action_dims: Sequence[int] = (0, 1, 2), device: torch.device | str = "cpu"
    ) -> Workspace:
        """Makes a workspace from two corners in metres."""
        low, high = (torch.as_tensor(corner, dtype=torch.float64, device=device).detach().clone() for corner in (low_m, high_m))
        return cls(low, high, tuple(int(dim) for dim in action_dims))

    def check(self, num_actions: int) -> None:
        """Refuses entries that do not exist."""
        if min(self.action_dims) < 0 or max(self.action_dims) >= num_actions:
            raise UserError(f"workspace: action entries {self.action_dims}; there are entries 0 .. {num_actions - 1}")

    def begin(self, situation: Situation) -> Tensor:
        """Returns how far the end effector may go down and up from here, float64 [2, B, 1, E]; sums in float64 do not drift."""
        if situation.position_BE is None:
            raise UserError("workspace: the end-effector position is not known; give its proprio entries, or leave the workspace out")
        reach_2B1E = self._corners_2E[:, None, None] - situation.position_BE.to(self.low_E).unsqueeze(1)
        # From far outside, the displacement back is large, and so is its rounding.
        return reach_2B1E + self._inward_2 * reach_2B1E.abs()

    def clip(self, action_BSA: Tensor, memory: Tensor) -> Tensor:
        """Stops each displacement at the walls."""
        down, up = memory.to(action_BSA.dtype).unbind()
        return put(action_BSA, self.action_dims, torch.clamp(take(action_BSA, self.action_dims), down, up))

    def after(self, action_BSA: Tensor, memory: Tensor) -> Tensor:
        """Moves the walls by the displacement."""
        return memory - take(action_BSA, self.action_dims)
