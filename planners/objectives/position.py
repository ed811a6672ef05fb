"""Costs of where the end effector would be: a goal in metres, and zones to stay in or out of.

The predicted position is the measured one plus the displacements so far, as in the `Workspace` of the action set. An action set forbids; a
guardrail only makes dear, and has a gradient.

Letters: B problems, S candidates, H horizon steps, E axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.checks import require_number
from goalward.planners.objectives.base import Outcome, StepWeights, at_least_float32, check_step_weights, weights_H


@dataclass(frozen=True, kw_only=True, slots=True)
class PositionGoal:
    """Squared distance of the predicted end effector to a position, in units of a scale."""

    position_m: tuple[float, ...]
    """Where to go, metres, in the frame of the proprio entries."""
    scale_m: float = 0.1
    """The distance that costs 1."""
    step_weights: StepWeights = "last"
    """Which steps count, see `LatentDistance.step_weights`."""
    action_dims: tuple[int, ...] = (0, 1, 2)
    """Which action entries displace the end effector, one per axis."""
    weight: float = 1.0
    """Factor in the objective."""

    def __post_init__(self) -> None:
        """Checks every field."""
        _check_dims(self.action_dims)
        _check_vector("position_m", self.position_m, self.action_dims)
        require_number("scale_m", self.scale_m, low=0.0, open_low=True)
        require_number("weight", self.weight, low=0.0)
        check_step_weights(self.step_weights)

    def cost(self, outcome: Outcome) -> Tensor:
        """Weighted mean over the horizon."""
        predicted_BSHE = predicted_positions(outcome, self.action_dims)
        shares = weights_H(self.step_weights, predicted_BSHE.shape[2])
        # Steps of no weight are left out; they could only add a NaN (0 times inf).
        steps = [step for step, share in enumerate(shares) if share > 0]
        off_BSHE = (predicted_BSHE[:, :, steps] - predicted_BSHE.new_tensor(self.position_m)) / self.scale_m
        return (off_BSHE.square().sum(-1) * off_BSHE.new_tensor([shares[step] for step in steps])).sum(-1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Guardrail:
    """Squared depth of the predicted end effector in a forbidden zone, in units of a softness: 0 outside it."""

    low_m: tuple[float, ...]
    """Lower corner of a box, metres."""
    high_m: tuple[float, ...]
    """Upper corner."""
    keep: Literal["inside", "outside"] = "inside"
    """Whether the box is to be stayed in, or out of."""
    softness_m: float = 0.01
    """The depth that costs 1."""
    action_dims: tuple[int, ...] = (0, 1, 2)
    """Which action entries displace the end effector, one per axis."""
    weight: float = 1.0
    """Factor in the objective."""

    def __post_init__(self) -> None:
        """Checks every field."""
        _check_dims(self.action_dims)
        _check_vector("low_m", self.low_m, self.action_dims)
        _check_vector("high_m", self.high_m, self.action_dims)
        if not all(low < high for low, high in zip(self.low_m, self.high_m, strict=True)):
            raise UserError(f"low_m {self.low_m}, high_m {self.high_m}: low must be below high on every axis")
        if self.keep not in ("inside", "outside"):
            raise UserError(f"keep: {self.keep!r} is unknown; choose inside or outside")
        require_number("softness_m", self.softness_m, low=0.0, open_low=True)
        require_number("weight", self.weight, low=0.0)

    def cost(self, outcome: Outcome) -> Tensor:
        """Mean over the horizon."""
        at_BSHE = predicted_positions(outcome, self.action_dims)
        above_BSHE, below_BSHE = at_BSHE - at_BSHE.new_tensor(self.low_m), at_BSHE.new_tensor(self.high_m) - at_BSHE
        if self.keep == "inside":
            outside_BSHE = (-above_BSHE).clamp(min=0.0) + (-below_BSHE).clamp(min=0.0)
            depth2_BSH = (outside_BSHE / self.softness_m).square().sum(-1)
        else:
            # How far the nearest wall is, for a point inside; 0 outside.
            depth2_BSH = (torch.minimum(above_BSHE, below_BSHE).amin(-1).clamp(min=0.0) / self.softness_m).square()
        return depth2_BSH.mean(-1)


def predicted_positions(outcome: Outcome, action_dims: tuple[int, ...]) -> Tensor:
    """End-effector positions after each action [B, S, H, E], metres, with gradient.

    Raises:
        UserError: The measured position is not known or has other axes, or an action entry does not exist.
    """
    position_BE = outcome.situation.position_BE
    if position_BE is None:
        raise UserError("position: the end effector's is not known; give Situation(position_BE=...), from the proprio entries ee_x_m, ...")
    if position_BE.shape[-1] != len(action_dims):
        raise UserError(f"action_dims: {action_dims} for a position of {position_BE.shape[-1]} axes; give one entry per axis")
    if max(action_dims) >= outcome.actions_BSHA.shape[-1]:
        raise UserError(f"action_dims: {action_dims} is not allowed; there are entries 0 .. {outcome.actions_BSHA.shape[-1] - 1}")
    steps_BSHE = at_least_float32(outcome.actions_BSHA[..., list(action_dims)])
    return position_BE.to(steps_BSHE)[:, None, None] + steps_BSHE.cumsum(dim=2)


def _check_dims(action_dims: tuple[int, ...]) -> None:
    if not action_dims or min(action_dims) < 0 or len(set(action_dims)) != len(action_dims):
        raise UserError(f"action_dims: {action_dims} is not allowed; give different entries of the action, counted from 0, one per axis")


def _check_vector(name: str, values: tuple[float, ...], action_dims: tuple[int, ...]) -> None:
    if len(values) != len(action_dims) or not all(math.isfinite(value) for value in values):
        raise UserError(f"{name}: {values} is not allowed; give {len(action_dims)} finite numbers, metres")
