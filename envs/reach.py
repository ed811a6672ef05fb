"""`Goalward/Reach-v0`: a Jaco arm brings its hand to the place shown in a goal image.

* Action [dx, dy, dz]: displacement of the end effector from where it is now, metres, base frame, 4 Hz; orientation held (hand down).
* Observation: frames of two cameras; proprioception (end-effector position, joint angles and speeds).
* Goal: the two frames of a state that the scripted oracle reached.
* Success: strict, end effector within 3 cm of the goal's at three consecutive steps (ends the episode); moderate, within 5 cm at the end.
* Failure: a non-finite action, a MuJoCo warning or a diverged state ends the episode.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from goalward.envs.base import GoalSpec
from goalward.envs.goal_task import Vector
from goalward.envs.jaco_scene import build_model
from goalward.envs.jaco_task import JacoTask

MAX_DISPLACEMENT_M = 0.05
WORKSPACE_LOW_M = (-0.25, -0.58, 0.07)
WORKSPACE_HIGH_M = (0.25, -0.34, 0.35)


class ReachEnv(JacoTask):
    """Reach a goal image with a Jaco arm; see the module's first lines for the task."""

    name = "reach"
    version = "Goalward/Reach-v0"
    action_names = ("dx_m", "dy_m", "dz_m")
    action_limit = (MAX_DISPLACEMENT_M,) * 3
    workspace_low_m = WORKSPACE_LOW_M
    workspace_high_m = WORKSPACE_HIGH_M
    max_episode_steps = 30
    strict_tolerance_m, strict_steps = 0.03, 3
    moderate_tolerance_m = 0.05
    min_distance_m = 0.15
    outer_workspace_m = ((-0.31, -0.63, 0.07), (0.31, -0.34, 0.41))

    def _compile(self) -> mujoco.MjModel:
        return build_model()

    def _advance(self, data: mujoco.MjData, action_A: Vector) -> Vector:
        return self._move(data, action_A)

    def _tracked_m(self, data: mujoco.MjData) -> Vector:
        return self._hand_m(data)

    def oracle_action(self) -> NDArray[np.float32]:
        """The scripted oracle: straight to the goal, at most 5 cm per axis, direction kept; float32 [3]."""
        offset = self._goal_m - self._hand_m(self._data)
        offset /= max(1.0, float(np.max(np.abs(offset))) / MAX_DISPLACEMENT_M)
        return offset.astype(np.float32)

    def _random_goal(self, rng: np.random.Generator) -> GoalSpec:
        while True:
            start_m, goal_m = rng.uniform(WORKSPACE_LOW_M, WORKSPACE_HIGH_M), rng.uniform(self._low, self._high)
            if self.variation.region and not self._is_new(goal_m):
                continue
            if np.linalg.norm(goal_m - start_m) < self.min_distance_m + 0.01:
                continue
            states = []
            for position in (start_m, goal_m):
                self._home()
                if self._servo.solve(self._data, position) > 1e-4:
                    break
                states.append(tuple(round(float(v), 9) for v in self._data.qpos))
            else:
                start, goal = (tuple(float(v) for v in p) for p in (start_m, goal_m))
                return GoalSpec(id="random", start_qpos=states[0], goal_qpos=states[1], start_position_m=start,  # type: ignore[arg-type]
                                goal_position_m=goal)  # type: ignore[arg-type]  # fmt: skip
