"""A Jaco arm whose hand is moved by displacements in the table's frame, orientation held: what `reach` and `push` share."""

from __future__ import annotations

from typing import ClassVar

import mujoco
import numpy as np

from goalward.envs.cartesian_servo import CartesianServo, ServoConfig
from goalward.envs.distractors import DistractorArea
from goalward.envs.goal_task import GoalTask, Vector
from goalward.envs.jaco_scene import ARM_JOINTS, CAMERA_POSES_M, FINGER_JOINTS, PINCH_SITE, TABLE_MARGINS_M

HOME_QPOS = (-1.68, 3.58, 1.51, -0.35, 1.27, 1.11)
HAND_DOWN = (0.0, 0.5**0.5, 0.5**0.5, 0.0)
ARM_PROPRIO_NAMES = (
    "ee_x_m", "ee_y_m", "ee_z_m", *(f"joint_{i}_rad" for i in range(1, 7)), *(f"joint_{i}_rad_s" for i in range(1, 7)),
)  # fmt: skip


class JacoTask(GoalTask):
    """An arm with a hand that points down, velocity actuators, and a Cartesian servo on top of them."""

    camera_names = tuple(CAMERA_POSES_M)
    proprio_names = ARM_PROPRIO_NAMES
    distractor_area = DistractorArea(rectangles=TABLE_MARGINS_M, floor_m=0.0, half_size_m=(0.02, 0.045))
    dt_s = 0.25
    tick_s = 0.01
    finger_qpos: ClassVar[float] = 0.7
    """Position of the three fingers, radians."""
    hand_site: ClassVar[str] = PINCH_SITE
    """Site that is the hand's position."""

    def _bind(self, model: mujoco.MjModel) -> None:
        config = ServoConfig(dt_s=self.dt_s, tick_s=self.tick_s)
        self._servo = CartesianServo(model, joints=ARM_JOINTS, site=self.hand_site, orientation=np.array(HAND_DOWN), config=config)
        self._site = model.site(self.hand_site).id
        self._arm_qpos = np.array([model.joint(j).qposadr[0] for j in ARM_JOINTS])
        self._arm_dof = np.array([model.joint(j).dofadr[0] for j in ARM_JOINTS])
        self._finger_qpos = np.array([model.joint(j).qposadr[0] for j in FINGER_JOINTS])

    def _hand_m(self, data: mujoco.MjData) -> Vector:
        """End effector [3], world frame."""
        return np.array(data.site_xpos[self._site])

    def _move(self, data: mujoco.MjData, displacement_m: Vector) -> Vector:
        """Moves the hand by a displacement [3], kept in the workspace, for one period; returns the place it was sent to."""
        position = self._hand_m(data)
        displacement_m = np.clip(position + displacement_m, self._low, self._high) - position
        self._servo.move(data, displacement_m)
        return position + displacement_m

    def _hold(self, data: mujoco.MjData, held: Vector, num_ticks: int) -> None:
        self._servo.hold(data, held, num_ticks=num_ticks)

    def _at_rest(self, data: mujoco.MjData) -> Vector:
        return self._hand_m(data)

    def _proprio(self, data: mujoco.MjData) -> Vector:
        return np.concatenate([self._hand_m(data), data.qpos[self._arm_qpos], data.qvel[self._arm_dof]])

    def _home(self) -> None:
        """Puts the arm at its home posture, kinematically, where the servo's solver starts from."""
        qpos = np.array(self._model.qpos0)
        qpos[self._arm_qpos], qpos[self._finger_qpos] = HOME_QPOS, self.finger_qpos
        self._set_state(qpos)
