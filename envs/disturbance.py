"""What carries a variation out, in one environment: moves cameras, places distractors, and makes of a command what the robot does."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from goalward import UserError
from goalward.envs.distractors import DistractorArea, draw_distractors
from goalward.envs.rendering import SceneRenderer
from goalward.envs.variation import Variation


class Disturbance:
    """The variation of one environment; lights and textures are the business of `Appearance`."""

    def __init__(
        self,
        variation: Variation,
        model: mujoco.MjModel,
        cameras: tuple[str, ...],
        area: DistractorArea | None,
        limit_A: NDArray[np.float64],
    ) -> None:
        """Disturbs nothing yet.

        Args:
            variation: what varies.
            model: whose cameras are moved, in place.
            cameras: those that are observed.
            area: where distractors may stand; None: nowhere.
            limit_A: largest absolute value of every action entry.

        Raises:
            UserError: distractors, and nowhere to put them.
        """
        if variation.num_distractors and area is None:
            raise UserError(f"variation={variation.name!r}: this task has no place for distractors; choose another variation")
        self._variation, self._area, self._limit_A = variation, area, limit_A
        self._mount = CameraMount(model, cameras)
        self._pending: list[NDArray[np.float64]] = []

    def begin(self, rng: np.random.Generator, renderer: SceneRenderer) -> None:
        """Draws what varies in the episode that begins; a plain task draws nothing."""
        variation = self._variation
        if variation.moves_cameras:
            self._mount.move(rng, shift_m=variation.camera_shift_m, turn_rad=variation.camera_turn_rad)
        if variation.num_distractors and self._area is not None:
            renderer.distractors = draw_distractors(rng, self._area, variation.num_distractors)
        self._pending = [np.zeros_like(self._limit_A)] * variation.action_delay_steps

    def executed(self, action_A: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        """What the robot makes of a command [A]: late, inexact, and always inside the limits."""
        action_A = np.clip(action_A, -self._limit_A, self._limit_A)
        if self._pending:
            self._pending.append(action_A)
            action_A = self._pending.pop(0)
        if self._variation.action_noise:
            noise_A = rng.normal(0.0, self._variation.action_noise, size=action_A.shape) * self._limit_A
            action_A = np.clip(action_A + noise_A, -self._limit_A, self._limit_A)
        return action_A


class CameraMount:
    """Cameras of a model, and where they belong."""

    def __init__(self, model: mujoco.MjModel, names: tuple[str, ...]) -> None:
        """Remembers the original poses of the cameras that `move` changes in place."""
        self._model = model
        self._ids = [model.camera(name).id for name in names]
        self._pos, self._quat = model.cam_pos[self._ids].copy(), model.cam_quat[self._ids].copy()

    def move(self, rng: np.random.Generator, *, shift_m: float, turn_rad: float) -> None:
        """Moves every camera by a given length and angle from its original pose, in random directions."""
        for camera, pos, quat in zip(self._ids, self._pos, self._quat, strict=True):
            self._model.cam_pos[camera] = pos + shift_m * _direction(rng)
            turn, turned = np.zeros(4), np.zeros(4)
            mujoco.mju_axisAngle2Quat(turn, _direction(rng), turn_rad)
            mujoco.mju_mulQuat(turned, quat, turn)
            self._model.cam_quat[camera] = turned


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    """A unit vector, evenly over the sphere."""
    vector = rng.normal(size=3)
    unit: NDArray[np.float64] = vector / np.linalg.norm(vector)
    return unit
