"""A box together with limits that depend on the steps before, and shapes of single actions.

Letters: B problems, S candidates, H horizon steps, A action dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from goalward import UserError
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
        """Refuses members that do not fit together."""
        num_actions = self.box.low_A.shape[0]
        for limit in self.limits:
            limit.check(num_actions)
        ruled = [dim for shape in self.shapes for dim in shape.action_dims]
        if len(set(ruled)) != len(ruled) or any(dim >= num_actions for dim in ruled):
            raise UserError(f"action set: shapes rule the entries {ruled} of {num_actions}; each may rule its own, below {num_actions}")
        for shape in self.shapes:
            shape.check(self.box, self.limits)

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
        if not self.limits:  # no step depends on another one: all of them at once
            flat_BSA = actions_BSHA.flatten(1, 2)
            return self._step(flat_BSA, []).view(actions_BSHA.shape)
        memories = [limit.begin(situation) for limit in self.limits]
        steps: list[Tensor] = []
        for wanted_BSA in actions_BSHA.unbind(dim=2):
            action_BSA = self._step(wanted_BSA, memories)
            steps.append(action_BSA)
            if len(steps) < actions_BSHA.shape[2]:
                memories = [limit.after(action_BSA, memory) for limit, memory in zip(self.limits, memories, strict=True)]
        return torch.stack(steps, dim=2)

    def _step(self, wanted_BSA: Tensor, memories: list[Any]) -> Tensor:
        action_BSA = self._clip(wanted_BSA, memories)

        def interval() -> tuple[Tensor, Tensor]:
            """Clips in a row are one clip, to where they take the far ends."""
            if not memories:
                return self.box.low_A, self.box.high_A
            far_BSA = torch.full_like(wanted_BSA, torch.inf)
            return self._clip(-far_BSA, memories), self._clip(far_BSA, memories)

        for shape in self.shapes:
            action_BSA = shape.pull(action_BSA, wanted_BSA, interval)
        return action_BSA

    def _clip(self, action_BSA: Tensor, memories: list[Any]) -> Tensor:
        for limit, memory in zip(self.limits, memories, strict=True):
            action_BSA = limit.clip(action_BSA, memory)
        return torch.clamp(action_BSA, self.box.low_A, self.box.high_A)
