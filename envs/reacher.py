"""`Goalward/Reacher-v0`: a two-link arm brings its tip to where it is in a goal image; docs/tasks/reacher.md is its page.

* Action: torques of shoulder and wrist, N m, held for five of the suite's steps (0.1 s); while nothing is commanded there is no torque.
* Observation: frames of one camera above; proprioception (tip, joint angles, joint speeds).
* Goal: the frame of the arm at rest in another configuration.
* Success: strict, tip within 1 cm of the goal's tip at two consecutive steps (ends the episode); moderate, within 5 cm at the end. Two
  configurations put the tip at one place, elbow left or right; either counts, though only one of them looks like the goal image.
* Failure: a non-finite action, a MuJoCo warning or a diverged state ends the episode.
"""

from __future__ import annotations

import math

import mujoco
import numpy as np
from numpy.typing import NDArray

from goalward.envs.base import GoalSpec
from goalward.envs.distractors import DistractorArea
from goalward.envs.goal_task import GoalTask, Vector
from goalward.envs.reacher_scene import CAMERA, CORNERS, GEAR_NM, JOINTS, LINK_M, TIMESTEP_S, TIP, build_reacher_model

STEPS_PER_ACTION = 5
"""The suite's control steps, 0.02 s each, in which a torque is held; the frame skip of the peers."""
_PULL = 3.5  # of the oracle, 1/s: joint speed per joint error


class ReacherEnv(GoalTask):
    """Bring the tip of a torque-driven arm to its place in a goal image; see the module's first lines for the task."""

    name = "reacher"
    version = "Goalward/Reacher-v0"
    camera_names = (CAMERA,)
    action_names = ("shoulder_nm", "wrist_nm")
    action_limit = (GEAR_NM,) * 2
    proprio_names = ("ee_x_m", "ee_y_m", "shoulder_rad", "wrist_rad", "shoulder_rad_s", "wrist_rad_s")
    workspace_low_m = (-2 * LINK_M, -2 * LINK_M, 0.0)
    workspace_high_m = (2 * LINK_M, 2 * LINK_M, 0.02)
    dt_s = STEPS_PER_ACTION * TIMESTEP_S
    tick_s = TIMESTEP_S
    max_episode_steps = 40
    strict_tolerance_m, strict_steps = 0.01, 2
    moderate_tolerance_m = 0.05
    min_distance_m = 0.10
    settled_m = 0.002
    distractor_area = DistractorArea(rectangles=CORNERS, floor_m=0.0, half_size_m=(0.008, 0.016))

    def _compile(self) -> mujoco.MjModel:
        return build_reacher_model()

    def _bind(self, model: mujoco.MjModel) -> None:
        self._tip = model.geom(TIP).id
        self._wrist_range = np.array(model.joint(JOINTS[1]).range)
        self._damping = np.array(model.dof_damping)

    def _advance(self, data: mujoco.MjData, action_A: Vector) -> Vector:
        self._push(data, action_A, STEPS_PER_ACTION)
        return np.zeros(2)

    def _hold(self, data: mujoco.MjData, held: Vector, num_ticks: int) -> None:
        self._push(data, held, num_ticks)

    def _at_rest(self, data: mujoco.MjData) -> Vector:
        return np.zeros(2)

    def _tracked_m(self, data: mujoco.MjData) -> Vector:
        return np.array(data.geom_xpos[self._tip])

    def _proprio(self, data: mujoco.MjData) -> Vector:
        return np.concatenate([self._tracked_m(data)[:2], data.qpos, data.qvel])

    def _push(self, data: mujoco.MjData, torque_nm: Vector, num_steps: int) -> None:
        data.ctrl[:] = torque_nm / GEAR_NM
        mujoco.mj_step(self._model, data, nstep=num_steps)
        mujoco.mj_fwdPosition(self._model, data)  # a step leaves positions of bodies one time step behind

    def oracle_action(self) -> NDArray[np.float32]:
        """The scripted oracle: computed torque towards the goal's configuration; float32 [2]."""
        assert self._goal is not None
        return self.action_towards(np.array(self._goal.goal_qpos))

    def action_towards(self, place_rad: Vector) -> NDArray[np.float32]:
        """Torques that lead to a configuration [2], rad, and stop there: for scripted behaviours, never for a planner.

        Computed torque with the action's period as time step, implicit in the damping:
        torque = M (v - w) / dt + c + b v, where v is the wanted joint speed, in proportion to what is left, w the present one.
        """
        data = self._data
        left = place_rad - data.qpos
        left[0] = math.remainder(left[0], 2 * math.pi)  # the shoulder is endless: the shorter way
        wanted, inertia = _PULL * left, np.zeros((2, 2))
        mujoco.mj_fullM(self._model, data, inertia)
        torque: Vector = inertia @ (wanted - data.qvel) / self.dt_s + data.qfrc_bias + self._damping * wanted
        torque /= max(1.0, float(np.max(np.abs(torque))) / GEAR_NM)
        action: NDArray[np.float32] = torque.astype(np.float32)
        return action

    def arrived(self, place_rad: Vector) -> bool:
        """Whether the arm is in a configuration [2], for scripted behaviours."""
        left = place_rad - self._data.qpos
        return abs(math.remainder(left[0], 2 * math.pi)) < 0.03 and abs(left[1]) < 0.05

    def random_place(self, rng: np.random.Generator) -> Vector:
        """A random configuration [2], rad, evenly over the joints' ranges, as the suite draws its starts."""
        return np.array([rng.uniform(-math.pi, math.pi), rng.uniform(*self._wrist_range)])

    def _random_goal(self, rng: np.random.Generator) -> GoalSpec:
        while True:
            states, tips = [], []
            for place in (self.random_place(rng), self.random_place(rng)):
                states.append(tuple(round(float(v), 9) for v in place))
                self._set_state(np.array(states[-1]))
                x, y, z = self._tracked_m(self._data)
                tips.append((float(x), float(y), float(z)))
            if math.dist(*tips) >= self.min_distance_m + self.settled_m:
                return GoalSpec(id="random", start_qpos=states[0], goal_qpos=states[1], start_position_m=tips[0], goal_position_m=tips[1])
