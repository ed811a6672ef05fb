"""`Goalward/Wall-v0`: an agent goes to the place in a goal image, which lies behind a wall with a door; docs/tasks/wall.md is its page.

* Action [dx, dy]: displacement of the agent, metres, 4 Hz; carried out in 0.2 s, then the agent stands. Walls stop it, and it slides along.
* Observation: frames of one camera above; proprioception is the agent's position.
* Goal: the frame of a place in the other room. Wall and door never move.
* Success: strict, within 4 cm of the goal at two consecutive steps (ends the episode); moderate, within 8 cm at the end. Both rooms are
  further apart than that, and physics lets nobody through the wall: every success went through the door.
* Failure: a non-finite action, a MuJoCo warning or a diverged state ends the episode.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from goalward.envs.base import GoalSpec
from goalward.envs.distractors import DistractorArea
from goalward.envs.goal_task import GoalTask, Vector
from goalward.envs.wall_scene import (
    AGENT,
    AGENT_RADIUS_M,
    BORDER_RECTANGLES,
    CAMERA,
    DOOR_HALF_M,
    DOOR_Y_M,
    FACE_M,
    PIXEL_M,
    REACH_M,
    TIMESTEP_S,
    WALL_HEIGHT_M,
    build_wall_model,
)

MAX_DISPLACEMENT_M = 25 * PIXEL_M
"""Per axis; five steps of the peers' agent, who plan in blocks of five."""
MOVE_S = 0.2
STAND_S = 0.05
_LANE_M = DOOR_HALF_M - AGENT_RADIUS_M - 0.005  # so far from the middle of the door the oracle passes it
_MOUTH_M = FACE_M + 0.005  # before and behind the wall


class WallEnv(GoalTask):
    """Go through the door to the place in a goal image; see the module's first lines for the task."""

    name = "wall"
    version = "Goalward/Wall-v0"
    camera_names = (CAMERA,)
    action_names = ("dx_m", "dy_m")
    action_limit = (MAX_DISPLACEMENT_M,) * 2
    proprio_names = ("ee_x_m", "ee_y_m")
    workspace_low_m = (-REACH_M, -REACH_M, AGENT_RADIUS_M)
    workspace_high_m = (REACH_M, REACH_M, AGENT_RADIUS_M)
    dt_s = MOVE_S + STAND_S
    tick_s = 0.01
    max_episode_steps = 30
    strict_tolerance_m, strict_steps = 8 * PIXEL_M, 2
    moderate_tolerance_m = 16 * PIXEL_M
    min_distance_m = 0.15
    distractor_area = DistractorArea(rectangles=BORDER_RECTANGLES, floor_m=WALL_HEIGHT_M, half_size_m=(0.010, 0.018))

    def _compile(self) -> mujoco.MjModel:
        return build_wall_model()

    def _bind(self, model: mujoco.MjModel) -> None:
        self._agent = model.body(AGENT).id

    def _advance(self, data: mujoco.MjData, action_A: Vector) -> Vector:
        self._drive(data, action_A / MOVE_S, MOVE_S)
        stand = np.zeros(2)
        self._drive(data, stand, STAND_S)
        return stand

    def _hold(self, data: mujoco.MjData, held: Vector, num_ticks: int) -> None:
        self._drive(data, held, num_ticks * self.tick_s)

    def _at_rest(self, data: mujoco.MjData) -> Vector:
        return np.zeros(2)

    def _tracked_m(self, data: mujoco.MjData) -> Vector:
        return np.array(data.xpos[self._agent])

    def _proprio(self, data: mujoco.MjData) -> Vector:
        return self._tracked_m(data)[:2]

    def _drive(self, data: mujoco.MjData, velocity_m_s: Vector, duration_s: float) -> None:
        data.ctrl[:] = velocity_m_s
        mujoco.mj_step(self._model, data, nstep=round(duration_s / TIMESTEP_S))
        mujoco.mj_fwdPosition(self._model, data)  # a step leaves positions of bodies one time step behind

    def oracle_action(self) -> NDArray[np.float32]:
        """The scripted oracle: straight to the goal, or to the door that leads there; float32 [2]."""
        return self.action_towards(self._goal_m[:2])

    def action_towards(self, place_m: Vector) -> NDArray[np.float32]:
        """What leads to a place [2] from where the agent is now: for scripted behaviours, never for a planner."""
        position = self._tracked_m(self._data)[:2]
        offset = _next_corner(position, np.asarray(place_m)) - position
        offset /= max(1.0, float(np.max(np.abs(offset))) / MAX_DISPLACEMENT_M)
        return offset.astype(np.float32)

    def arrived(self, place_m: Vector) -> bool:
        """Whether the agent is at a place [2], for scripted behaviours."""
        return float(np.linalg.norm(self._tracked_m(self._data)[:2] - place_m)) < self.strict_tolerance_m / 2

    def random_place(self, rng: np.random.Generator) -> Vector:
        """A random place [2] for the agent, metres, in either room."""
        return np.array([rng.choice([-1.0, 1.0]) * rng.uniform(FACE_M, REACH_M), rng.uniform(-REACH_M, REACH_M)])

    def _random_goal(self, rng: np.random.Generator) -> GoalSpec:
        while True:
            start_m, goal_m = self.random_place(rng), self.random_place(rng)
            if start_m[0] * goal_m[0] < 0 and np.linalg.norm(goal_m - start_m) >= self.min_distance_m + self.settled_m:
                break
        start, goal = ((round(float(p[0]), 9), round(float(p[1]), 9)) for p in (start_m, goal_m))
        return GoalSpec(id="random", start_qpos=start, goal_qpos=goal, start_position_m=(*start, AGENT_RADIUS_M),
                        goal_position_m=(*goal, AGENT_RADIUS_M))  # fmt: skip


def _next_corner(position_m: Vector, place_m: Vector) -> Vector:
    """Where to go straight on a way to a place: the place itself if nothing is between, else a point of the door on the way there.

    Args:
        position_m: [2].
        place_m: [2].

    Returns:
        [2].
    """
    side = 1.0 if place_m[0] > 0 else -1.0
    ahead = side * position_m[0]  # negative before the middle of the wall
    if ahead >= _MOUTH_M - 0.01:
        return place_m
    in_door = ahead > -_MOUTH_M - 0.002 and abs(position_m[1] - DOOR_Y_M) <= _LANE_M + 0.004
    mouth_x = side * _MOUTH_M * (1.0 if in_door else -1.0)
    # Where the straight way would pass this mouth of the door, moved into the door.
    share = (mouth_x - position_m[0]) / (place_m[0] - position_m[0])
    y = position_m[1] + np.clip(share, 0.0, 1.0) * (place_m[1] - position_m[1])
    y = float(np.clip(y, DOOR_Y_M - _LANE_M, DOOR_Y_M + _LANE_M))
    return np.array([mouth_x, y])
