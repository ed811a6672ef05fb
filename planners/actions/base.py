"""Action sets: what may be done, as immutable values with a projection.

Letters: B problems, S candidates, H horizon steps, A action dimensions, E workspace axes.

A `Box` bounds each action entry. Further limits may depend on what came before: the `Workspace` bounds the end effector, whose position
is the measured one plus the displacements so far; a `RateLimit` bounds the change from one action to the next. Given the actions before
it, each limit allows every entry of an action one interval. Shapes then rule the entries of one action together: a `Ball` its length, a
`Gripper` its dead zone. Projection goes step by step, from the first action to the last:

    a_t <- shapes(box.clip(workspace.clip(rate.clip(a_t))))        t = 1 .. H

The result is exactly feasible, projecting again changes nothing, and feasible actions are left untouched, to the bit (but for the sign of
zeros). Of a single step it is the nearest feasible action (but for a gripper's dead zone, in which all becomes 0); of a sequence it is
greedy: where limits couple the steps it need not be the nearest. Where they contradict one another (an end effector outside its workspace
by more than one step; a wall ahead that demands a stop more sudden than the rate limit allows) box and balls always hold, and among the
limits the later one wins: the arm returns as fast as it may. A gripper comes last: it chooses among what the others leave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from goalward.planners.actions.box import Box

Interval = Callable[[], tuple[Tensor, Tensor]]
"""Gives the lower and upper ends that box and limits leave each entry, [A] or [B, S, A]; costs something only where it is called."""


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

    def check(self, num_actions: int) -> None:
        """Raises a UserError unless it can limit actions of so many entries."""

    def begin(self, situation: Situation) -> Any:
        """Returns what the limit remembers before the first action."""

    def clip(self, action_BSA: Tensor, memory: Any) -> Tensor:
        """Moves each entry into the interval allowed here."""

    def after(self, action_BSA: Tensor, memory: Any) -> Any:
        """Returns what the limit remembers once this action is done."""


class Shape(Protocol):
    """A rule for some entries of one action together."""

    @property
    def action_dims(self) -> tuple[int, ...]:
        """Which entries."""

    def check(self, box: Box, limits: Sequence[StepLimit]) -> None:
        """Raises a UserError unless it makes sense together with these."""

    def pull(self, action_BSA: Tensor, wanted_BSA: Tensor, interval: Interval) -> Tensor:
        """Moves an action, which lies inside the interval and was wanted elsewhere, to what the rule allows there; idempotent."""


def half_range_A(actions: ActionSet) -> Tensor:
    """Half the width of the set along each entry: the unit in which planners measure spread, [A]."""
    return actions.high_A * 0.5 - actions.low_A * 0.5


def center_A(actions: ActionSet) -> Tensor:
    """Middle of the set's bounds, [A]; inside them even after rounding."""
    return torch.clamp(actions.low_A + half_range_A(actions), actions.low_A, actions.high_A)


def hold_A(actions: ActionSet) -> Tensor:
    """The action nearest to no displacement, [A]."""
    return torch.clamp(torch.zeros_like(actions.low_A), actions.low_A, actions.high_A)
