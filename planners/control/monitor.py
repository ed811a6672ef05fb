"""Two questions asked of every new observation: did the world do what the plan predicted, and is this the goal?

    surprise(k) = d(z_observed, z_predicted[k]) / typical error of a (k + 1)-step prediction       after action k of a plan was executed
    success     = d(z_observed, z_goal) <= threshold, at several observations running

with d the mean squared difference of normalised latents. The typical errors and the threshold are measured on held-out episodes and come
with the model; without them there is no surprise and no verdict on success. A surprise of 1 is an ordinary moment.

Letters: N tokens, D latent width, H horizon steps.
"""

from __future__ import annotations

import math
from typing import Protocol

from torch import Tensor

from goalward import UserError
from goalward.planners.base import Plan
from goalward.planners.objectives import latent_distance


class Calibration(Protocol):
    """What must be known of a model to judge its predictions; measured on held-out episodes."""

    @property
    def typical_error_H(self) -> tuple[float, ...]:
        """Median squared error of 1 .. H predicted steps, mean over the entries of normalised latents."""

    @property
    def surprise_limit_H(self) -> tuple[float, ...]:
        """Surprise after 1 .. H steps above which something has happened that the model did not foresee."""

    @property
    def success_energy(self) -> float:
        """Latent distance to the goal at and below which the arm counts as being there."""

    @property
    def success_steps(self) -> int:
        """So many observations running must be there."""


def check_calibration(calibration: Calibration) -> None:
    """Refuses numbers that would make every verdict the same.

    Raises:
        UserError: Names the entry.
    """
    typical, limits = calibration.typical_error_H, calibration.surprise_limit_H
    if not typical or len(typical) != len(limits):
        raise UserError(f"calibration: {len(typical)} typical errors and {len(limits)} surprise limits; give as many of each, at least one")
    positive = {"typical_error_H": typical, "surprise_limit_H": limits, "success_energy": (calibration.success_energy,)}
    for name, values in positive.items():
        if wrong := [value for value in values if not 0.0 < value < math.inf]:
            raise UserError(f"calibration: {name} holds {wrong[0]}; must be positive and finite: run goalward calibrate again")
    if calibration.success_steps < 1:
        raise UserError(f"calibration: success_steps is {calibration.success_steps}; must be at least 1: run goalward calibrate again")


def surprise_of(calibration: Calibration, plan: Plan, num_executed: int, z_1ND: Tensor) -> float:
    """How far the world is from what the plan predicted, in units of the model's typical error.

    Beyond the calibrated horizon the last typical error is used: later predictions are worse, so that surprise is overrated, never
    underrated.

    Args:
        calibration: Of the model.
        plan: Of one arm.
        num_executed: Actions executed since the plan began, at least 1.
        z_1ND: What is observed now.
    """
    error = float(latent_distance(z_1ND, plan.z_BHND[:, num_executed - 1]))
    return error / calibration.typical_error_H[min(num_executed, len(calibration.typical_error_H)) - 1]


def surprise_limit(calibration: Calibration, num_executed: int, threshold: float | None) -> float:
    """The surprise that is too much; `threshold` where the user gave one."""
    if threshold is not None:
        return threshold
    return calibration.surprise_limit_H[min(num_executed, len(calibration.surprise_limit_H)) - 1]
