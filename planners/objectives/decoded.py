"""Distance to the goal in pixels: predicted latents are decoded, and pictures compared. For generative world models alone.

Unit of cost: 1 is as far as black from white. Two pictures of one scene differ by a few thousandths, so beside other terms a weight of some
hundreds is in order; most methods rank costs only.

Letters: B problems, S candidates, H horizon steps, G goal images, V camera views, h = w image side in pixels, N tokens, D latent width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.checks import require_number
from goalward.planners.objectives.base import Outcome, StepWeights, at_least_float32, check_step_weights, weights_H


class DecodingModel(Protocol):
    """A world model that can draw what it predicts."""

    def decode(self, z_BND: Tensor) -> Tensor:
        """Maps latents [..., N, D] to brightness, 0 to 1, [..., V, h, w, 3]; differentiable."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DecodedDistance:
    """Mean squared difference of predicted pictures from the goal's, brightness 0 to 1, along the horizon."""

    model: DecodingModel
    """Decodes; the model that is planned with."""
    step_weights: StepWeights = "last"
    """Which predicted frames count, see `LatentDistance.step_weights`; every one that does has to be decoded."""
    goal_pixels_GVhw3: Tensor | None = None
    """The goal images themselves, uint8. None: what the model decodes of their latents, so that what it cannot draw counts nothing."""
    weight: float = 1.0
    """Factor in the objective."""

    def __post_init__(self) -> None:
        """Checks every field."""
        require_number("weight", self.weight, low=0.0)
        check_step_weights(self.step_weights)
        given = self.goal_pixels_GVhw3
        if given is not None and (given.dtype != torch.uint8 or given.ndim != 5 or given.shape[-1] != 3):
            raise UserError(f"goal_pixels_GVhw3: {given.dtype} {list(given.shape)} is not allowed; give uint8 [G, V, h, w, 3]")

    def cost(self, outcome: Outcome) -> Tensor:
        """Weighted mean over the horizon; of several goals the nearest counts at every step."""
        if self.goal_pixels_GVhw3 is None:
            goal_BGVhw3 = self.model.decode(outcome.z_goal_BGND)
        else:
            goal_BGVhw3 = (self.goal_pixels_GVhw3.to(outcome.z_goal_BGND.device).float() / 255.0)[None]
        total_BS: Tensor | None = None
        # Step by step: pictures are large. Steps of no weight are left out; they could only add a NaN (0 times inf).
        for step, weight in enumerate(weights_H(self.step_weights, outcome.z_BSHND.shape[2])):
            if weight > 0:
                seen_BSVhw3 = self.model.decode(outcome.z_BSHND[:, :, step])
                distances = [picture_distance(seen_BSVhw3, goal[:, None]) for goal in goal_BGVhw3.unbind(1)]
                nearest_BS = distances[0] if len(distances) == 1 else torch.stack(distances).amin(dim=0)
                part_BS = nearest_BS * weight
                total_BS = part_BS if total_BS is None else total_BS + part_BS
        assert total_BS is not None
        return total_BS


def picture_distance(seen_Vhw3: Tensor, goal_Vhw3: Tensor) -> Tensor:
    """Mean squared difference over the last four axes; axes before are broadcast.

    Raises:
        UserError: Pictures of different sizes.
    """
    if seen_Vhw3.shape[-4:] != goal_Vhw3.shape[-4:]:
        raise UserError(f"goal pictures are {list(goal_Vhw3.shape[-4:])}, the model decodes {list(seen_Vhw3.shape[-4:])}; give them alike")
    square = (at_least_float32(seen_Vhw3) - at_least_float32(goal_Vhw3)).square()
    # Rows first: a sum shared out among threads, as one over many pixels would be, would round by how many pictures there are.
    return square.mean(dim=(-2, -1)).mean(dim=(-2, -1))
