"""Objectives: what is wanted, as weighted sums of small terms. This file states their contract.

Letters: B problems, S candidates, H horizon steps, G goal images, N tokens, D latent width, A action dimensions.

Latents are normalised to unit scale by the model and every term is a mean, not a sum, so that a weight means much the same for any
encoder, horizon and action space.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.actions.base import Situation


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Outcome:
    """What candidates would lead to: all that an objective may look at."""

    z_BSHND: Tensor
    """Predicted latents, float32 (float64 if the model gives it)."""
    z_goal_BGND: Tensor
    """Latents of the goal images."""
    actions_BSHA: Tensor
    """Physical units."""
    unit_A: Tensor
    """Half the range of each action entry, physical units."""
    situation: Situation
    """The present: measured position, last action."""


StepWeights = Literal["last", "uniform", "linear", "quartic"] | tuple[float, ...]
"""Which steps of the horizon count: the last, all alike, growing linearly or with the fourth power, or one weight per step."""
NAMED_STEP_WEIGHTS = ("last", "uniform", "linear", "quartic")
"""Those that have names."""


class Term(Protocol):
    """One cost of a candidate."""

    @property
    def weight(self) -> float:
        """Factor in the sum; a term of weight 0 is not asked for its cost."""

    def cost(self, outcome: Outcome) -> Tensor:
        """Returns the cost [B, S] before weighting; differentiable with respect to latents and actions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """The weighted sum of its terms."""

    terms: tuple[Term, ...]
    """What counts."""

    def __post_init__(self) -> None:
        """Refuses an objective that wants nothing."""
        if not any(term.weight > 0 for term in self.terms):
            raise UserError("objective: no terms of a weight above 0; give at least one, such as LatentDistance()")

    def __call__(self, outcome: Outcome) -> Tensor:
        """Returns costs [B, S], float32 (float64 if the latents are)."""
        total_BS: Tensor | None = None
        for term in self.terms:
            if term.weight == 0.0:
                continue  # It could only add a NaN (0 times inf).
            cost_BS = term.cost(outcome)
            cost_BS = cost_BS if term.weight == 1.0 else cost_BS * term.weight
            total_BS = cost_BS if total_BS is None else total_BS + cost_BS
        assert total_BS is not None
        return total_BS


def at_least_float32(values: Tensor) -> Tensor:
    """Widens half precision: costs are summed in float32 or better."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def check_step_weights(weights: StepWeights) -> None:
    """Refuses weights that cannot be normalised."""
    if isinstance(weights, str):
        if weights not in NAMED_STEP_WEIGHTS:
            raise UserError(f"step_weights: {weights!r} is unknown; choose {', '.join(NAMED_STEP_WEIGHTS)} or one number per step")
    elif not weights or not all(math.isfinite(w) and w >= 0 for w in weights) or not 0 < sum(weights) < math.inf:
        raise UserError(f"step_weights: {weights} is not allowed; give finite numbers of at least 0, not all 0")


def weights_H(weights: StepWeights, horizon: int) -> list[float]:
    """Normalised weight of each step.

    Raises:
        UserError: Another number of weights than steps.
    """
    match weights:
        case "last":
            raw = [0.0] * (horizon - 1) + [1.0]
        case "uniform":
            raw = [1.0] * horizon
        case "linear":
            raw = [float(step + 1) for step in range(horizon)]
        case "quartic":  # nearly the last alone, yet arriving early still pays: for long plans that must first lead away
            raw = [float(step + 1) ** 4 for step in range(horizon)]
        case _:
            if len(weights) != horizon:
                raise UserError(f"step_weights: {len(weights)} weights for a horizon of {horizon}; give one per step")
            raw = [float(weight) for weight in weights]
    total = sum(raw)
    return [weight / total for weight in raw]
