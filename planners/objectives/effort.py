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
        unit_A = outcome.unit_A
        scaled = torch.where(unit_A > 0, outcome.actions_BSHA / torch.where(unit_A > 0, unit_A, 1.0), 0.0)
        return at_least_float32(scaled).square().mean(dim=(-2, -1))
