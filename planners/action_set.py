"""Action sets: what may be done, as immutable values with a projection.

Letters: B problems, S candidates, H horizon steps, A action dimensions, E workspace axes.

A `Box` bounds each action entry. Further limits may depend on what came before: the `Workspace` bounds the end effector, whose position
is the measured one plus the displacements so far; a `RateLimit` bounds the change from one action to the next. Given the actions before
it, each limit allows every entry of an action one interval, so that projection clips step by step, from the first action to the last:

    a_t <- box.clip(workspace.clip(rate.clip(a_t)))        t = 1 .. H

The result is exactly feasible, and feasible actions are left untouched, to the bit. It is a greedy projection: where limits couple the
steps it need not be the nearest feasible sequence. Where intervals contradict one another (an end effector outside its workspace by more
than one step) the later clip wins: the box always holds, and the arm returns as fast as the box permits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from goalward import UserError

_LARGEST_BOUND = 1e9
"""Squares of actions must be finite in float32."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Situation:
    """What limits need to know about the present, for B problems."""

    position_BE: Tensor | None = None
    """Measured end-effector position, metres; needed by a workspace."""
    last_action_BA: Tensor | None = None
    """The action executed last, physical units; needed by a rate limit."""


class ActionSet(Protocol):
    """A non-empty, bounded set of action sequences."""

    @property
    def low_A(self) -> Tensor:
        """Smallest value of each entry in any situation, float32."""

    @property
    def high_A(self) -> Tensor:
        """Largest value of each entry in any situation, float32."""

    def project(self, actions_BSHA: Tensor, situation: Situation) -> Tensor:
        """Returns feasible actions of the same shape; idempotent, and the identity on feasible actions. NaN is not accepted."""


class StepLimit(Protocol):
    """A limit on one action, given the actions before it."""

    def begin(self, situation: Situation) -> Any:
        """Returns what the limit remembers before the first action."""

    def clip(self, action_BSA: Tensor, memory: Any) -> Tensor:
        """Moves each entry into the interval allowed here."""

    def after(self, action_BSA: Tensor, memory: Any) -> Any:
        """Returns what the limit remembers once this action is done."""


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """Bounds on every action entry; use `Box.of` to make one."""

    low_A: Tensor
    """Smallest action, float32 [A]."""
    high_A: Tensor
    """Largest action, float32 [A]; equal to the smallest for an entry that is frozen."""

    def __post_init__(self) -> None:
        """Refuses bounds that are not finite, crossed or of different shapes."""
        low, high = self.low_A, self.high_A
        if low.ndim != 1 or low.shape != high.shape or not low.numel():
            raise UserError(f"action bounds: shapes {tuple(low.shape)} and {tuple(high.shape)}; give two vectors with one entry per action")
        if not bool(torch.isfinite(low).all() & torch.isfinite(high).all() & (low <= high).all()):
            raise UserError(f"action bounds: low {low.tolist()}, high {high.tolist()}; must be finite with low <= high in every entry")
        if bool(torch.maximum(low.abs(), high.abs()).amax() > _LARGEST_BOUND):
            raise UserError(f"action bounds: {low.tolist()} .. {high.tolist()}; none may exceed {_LARGEST_BOUND:g}; use other units")

    @classmethod
    def of(cls, low: Tensor | Sequence[float], high: Tensor | Sequence[float], *, device: torch.device | str = "cpu") -> Box:
        """Makes a box from anything that holds A numbers."""
        return cls(*(torch.as_tensor(bound, dtype=torch.float32, device=device).detach().clone() for bound in (low, high)))

    def project(self, actions_BSHA: Tensor, situation: Situation) -> Tensor:
        """Clips every entry: the nearest feasible action."""
        return torch.clamp(actions_BSHA, self.low_A, self.high_A)


@dataclass(frozen=True, slots=True, eq=False)
class Workspace:
    """Keeps the end effector inside a box: measured position plus all displacements so far."""

    low_E: Tensor
    """Lower corner, float64 [E], metres."""
    high_E: Tensor
    """Upper corner."""
    action_dims: tuple[int, ...] = (0, 1, 2)
    """Which action entries displace the end effector along the E axes, metres."""

    def __post_init__(self) -> None:
        """Refuses boxes that are not finite or have no inside."""
        low, high = self.low_E, self.high_E
        if low.shape != (len(self.action_dims),) or low.shape != high.shape or len(set(self.action_dims)) != len(self.action_dims):
            raise UserError(
                f"workspace: corners of {low.numel()} and {high.numel()} numbers for action entries {self.action_dims}; "
                "give one lower and one upper number for each displacement entry"
            )
        if not bool(torch.isfinite(low).all() & torch.isfinite(high).all() & (low + 2 * self._margin < high).all()):
            raise UserError(f"workspace: low {low.tolist()}, high {high.tolist()} metres; must be finite with low < high on every axis")

    @classmethod
    def of(
        cls, low_m: Sequence[float], high_m: Sequence[float], *, action_dims: Sequence[int] = (0, 1, 2), device: torch.device | str = "cpu"
    ) -> Workspace:
        """Makes a workspace from two corners in metres."""
        low, high = (torch.as_tensor(corner, dtype=torch.float64, device=device).detach().clone() for corner in (low_m, high_m))
        return cls(low, high, tuple(int(dim) for dim in action_dims))

    @property
    def _margin(self) -> Tensor:
        # Displacements are rounded to float32; this much (0.1 micrometre for a metre) keeps the exact sum inside all the same.
        return 2.0**-23 * torch.maximum(self.low_E.abs(), self.high_E.abs()).amax().clamp(min=2.0**-10)

    def begin(self, situation: Situation) -> Tensor:
        """Returns how far the end effector may go down and up from here, float64 [2, B, 1, E]; sums in float64 do not drift."""
        if situation.position_BE is None:
            raise UserError("workspace: the end-effector position is not known; give its proprio entries, or leave the workspace out")
        margin = self._margin
        corners_2E = torch.stack([self.low_E + margin, self.high_E - margin])
        return corners_2E[:, None, None] - situation.position_BE.to(self.low_E).unsqueeze(1)

    def clip(self, action_BSA: Tensor, memory: Tensor) -> Tensor:
        """Stops each displacement at the walls."""
        down, up = memory.to(action_BSA.dtype).unbind()
        if self._moves_all(action_BSA):
            return torch.clamp(action_BSA, down, up)
        clipped = action_BSA.clone()
        for axis, dim in enumerate(self.action_dims):
            clipped[..., dim] = torch.clamp(action_BSA[..., dim], down[..., axis], up[..., axis])
        return clipped

    def after(self, action_BSA: Tensor, memory: Tensor) -> Tensor:
        """Moves the walls by the displacement."""
        return memory - (action_BSA if self._moves_all(action_BSA) else action_BSA[..., self.action_dims])

    def _moves_all(self, action_BSA: Tensor) -> bool:
        return self.action_dims == tuple(range(action_BSA.shape[-1]))


@dataclass(frozen=True, slots=True, eq=False)
class RateLimit:
    """Bounds how much each entry changes from one action to the next, the one executed last included."""

    change_A: Tensor
    """Largest change per step, float32 [A], physical units."""

    def __post_init__(self) -> None:
        """Refuses limits under which nothing could ever change."""
        if self.change_A.ndim != 1 or not bool((torch.isfinite(self.change_A) & (self.change_A > 0)).all()):
            raise UserError(f"rate limit: {self.change_A.tolist()} per step; give a positive number for every action entry")

    @classmethod
    def of(cls, change: Tensor | Sequence[float], *, device: torch.device | str = "cpu") -> RateLimit:
        """Makes a rate limit from A numbers."""
        return cls(torch.as_tensor(change, dtype=torch.float32, device=device).detach().clone())

    def begin(self, situation: Situation) -> Tensor:
        """Returns the action before the first, [B, 1, A]."""
        if situation.last_action_BA is None:
            raise UserError("rate limit: the last action is not known; give Situation(last_action_BA=...), zeros at the start")
        return situation.last_action_BA.to(self.change_A).unsqueeze(1)

    def clip(self, action_BSA: Tensor, memory: Tensor) -> Tensor:
        """Stays near the action before."""
        # A little less than the limit, so that the rounded sum does not exceed it.
        change = (self.change_A - 2.0**-23 * (memory.abs() + self.change_A)).clamp(min=0.0)
        return torch.clamp(action_BSA, memory - change, memory + change)

    def after(self, action_BSA: Tensor, memory: Tensor) -> Tensor:
        """Remembers the action."""
        return action_BSA


@dataclass(frozen=True, slots=True, eq=False)
class Intersection:
    """A box together with limits that depend on the steps before; among the limits, the later ones win a contradiction."""

    box: Box
    """Always holds."""
    limits: tuple[StepLimit, ...]
    """Usually (rate limit, workspace)."""

    @property
    def low_A(self) -> Tensor:
        """Smallest value of each entry, float32."""
        return self.box.low_A

    @property
    def high_A(self) -> Tensor:
        """Largest value of each entry, float32."""
        return self.box.high_A

    def project(self, actions_BSHA: Tensor, situation: Situation) -> Tensor:
        """Clips step by step; see the top of this file for what the result is."""
        memories = [limit.begin(situation) for limit in self.limits]
        steps = []
        for action_BSA in actions_BSHA.unbind(dim=2):
            for limit, memory in zip(self.limits, memories, strict=True):
                action_BSA = limit.clip(action_BSA, memory)
            action_BSA = torch.clamp(action_BSA, self.box.low_A, self.box.high_A)
            steps.append(action_BSA)
            if len(steps) < actions_BSHA.shape[2]:
                memories = [limit.after(action_BSA, memory) for limit, memory in zip(self.limits, memories, strict=True)]
        return torch.stack(steps, dim=2)


def half_range_A(actions: ActionSet) -> Tensor:
    """Half the width of the set along each entry: the unit in which planners measure spread, [A]."""
    return actions.high_A * 0.5 - actions.low_A * 0.5


def center_A(actions: ActionSet) -> Tensor:
    """Middle of the set's bounds, [A]; inside them even after rounding."""
    return torch.clamp(actions.low_A + half_range_A(actions), actions.low_A, actions.high_A)


def hold_A(actions: ActionSet) -> Tensor:
    """The action nearest to no displacement, [A]."""
    return torch.clamp(torch.zeros_like(actions.low_A), actions.low_A, actions.high_A)
