"""The rate limit: how much an action may differ from the one before.

Letters: B problems, S candidates, A action dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.actions.base import Situation


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

    def check(self, num_actions: int) -> None:
        """Refuses actions of another number of entries."""
        if self.change_A.shape[0] != num_actions:
            raise UserError(f"rate limit: {self.change_A.shape[0]} numbers for {num_actions} action entries; give one each")

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
