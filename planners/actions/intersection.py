"""A box together with limits that depend on the steps before, and shapes of single actions.

Letters: B problems, S candidates, H horizon steps, A action dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.actions.ball import Ball
from goalward.planners.actions.base import Shape, Situation, StepLimit
from goalward.planners.actions.box import Box


@dataclass(frozen=True, slots=True, eq=False)
class Intersection:
    """What satisfies all of it at once; see the top of `base.py` for what projection gives, and what wins a contradiction."""

    box: Box
    """Always holds."""
    limits: tuple[StepLimit, ...] = ()
    """Usually (rate limit, workspace); the later ones win a contradiction."""
    shapes: tuple[Shape, ...] = ()
    """Balls and a gripper, each of its own action entries."""

    def __post_init__(self) -> None:
        """Refuses shapes that rule the same entry, or a ball that the box does not let come to rest."""
        num_actions = self.box.low_A.shape[0]
        ruled = [dim for shape in self.shapes for dim in shape.action_dims]
        if len(set(ruled)) != len(ruled) or any(dim >= num_actions for dim in ruled):
            raise UserError(f"action set: shapes rule the entries {ruled} of {num_actions}; each may rule its own, below {num_actions}")
        low, high = self.box.low_A.tolist(), self.box.high_A.tolist()
        for shape in self.shapes:
            if isinstance(shape, Ball) and any(low[dim] > 0 or high[dim] < 0 for dim in shape.action_dims):
                bounds = ", ".join(f"{low[dim]:g} .. {high[dim]:g}" for dim in shape.action_dims)
                raise UserError(f"action set: a ball around 0 and bounds {bounds}; the bounds must contain 0")

    @property
    def low_A(self) -> Tensor:
        """Smallest value of each entry, float32."""
        return self.box.low_A

    @property
    def high_A(self) -> Tensor:
        """Largest value of each entry, float32."""
        return self.box.high_A

    def project(self, actions_BSHA: Tensor, situation: Situation) -> Tensor:
        """Projects step by step."""
        memories = [limit.begin(situation) for limit in self.limits]
        steps: list[Tensor] = []
        for wanted_BSA in actions_BSHA.unbind(dim=2):
            action_BSA = self._clip(wanted_BSA, memories)
            if self.shapes:
                # Clips in a row are one clip, to where they take the far ends.
                low_BSA = self._clip(torch.full_like(wanted_BSA, -torch.inf), memories)
                high_BSA = self._clip(torch.full_like(wanted_BSA, torch.inf), memories)
                for shape in self.shapes:
                    action_BSA = shape.pull(action_BSA, low_BSA, high_BSA, wanted_BSA)
            steps.append(action_BSA)
            if len(steps) < actions_BSHA.shape[2]:
                memories = [limit.after(action_BSA, memory) for limit, memory in zip(self.limits, memories, strict=True)]
        return torch.stack(steps, dim=2)

    def _clip(self, action_BSA: Tensor, memories: list[object]) -> Tensor:
        for limit, memory in zip(self.limits, memories, strict=True):
            action_BSA = limit.clip(action_BSA, memory)
        return torch.clamp(action_BSA, self.box.low_A, self.box.high_A)
