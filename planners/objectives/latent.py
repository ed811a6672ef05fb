"""Distance to the goal in the space of latents.

Letters: B problems, S candidates, H horizon steps, G goal images, N tokens, D latent width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.checks import require_number
from goalward.planners.objectives.base import Outcome, at_least_float32

Metric = Literal["l2", "l1", "cosine"]
StepWeights = Literal["last", "uniform", "linear"] | tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentDistance:
    """How far predicted latents are from the goal's, along the horizon."""

    metric: Metric = "l2"
    """l2: mean squared difference; l1: mean absolute difference; cosine: one minus the cosine, mean over tokens."""
    step_weights: StepWeights = "last"
    """Which predicted frames count: the last, all alike, growing linearly, or one weight per step; normalised to sum 1."""
    weight: float = 1.0
    """Factor in the objective."""

    def __post_init__(self) -> None:
        """Refuses unknown metrics and weights that cannot be normalised."""
        if self.metric not in ("l2", "l1", "cosine"):
            raise UserError(f"metric: {self.metric!r} is unknown; choose l2, l1 or cosine")
        require_number("weight", self.weight, low=0.0)
        weights = self.step_weights
        if isinstance(weights, str):
            if weights not in ("last", "uniform", "linear"):
                raise UserError(f"step_weights: {weights!r} is unknown; choose last, uniform, linear or one number per step")
        elif not weights or not all(math.isfinite(w) and w >= 0 for w in weights) or not 0 < sum(weights) < math.inf:
            raise UserError(f"step_weights: {weights} is not allowed; give finite numbers of at least 0, not all 0")

    def weights_H(self, horizon: int) -> list[float]:
        """Normalised weight of each step."""
        match self.step_weights:
            case "last":
                raw = [0.0] * (horizon - 1) + [1.0]
            case "uniform":
                raw = [1.0] * horizon
            case "linear":
                raw = [float(step + 1) for step in range(horizon)]
            case tuple() as given:
                if len(given) != horizon:
                    raise UserError(f"step_weights: {len(given)} weights for a horizon of {horizon}; give one per step")
                raw = list(given)
        total = sum(raw)
        return [weight / total for weight in raw]

    def cost(self, outcome: Outcome) -> Tensor:
        """Weighted mean over the horizon; see `metric`."""
        total_BS: Tensor | None = None
        # Step by step: temporaries that fit the cache. Steps of no weight are left out; they could only add a NaN (0 times inf).
        for step, weight in enumerate(self.weights_H(outcome.z_BSHND.shape[2])):
            if weight > 0:
                part_BS = self._nearest(outcome.z_BSHND[:, :, step], outcome.z_goal_BGND)
                part_BS = part_BS if weight == 1.0 else part_BS * weight
                total_BS = part_BS if total_BS is None else total_BS + part_BS
        assert total_BS is not None
        return total_BS

    def _nearest(self, z_BSND: Tensor, z_goal_BGND: Tensor) -> Tensor:
        distances = [latent_distance(z_BSND, z_goal_BND[:, None], self.metric) for z_goal_BND in z_goal_BGND.unbind(1)]
        return distances[0] if len(distances) == 1 else torch.stack(distances).amin(dim=0)


def latent_distance(z_ND: Tensor, z_goal_ND: Tensor, metric: Metric = "l2") -> Tensor:
    """Distance over the last two axes (tokens, width), with broadcasting of the axes before; see `LatentDistance.metric`."""
    z_ND, z_goal_ND = at_least_float32(z_ND), at_least_float32(z_goal_ND)
    if metric == "cosine":
        return (1.0 - torch.nn.functional.cosine_similarity(z_ND, z_goal_ND, dim=-1, eps=1e-6)).mean(dim=-1)
    difference = z_ND - z_goal_ND
    return (difference.square() if metric == "l2" else difference.abs()).mean(dim=(-2, -1))
