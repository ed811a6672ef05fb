"""Objectives: what is wanted. `base.py` states the contract; terms are summed by `Objective`."""

from goalward.planners.objectives.base import Objective, Outcome, Term
from goalward.planners.objectives.decoded import DecodedDistance
from goalward.planners.objectives.effort import ActionEffort, ActionSmoothness
from goalward.planners.objectives.latent import LatentDistance, latent_distance, region_weights
from goalward.planners.objectives.position import Guardrail, PositionGoal

__all__ = [
    "ActionEffort",
    "ActionSmoothness",
    "DecodedDistance",
    "Guardrail",
    "LatentDistance",
    "Objective",
    "Outcome",
    "PositionGoal",
    "Term",
    "latent_distance",
    "region_weights",
]
