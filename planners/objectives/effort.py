"""What actions themselves cost. Letters: B problems, S candidates, H horizon steps, A action dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from goalward.planners.checks import require_number
from goalward.planners.objectives.base import Outcome, at_least_float32


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionEffort:
    """Mean square of the actions, each entry in units of half its range: 0 at rest, 1 at the bounds of a symmetric box."""

    weight: float = 0.01
    """Factor in the objective."""

    def __post_init__(self) -> None:
        """Checks the weight."""
        require_number("weight", self.weight, low=0.0)

    def cost(self, outcome: Outcome) -> Tensor:
        """Mean over steps and entries; frozen entries count nothing."""
        return _scaled(outcome.actions_BSHA, outcome.unit_A).square().mean(dim=(-2, -1))


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionSmoothness:
    """Mean square of the change from one action to the next, in units of half the range; the first from the action executed last.

    Where that one is not known (`Situation.last_action_BA`), changes within the plan alone count.
    """

    weight: float = 0.01
    """Factor in the objective."""

    def __post_init__(self) -> None:
        """Checks the weight."""
        require_number("weight", self.weight, low=0.0)

    def cost(self, outcome: Outcome) -> Tensor:
        """Mean over changes and entries; frozen entries count nothing."""
        actions_BSHA, last_BA = outcome.actions_BSHA, outcome.situation.last_action_BA
        if last_BA is not None:
            first_BS1A = last_BA.to(actions_BSHA)[:, None, None].expand(-1, actions_BSHA.shape[1], -1, -1)
            actions_BSHA = torch.cat([first_BS1A, actions_BSHA], dim=2)
        elif actions_BSHA.shape[2] == 1:
            return 0.0 * at_least_float32(actions_BSHA).sum(dim=(-2, -1))
        return _scaled(actions_BSHA.diff(dim=2), outcome.unit_A).square().mean(dim=(-2, -1))


def _scaled(actions_BSHA: Tensor, unit_A: Tensor) -> Tensor:
    return at_least_float32(torch.where(unit_A > 0, actions_BSHA / torch.where(unit_A > 0, unit_A, 1.0), 0.0))
