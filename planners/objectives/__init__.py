"""Objectives: what is wanted. `base.py` states the contract; terms are summed by `Objective`."""

from goalward.planners.objectives.base import Objective, Outcome, Term
from goalward.planners.objectives.effort import ActionEffort
from goalward.planners.objectives.latent import LatentDistance, latent_distance

__all__ = ["ActionEffort", "LatentDistance", "Objective", "Outcome", "Term", "latent_distance"]
