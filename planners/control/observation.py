"""Reading what comes from outside: goal images and observations. The user's mistakes raise, faults of the moment are reported.

A wrong shape or type is a mistake in the program and raises `UserError`. A reading that is not finite is a fault of the moment: the
controller must hold and say why, not die.

Letters: V camera views, P proprioception entries, E workspace axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from goalward import UserError
from goalward.planners.base import WorldModel

POSITION_NAMES = ("ee_x_m", "ee_y_m", "ee_z_m")
"""Proprioception entries that hold the end effector's position, in the frame of the workspace."""
DISPLACEMENT_NAMES = ("dx", "dy", "dz")
"""Action entries that displace it, without their unit suffix `_m`."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Observed:
    """One observation, checked."""

    pixels_Vhw3: NDArray[np.uint8]
    """One frame per camera."""
    position_E: tuple[float, ...] | None
    """End-effector position in metres, if the limits need it."""
    proprio_P: NDArray[np.float32] | None
    """The robot's state, for a model that predicts from it; else None."""
    time_s: float
    """When it was taken."""
    fault: str | None
    """Why no plan may be based on it."""


def read_observation(
    observation: Mapping[str, Any],
    model: WorldModel,
    *,
    position_axes: Sequence[int],
    default_time_s: float,
    needs_proprio: bool = False,
) -> Observed:
    """Checks an observation: `pixels` uint8 [V, h, w, 3], `proprio` float32 [P], `time_s`.

    Args:
        observation: As the environments give it; `time_s` may be missing, and `proprio` too unless the position is needed.
        model: Says what is expected.
        position_axes: Along which axes (0 x, 1 y, 2 z) the action set bounds the end effector; empty if along none.
        default_time_s: The time, if the observation has none.
        needs_proprio: Whether the model predicts from the robot's state too.

    Raises:
        UserError: A missing entry, another shape or another type.
    """
    if not isinstance(observation, Mapping) or "pixels" not in observation:
        given = ", ".join(map(str, observation)) if isinstance(observation, Mapping) else type(observation).__name__
        raise UserError(f"observation: no entry 'pixels' in ({given}); give a dictionary with pixels, proprio and time_s")
    pixels = check_frames("pixels", observation["pixels"], model)
    time_s = float(observation.get("time_s", default_time_s))
    names = tuple(model.proprio_names)
    position: tuple[float, ...] | None = None
    proprio: NDArray[Any] | None = None
    fault = None if math.isfinite(time_s) else "time_s is not finite"
    if "proprio" in observation:
        proprio = _as_array(observation["proprio"])
        if proprio.shape != (len(names),) or proprio.dtype.kind not in "fiu":
            raise UserError(
                f"proprio: {proprio.dtype} of shape {proprio.shape}; the model expects float32 of shape ({len(names)},): {', '.join(names)}"
            )
        if bad := [name for name, value in zip(names, proprio.tolist(), strict=True) if not math.isfinite(value)]:
            fault = f"proprio is not finite: {', '.join(bad)}"
        if position_axes:
            position = tuple(float(proprio[index]) for index in position_indices(names, position_axes))
    elif position_axes:
        raise UserError(
            "observation: no entry 'proprio', and the workspace needs the end-effector position; give it, or leave the workspace out"
        )
    elif needs_proprio:
        raise UserError(f"observation: no entry 'proprio', and the model predicts from it; give float32 [{len(names)}]: {', '.join(names)}")
    state = None
    if needs_proprio and proprio is not None:
        with np.errstate(over="ignore"):
            state = proprio.astype(np.float32)
        if fault is None and not np.isfinite(state).all():
            fault = "proprio is beyond what float32 holds"
    return Observed(pixels_Vhw3=pixels, position_E=position, proprio_P=state, time_s=time_s, fault=fault)


def check_frames(what: str, frames: Any, model: WorldModel) -> NDArray[np.uint8]:
    """Checks one frame per camera of the model, uint8 [V, h, w, 3].

    Raises:
        UserError: Names what is expected, what was given, and the fix.
    """
    array = _as_array(frames)
    views, size = len(model.cameras), model.image_size_px
    expected = f"the model expects uint8 of shape {(views, size, size, 3)}, views {', '.join(model.cameras)}"
    given = f"{what}: {array.dtype} of shape {array.shape}"
    if array.shape != (views, size, size, 3):
        if array.ndim == 3:
            fix = "stack one frame per camera along a new first axis" if views > 1 else f"add a first axis: {what}[None]"
        elif array.ndim != 4:
            fix = "stack one frame per camera along the first axis"
        elif array.shape[1] == 3 and array.shape[3] != 3:
            fix = f"put the colours last: {what}.transpose(0, 2, 3, 1)"
        elif array.shape[3] != 3:
            fix = "give RGB, without alpha or depth"
        elif array.shape[0] != views:
            fix = "give the model's cameras, in its order"
        else:
            fix = f"render or resize to {size} by {size} pixels"
        raise UserError(f"{given}; {expected}; {fix}")
    if array.dtype != np.uint8:
        fix = (
            f"convert with ({what} * 255).round().astype(np.uint8) if it is in 0..1"
            if array.dtype.kind == "f"
            else "convert to 0..255, uint8"
        )
        raise UserError(f"{given}; {expected}; {fix}")
    return array


def check_goals(goal_pixels: Any, model: WorldModel) -> list[NDArray[np.uint8]]:
    """Checks one goal, uint8 [V, h, w, 3], or several, [G, V, h, w, 3].

    Returns:
        G frames of V views.

    Raises:
        UserError: Names the goal that does not fit, what is expected, and the fix.
    """
    array = _as_array(goal_pixels)
    if array.ndim != 5:
        return [check_frames("goal_pixels", goal_pixels, model)]
    if not len(array):
        raise UserError(f"goal_pixels: {array.dtype} of shape {array.shape} holds no goal; give at least one")
    return [check_frames(f"goal_pixels[{g}]", frames, model) for g, frames in enumerate(array)]


def position_indices(proprio_names: Sequence[str], axes: Sequence[int] = (0, 1, 2)) -> tuple[int, ...]:
    """Finds the end-effector position along some axes (0 x, 1 y, 2 z) among the proprioception entries.

    Raises:
        UserError: The model has no such entries.
    """
    wanted = [POSITION_NAMES[axis] for axis in axes]
    if missing := [name for name in wanted if name not in proprio_names]:
        raise UserError(
            f"workspace: proprio lacks {', '.join(missing)} (it has {', '.join(proprio_names) or 'nothing'}); leave the workspace out"
        )
    return tuple(list(proprio_names).index(name) for name in wanted)


def steered_axes(action_names: Sequence[str]) -> tuple[int, ...]:
    """Axes (0 x, 1 y, 2 z) along which actions displace the end effector; empty if they do something else."""
    bare = _bare(action_names)
    return tuple(axis for axis, name in enumerate(DISPLACEMENT_NAMES) if name in bare)


def displacement_dims(action_names: Sequence[str]) -> tuple[int, ...]:
    """Finds the action entries that displace the end effector, in the order of `steered_axes`.

    Raises:
        UserError: There are none.
    """
    bare, axes = _bare(action_names), steered_axes(action_names)
    if not axes:
        raise UserError(
            f"workspace: actions lack {', '.join(DISPLACEMENT_NAMES)} (they are {', '.join(action_names)}); leave the workspace out"
        )
    return tuple(bare.index(DISPLACEMENT_NAMES[axis]) for axis in axes)


def _bare(action_names: Sequence[str]) -> list[str]:
    return [name.removesuffix("_m") for name in action_names]


def _as_array(values: Any) -> NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
