"""`Goalward/Push-v0`: a Jaco arm pushes a puck over the table to the place shown in a goal image; docs/tasks/push.md is its page.

* Action [dx, dy]: displacement of the hand in the table's plane, metres, 4 Hz; height and orientation held, a round post in the hand.
* Observation: frames of two cameras; proprioception of the arm alone. Nothing tells the puck's position but the frames.
* Goal: the two frames of a state that the scripted oracle reached: puck at its place, hand behind it where the push ended.
* Success: strict, puck within 3 cm of its place at three consecutive steps (ends the episode); moderate, within 5 cm at the end. The puck
  is round and of one colour, so it has no yaw; where the hand is does not matter.
* Failure: a non-finite action, a MuJoCo warning or a diverged state ends the episode.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from goalward.envs.base import GoalSpec
from goalward.envs.goal_task import Vector
from goalward.envs.jaco_task import JacoTask
from goalward.envs.push_oracle import PushConfig, push_displacement
from goalward.envs.push_scene import (
    CONTACT_M,
    FINGER_QPOS,
    HAND_HEIGHT_M,
    OUTER_TRAY_HIGH_M,
    OUTER_TRAY_LOW_M,
    POST_SITE,
    PUCK,
    PUCK_HEIGHT_M,
    TRAY_HIGH_M,
    TRAY_LOW_M,
    build_push_model,
)

MAX_DISPLACEMENT_M = 0.05
WORKSPACE_LOW_M = (-0.28, -0.64, HAND_HEIGHT_M)
WORKSPACE_HIGH_M = (0.28, -0.28, HAND_HEIGHT_M)


class PushEnv(JacoTask):
    """Push a puck to the place in a goal image with a Jaco arm; see the module's first lines for the task."""

    name = "push"
    version = "Goalward/Push-v0"
    hand_site, finger_qpos = POST_SITE, FINGER_QPOS
    action_names = ("dx_m", "dy_m")
    action_limit = (MAX_DISPLACEMENT_M,) * 2
    workspace_low_m = WORKSPACE_LOW_M
    workspace_high_m = WORKSPACE_HIGH_M
    outer_workspace_m = ((-0.36, -0.64, HAND_HEIGHT_M), (0.36, -0.28, HAND_HEIGHT_M))
    max_episode_steps = 40
    strict_tolerance_m, strict_steps = 0.03, 3
    moderate_tolerance_m = 0.05
    min_distance_m = 0.12
    settled_m = 0.012
    margin_m = 0.01
    """Starts and goals keep so far from where the rim stops the puck."""

    def _compile(self) -> mujoco.MjModel:
        return build_push_model(outer=self.variation.region)

    def _is_new(self, position_m: Vector) -> bool:
        """Outside of the plain tray: no puck was ever there in training."""
        inside = np.clip(position_m[:2], TRAY_LOW_M, TRAY_HIGH_M)
        return bool(np.linalg.norm(position_m[:2] - inside) >= self.strict_tolerance_m)

    def _bind(self, model: mujoco.MjModel) -> None:
        super()._bind(model)
        self._puck = model.body(PUCK).id
        self._puck_qpos = int(model.joint(PUCK).qposadr[0])
        self._oracle = PushConfig(contact_m=CONTACT_M, max_step_m=MAX_DISPLACEMENT_M)

    def _advance(self, data: mujoco.MjData, action_A: Vector) -> Vector:
        return self._move(data, np.array([action_A[0], action_A[1], HAND_HEIGHT_M - self._hand_m(data)[2]]))

    def _tracked_m(self, data: mujoco.MjData) -> Vector:
        return np.array(data.xpos[self._puck])

    def oracle_action(self) -> NDArray[np.float32]:
        """The scripted oracle, `push_displacement` to the goal; float32 [2]."""
        return self.action_towards(self._goal_m[:2])

    def action_towards(self, place_m: Vector, *, max_push_m: float | None = None) -> NDArray[np.float32]:
        """What pushes the puck to a place, from where puck and hand are now: for scripted behaviours, never for a planner.

        Args:
            place_m: [2], metres, table plane.
            max_push_m: longest displacement per step while pushing; None for the oracle's.
        """
        config = self._oracle if max_push_m is None else PushConfig(contact_m=CONTACT_M, max_push_m=max_push_m)
        return push_displacement(self.hand_m(), self.puck_m(), place_m, config).astype(np.float32)

    def puck_m(self) -> Vector:
        """Where the puck is, [2], metres: for scripted behaviours and judges, never for a planner."""
        return self._tracked_m(self._data)[:2]

    def hand_m(self) -> Vector:
        """Where the hand, and so the post's axis, is, [2], metres."""
        return self._hand_m(self._data)[:2]

    @property
    def places_m(self) -> tuple[Vector, Vector]:
        """Corners [2] of where a puck is put, or pushed to on purpose, metres."""
        low_m, high_m = (OUTER_TRAY_LOW_M, OUTER_TRAY_HIGH_M) if self.variation.region else (TRAY_LOW_M, TRAY_HIGH_M)
        return np.array(low_m) + self.margin_m, np.array(high_m) - self.margin_m

    def random_place(self, rng: np.random.Generator) -> Vector:
        """A random place [2] for the puck, metres."""
        return rng.uniform(*self.places_m)

    def _random_goal(self, rng: np.random.Generator) -> GoalSpec:
        while True:
            start_m, place_m = self.random_place(rng), self.random_place(rng)
            if self.variation.region and (self._is_new(start_m) or not self._is_new(place_m)):
                continue
            way = place_m - start_m
            distance = float(np.linalg.norm(way))
            hand_m = rng.uniform(self._low[:2], self._high[:2])
            if distance < self.min_distance_m + self.settled_m or np.linalg.norm(hand_m - start_m) < CONTACT_M + 0.03:
                continue
            # The wished-for end: the hand right behind the puck, where a straight push would leave it.
            start = self._placed(hand_m, start_m)
            goal = self._placed(place_m - (CONTACT_M + 0.002) * way / distance, place_m)
            if start is not None and goal is not None:
                return GoalSpec(id="random", start_qpos=start, goal_qpos=goal, start_position_m=(*start_m.tolist(), PUCK_HEIGHT_M / 2),
                                goal_position_m=(*place_m.tolist(), PUCK_HEIGHT_M / 2))  # fmt: skip

    def _placed(self, hand_m: Vector, puck_m: Vector) -> tuple[float, ...] | None:
        """Joint positions with hand [2] and puck [2] put somewhere; None where the arm does not reach."""
        self._home()
        if self._servo.solve(self._data, np.array([*hand_m, HAND_HEIGHT_M])) > 1e-4:
            return None
        qpos = np.array(self._data.qpos)
        qpos[self._puck_qpos : self._puck_qpos + 2] = puck_m
        return tuple(round(float(v), 9) for v in qpos)
