"""The gripper: an action entry for which small values mean nothing, or which knows a few values only.

V-JEPA 2-AC clips the gripper's command at 0.75 and treats sizes below 0.25 as none (its notebook, `mpc_utils.py`): bound the entry of the
box by -0.75 and 0.75, and use `Gripper(dim, dead_zone=0.25)`. A gripper that only opens, holds or closes: `levels=(-0.75, 0.0, 0.75)`.

Limits come first: where a rate limit, a workspace or a frozen entry leaves no such value, the limited value stands. A rate limit must let
the gripper get from one of its values to the next within one step, or it would never leave the first one; the set refuses one that does
not. Planners see the values after projection; none asks for a gradient through it.

Letters: B problems, S candidates, A action dimensions.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.actions.entries import put
from goalward.planners.actions.rate_limit import RateLimit
from goalward.planners.actions.rounding import float32_at_least

if TYPE_CHECKING:
    from collections.abc import Sequence

    from goalward.planners.actions.base import Interval, StepLimit
    from goalward.planners.actions.box import Box


@dataclass(frozen=True, slots=True)
class Gripper:
    """What a gripper's action entry may be: 0 or a size of at least the dead zone; or one of a few levels."""

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
        if not 0.0 <= self.dead_zone <= 1e9:
            raise UserError(f"gripper: dead_zone {self.dead_zone!r} is not allowed; give a number from 0 to 1e9")
        if self.levels is not None and (not self.levels or not all(math.isfinite(level) for level in self.levels)):
            raise UserError(f"gripper: levels {self.levels}; give at least one finite number, or None")
        if self.levels is not None and self.dead_zone > 0:
            raise UserError("gripper: levels and a dead_zone; levels alone say which values there are")

    @property
    def action_dims(self) -> tuple[int, ...]:
        """The entries this rules."""
        return (self.action_dim,)

    def check(self, box: Box, limits: Sequence[StepLimit]) -> None:
        """Refuses a box without any level, and a rate limit under which the gripper could not get from one value to the next."""
        low, high = float(box.low_A[self.action_dim]), float(box.high_A[self.action_dim])
        if low == high:  # frozen: nothing moves
            return
        largest = max(abs(low), abs(high))
        if self.levels is None:
            jump = self.dead_zone if self.dead_zone <= largest else 0.0
        else:
            levels = sorted(level for level in torch.tensor(self.levels).tolist() if low <= level <= high)  # in float32, as the bounds are
            if not levels:
                raise UserError(f"action set: gripper levels {self.levels} and bounds {low:g} .. {high:g}; one level must lie inside")
            jump = max((after - before for before, after in itertools.pairwise(levels)), default=0.0)
        for limit in limits:
            if isinstance(limit, RateLimit):
                change = float(limit.change_A[self.action_dim])
                if jump > 0 and change - 2.0**-22 * (change + largest) < jump:  # a rate limit keeps a margin for rounding
                    raise UserError(
                        f"action set: a gripper whose smallest move is {jump:g} and a rate limit of {change:g} on its entry "
                        f"{self.action_dim}; it would never move: give that entry a rate limit above {jump:g}, such as {2 * largest:g}"
                    )

    def pull(self, action_BSA: Tensor, wanted_BSA: Tensor, interval: Interval) -> Tensor:
        """Moves the entry to what the gripper knows inside its interval; see `Ball.pull` for the arguments."""
        if self.levels is None and self.dead_zone == 0:
            return action_BSA
        value_BS = action_BSA[..., self.action_dim]
        low_BS, high_BS = (end_BSA[..., self.action_dim] for end_BSA in interval())
        if self.levels is None:
            value_BS = self._outside_dead_zone(value_BS, low_BS, high_BS)
        else:
            value_BS = self._nearest_level(value_BS, low_BS, high_BS, self.levels)
        return put(action_BSA, self.action_dims, value_BS[..., None])

    def _outside_dead_zone(self, value_BS: Tensor, low_BS: Tensor, high_BS: Tensor) -> Tensor:
        """Zero for sizes below the dead zone, or its edge on the same side where zero is not allowed."""
        edge = float32_at_least(self.dead_zone)
        quiet_BS = (value_BS.abs() < edge) & (value_BS != 0)
        edge_BS = torch.copysign(torch.full_like(value_BS, edge), value_BS)
        edge_BS = torch.where((edge_BS >= low_BS) & (edge_BS <= high_BS), edge_BS, value_BS)
        return torch.where(quiet_BS, torch.where((low_BS <= 0) & (high_BS >= 0), 0.0, edge_BS), value_BS)

    def _nearest_level(self, value_BS: Tensor, low_BS: Tensor, high_BS: Tensor, levels: tuple[float, ...]) -> Tensor:
        """The nearest level inside the interval; of two equally near ones, the lower."""
        nearest_BS, distance_BS = value_BS, torch.full_like(value_BS, torch.inf)
        for level in sorted(levels):
            apart_BS = (value_BS - level).abs()
            nearer_BS = (apart_BS < distance_BS) & (low_BS <= level) & (high_BS >= level)
            nearest_BS = torch.where(nearer_BS, level, nearest_BS)
            distance_BS = torch.where(nearer_BS, apart_BS, distance_BS)
        return torch.where(nearest_BS == value_BS, value_BS, nearest_BS)  # leaves the sign of a zero alone
