"""Moves an arm's end effector by a displacement, orientation held: differential inverse kinematics on velocity actuators.

Damped least squares (Nakamura & Hanafusa, 1986): q' = J^T (J J^T + lambda^2 I)^-1 v, with v a feed-forward along a straight line plus a
proportional correction of the pose error. Joint speed limits scale the whole velocity, so that the path stays straight.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class ServoConfig:
    """Gains and rates of the servo."""

    dt_s: float = 0.25
    """Duration of one displacement (the control period of the environment), seconds."""
    tick_s: float = 0.01
    """Period of the inner velocity loop, seconds; a multiple of the physics step."""
    ramp: float = 0.8
    """Share of the control period over which the reference moves; it rests for the remainder."""
    gain_per_s: float = 12.0
    """Proportional gain on the pose error."""
    damping: float = 0.03
    """Damping of the least-squares inverse (metres per radian)."""
    joint_margin_rad: float = 0.05
    """Distance kept from the joint limits."""


class CartesianServo:
    """Drives `joints` so that `site` follows displacements; reads and writes only the MuJoCo data it is handed."""

    def __init__(
        self, model: mujoco.MjModel, *, joints: tuple[str, ...], site: str, orientation: NDArray[np.float64], config: ServoConfig
    ) -> None:
        """Resolves names once.

        Args:
            model: compiled model with one velocity actuator per joint, of the joint's name.
            joints: controlled joints, base to tip.
            site: end-effector site.
            orientation: quaternion [4] (w, x, y, z) held by the site, world frame.
            config: gains and rates.
        """
        self._model = model
        self._site = model.site(site).id
        self._qpos = np.array([model.joint(j).qposadr[0] for j in joints])
        self._dof = np.array([model.joint(j).dofadr[0] for j in joints])
        self._ctrl = np.array([model.actuator(j).id for j in joints])
        self._max_speed = model.actuator_ctrlrange[self._ctrl, 1].copy()
        ids = [model.joint(j).id for j in joints]
        limited = model.jnt_limited[ids].astype(bool)
        margin = config.joint_margin_rad
        self._low = np.where(limited, model.jnt_range[ids, 0] + margin, -np.inf)
        self._high = np.where(limited, model.jnt_range[ids, 1] - margin, np.inf)
        self._orientation = np.asarray(orientation, dtype=np.float64)
        self._config = config
        self._substeps = round(config.tick_s / model.opt.timestep)
        self._ticks = round(config.dt_s / config.tick_s)
        self._jacobian = np.zeros((6, model.nv))

    def _rotation_error(self, data: mujoco.MjData) -> NDArray[np.float64]:
        current, inverse, delta, error = np.zeros(4), np.zeros(4), np.zeros(4), np.zeros(3)
        mujoco.mju_mat2Quat(current, data.site_xmat[self._site])
        mujoco.mju_negQuat(inverse, current)
        mujoco.mju_mulQuat(delta, self._orientation, inverse)
        mujoco.mju_quat2Vel(error, delta, 1.0)
        return error

    def _joint_velocity(self, data: mujoco.MjData, twist: NDArray[np.float64]) -> NDArray[np.float64]:
        mujoco.mj_jacSite(self._model, data, self._jacobian[:3], self._jacobian[3:], self._site)
        jac = self._jacobian[:, self._dof]
        regular = jac @ jac.T + self._config.damping**2 * np.eye(6)
        velocity: NDArray[np.float64] = jac.T @ np.linalg.solve(regular, twist)
        return velocity

    def move(self, data: mujoco.MjData, displacement_m: NDArray[np.float64]) -> None:
        """Advances the physics by one control period while the end effector moves by `displacement_m` [3] from where it is now."""
        config = self._config
        start = data.site_xpos[self._site].copy()
        ramp_s = config.ramp * config.dt_s
        for tick in range(self._ticks):
            fraction = min(1.0, (tick + 1) * config.tick_s / ramp_s)
            moving = tick * config.tick_s < ramp_s
            velocity_m_s = config.gain_per_s * (start + fraction * displacement_m - data.site_xpos[self._site])
            if moving:
                velocity_m_s += displacement_m / ramp_s
            self._drive(data, velocity_m_s)

    def hold(self, data: mujoco.MjData, reference_m: NDArray[np.float64], *, num_ticks: int) -> None:
        """Advances the physics by some periods of the velocity loop while the end effector is drawn to `reference_m` [3], world frame."""
        for _ in range(num_ticks):
            self._drive(data, self._config.gain_per_s * (reference_m - data.site_xpos[self._site]))

    def _drive(self, data: mujoco.MjData, velocity_m_s: NDArray[np.float64]) -> None:
        """One period of the velocity loop: the end effector at a velocity [3], orientation held."""
        twist = np.zeros(6)
        twist[:3] = velocity_m_s
        twist[3:] = self._config.gain_per_s * self._rotation_error(data)
        velocity = self._joint_velocity(data, twist)
        velocity /= max(1.0, float(np.max(np.abs(velocity) / self._max_speed)))
        # Never drive a joint further towards a limit it has reached.
        qpos = data.qpos[self._qpos]
        velocity = np.where((qpos <= self._low) & (velocity < 0), 0.0, velocity)
        velocity = np.where((qpos >= self._high) & (velocity > 0), 0.0, velocity)
        data.ctrl[self._ctrl] = velocity
        mujoco.mj_step(self._model, data, nstep=self._substeps)
        mujoco.mj_fwdPosition(self._model, data)

    def solve(self, data: mujoco.MjData, position_m: NDArray[np.float64], *, num_iterations: int = 200) -> float:
        """Puts the arm kinematically at a pose (for resets only: no physics passes).

        Args:
            data: changed in place: joint positions, and everything that depends on them.
            position_m: wanted end-effector position [3], world frame.
            num_iterations: Gauss-Newton steps.

        Returns:
            The remaining pose error (largest entry, metres or radians).
        """
        twist = np.zeros(6)
        for _ in range(num_iterations):
            mujoco.mj_fwdPosition(self._model, data)
            twist[:3] = position_m - data.site_xpos[self._site]
            twist[3:] = self._rotation_error(data)
            if np.max(np.abs(twist)) < 1e-6:
                break
            qpos = data.qpos[self._qpos] + self._joint_velocity(data, np.clip(twist, -0.1, 0.1))
            data.qpos[self._qpos] = np.clip(qpos, self._low, self._high)
        return float(np.max(np.abs(twist)))
