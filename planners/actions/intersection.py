"""A box together with limits that depend on the steps before.

Letters: B problems, S candidates, H horizon steps, A action dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from goalward.planners.actions.base import Situation, StepLimit
from goalward.planners.actions.box import Box


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
