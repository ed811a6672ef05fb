"""`Goalward/Reach-v0`: a Jaco arm brings its hand to the place shown in a goal image.

* Action [dx, dy, dz]: displacement of the end effector from where it is now, metres, base frame, 4 Hz; orientation held (hand down).
* Observation: frames of two cameras; proprioception (end-effector position, joint angles and speeds).
* Goal: the two frames of a state that the scripted oracle reached.
* Success: strict, end effector within 3 cm of the goal's at three consecutive steps (ends the episode); moderate, within 5 cm at the end.
* Failure: a non-finite action, a MuJoCo warning or a diverged state ends the episode.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import gymnasium as gym
import mujoco
import numpy as np
from numpy.typing import NDArray

from goalward import UserError
from goalward.envs.appearance import Appearance, AppearanceConfig
from goalward.envs.base import EnvInfo, GoalSpec
from goalward.envs.cartesian_servo import CartesianServo, ServoConfig
from goalward.envs.goals import load_manifest
from goalward.envs.jaco_scene import ARM_JOINTS, CAMERA_POSES_M, FINGER_JOINTS, PINCH_SITE, build_model
from goalward.envs.physics_guard import disable_autoreset, physics_fault, warning_counts
from goalward.envs.rendering import RenderConfig, SceneRenderer

DT_S = 0.25
TICK_S = 0.01
MAX_DISPLACEMENT_M = 0.05
WORKSPACE_LOW_M = (-0.25, -0.58, 0.07)
WORKSPACE_HIGH_M = (0.25, -0.34, 0.35)
STRICT_TOL_M, STRICT_STEPS = 0.03, 3
MODERATE_TOL_M = 0.05
MIN_DISTANCE_M = 0.15
MAX_EPISODE_STEPS = 30

_HOME_QPOS = (-1.68, 3.58, 1.51, -0.35, 1.27, 1.11)
_FINGER_QPOS = 0.7
_HAND_DOWN = (0.0, 0.5**0.5, 0.5**0.5, 0.0)


class ReachEnv(gym.Env[dict[str, Any], NDArray[np.float32]]):
    """Reach a goal image with a Jaco arm; see the module's first lines for the task."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 (Gymnasium's own form)
    min_distance_m = MIN_DISTANCE_M
    strict_tolerance_m = STRICT_TOL_M
    strict_steps = STRICT_STEPS
    moderate_tolerance_m = MODERATE_TOL_M

    def __init__(
        self,
        *,
        cameras: tuple[str, ...] = ("front", "side"),
        image_size_px: int = 128,
        appearance: Literal["fixed", "varied"] = "fixed",
        render_mode: str | None = None,
    ) -> None:
        """Builds the scene.

        Args:
            cameras: named cameras to observe, among `front` and `side`.
            image_size_px: height and width of a frame, 32 to 512.
            appearance: `varied` redraws lights, textures and camera poses at every reset (for pretraining videos).
            render_mode: None or `rgb_array`.

        Raises:
            UserError: unknown camera or appearance, or a size out of range.
        """
        unknown = [c for c in cameras if c not in CAMERA_POSES_M]
        if unknown or not cameras or len(set(cameras)) != len(cameras):
            raise UserError(f"cameras={cameras!r}: choose one or more different names of {', '.join(CAMERA_POSES_M)}")
        if not 32 <= image_size_px <= 512:
            raise UserError(f"image_size_px={image_size_px} is out of range 32..512")
        if appearance not in ("fixed", "varied"):
            raise UserError(f"appearance={appearance!r}: choose fixed or varied")
        self._model = build_model()
        disable_autoreset(self._model)
        self._data = mujoco.MjData(self._model)
        self._servo = CartesianServo(
            self._model, joints=ARM_JOINTS, site=PINCH_SITE, orientation=np.array(_HAND_DOWN), config=ServoConfig(dt_s=DT_S, tick_s=TICK_S)
        )
        self._site = self._model.site(PINCH_SITE).id
        self._arm_qpos = np.array([self._model.joint(j).qposadr[0] for j in ARM_JOINTS])
        self._arm_dof = np.array([self._model.joint(j).dofadr[0] for j in ARM_JOINTS])
        self._finger_qpos = np.array([self._model.joint(j).qposadr[0] for j in FINGER_JOINTS])
        self._low, self._high = np.array(WORKSPACE_LOW_M), np.array(WORKSPACE_HIGH_M)
        self._renderer = SceneRenderer(self._model, RenderConfig(height_px=image_size_px, width_px=image_size_px))
        self._report_renderer: SceneRenderer | None = None
        self._report_size_px = 0
        self._appearance = Appearance(self._model, AppearanceConfig()) if appearance == "varied" else None
        self.render_mode = render_mode

        limit = np.full(3, MAX_DISPLACEMENT_M, dtype=np.float32)
        joints = [f"joint_{i}" for i in range(1, 7)]
        proprio_names = ("ee_x_m", "ee_y_m", "ee_z_m", *(f"{j}_rad" for j in joints), *(f"{j}_rad_s" for j in joints))
        self.spec_info = EnvInfo(
            name="reach", version="Goalward/Reach-v0", cameras=tuple(cameras), image_size_px=image_size_px, dt_s=DT_S,
            action_names=("dx_m", "dy_m", "dz_m"), action_low=-limit, action_high=limit, proprio_names=proprio_names,
            workspace_low_m=self._low.astype(np.float32), workspace_high_m=self._high.astype(np.float32),
            max_episode_steps=MAX_EPISODE_STEPS,
        )  # fmt: skip
        frames = (len(cameras), image_size_px, image_size_px, 3)
        self.action_space = gym.spaces.Box(-limit, limit, dtype=np.float32)
        self.observation_space = gym.spaces.Dict(
            pixels=gym.spaces.Box(0, 255, frames, dtype=np.uint8),
            proprio=gym.spaces.Box(-100.0, 100.0, (len(proprio_names),), dtype=np.float32),
            time_s=gym.spaces.Box(0.0, 1e9, (), dtype=np.float64),
        )
        self._goal: GoalSpec | None = None
        self._goal_m = np.zeros(3)
        self._reference_m = np.zeros(3)
        self._num_steps = 0
        self._num_inside = 0
        self._num_waited_ticks = 0
        self._owed_s = 0.0
        self._ends_on_success = True

    # -- Gymnasium ---------------------------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: seed of everything random in the episode.
            options: one of `{"goal": GoalSpec}`; `{"goal_index": i, "split": "test" | "validation"}`; `{"collect": True}` (random start
                and goal, the episode never ends on success). Without options a test goal is drawn by the seed.

        Returns:
            The observation, and info with `goal_pixels` uint8 [V, h, w, 3], `goal_id` and `distance_m`.
        """
        super().reset(seed=seed)
        if not isinstance(options, dict | None):
            raise UserError(f"reset options are a {type(options).__name__}; they must be a dictionary")
        options = dict(options or {})
        known = {"goal", "goal_index", "split", "collect"}
        if set(options) - known:
            raise UserError(f"unknown reset options {sorted(set(options) - known)}; known: {sorted(known)}")
        collect = bool(options.get("collect", False))
        goal = self._random_goal(self.np_random) if collect else self._chosen_goal(options)
        if self._appearance is not None:
            self._appearance.draw(self.np_random, self._renderer)
        self._set_state(np.array(goal.goal_qpos))
        goal_pixels = self._pixels()
        self._set_state(np.array(goal.start_qpos))
        self._goal, self._goal_m = goal, np.array(goal.goal_position_m)
        self._reference_m = self._position_m()
        self._num_steps = self._num_inside = self._num_waited_ticks = 0
        self._owed_s = 0.0
        self._ends_on_success = not collect
        return self._observation(), {"goal_pixels": goal_pixels, "goal_id": goal.id, "distance_m": self._distance_m()}

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Moves the end effector for one control period.

        Args:
            action: float32 [3], metres; clipped to the action space and to the workspace.

        Returns:
            Observation, reward (minus the distance in metres), terminated, truncated, and info with `distance_m`, `strict_success`,
            `moderate_success`, `failure` (None or a sentence).
        """
        if self._goal is None:
            raise RuntimeError("call reset before step")
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (3,):
            raise UserError(f"action has shape {action.shape}; it must be (3,): dx, dy, dz in metres")
        self._num_steps += 1
        failure: str | None = None
        if np.isfinite(action).all():
            counts = warning_counts(self._data)
            position = self._position_m()
            action = np.clip(action, -MAX_DISPLACEMENT_M, MAX_DISPLACEMENT_M)
            displacement = np.clip(position + action, self._low, self._high) - position
            self._reference_m = position + displacement
            self._servo.move(self._data, displacement)
            failure = physics_fault(self._data, counts)
        else:
            failure = "the action is not finite"
        distance = self._distance_m()
        self._num_inside = self._num_inside + 1 if failure is None and distance <= STRICT_TOL_M else 0
        strict = self._num_inside >= STRICT_STEPS
        terminated = failure is not None or (strict and self._ends_on_success)
        truncated = not terminated and self._ends_on_success and self._num_steps >= MAX_EPISODE_STEPS
        info = {
            "distance_m": distance,
            "strict_success": strict,
            "moderate_success": failure is None and distance <= MODERATE_TOL_M,
            "failure": failure,
        }
        return self._observation(), -distance, terminated, truncated, info

    def render(self) -> NDArray[np.uint8]:
        """The cameras side by side, uint8 [h, V * w, 3]."""
        return np.concatenate(list(self._pixels()), axis=1)

    def close(self) -> None:
        """Frees the renderers; safe to call twice."""
        self._renderer.close()
        if self._report_renderer is not None:
            self._report_renderer.close()
            self._report_renderer = None

    # -- beyond Gymnasium: for data collection, evaluation and reports, never for a planner ----------------------------------------

    def wait(self, duration_s: float) -> str | None:
        """Lets time pass, with the last reference held: what a real arm does while its next action is being planned.

        The physics goes on in ticks of the servo's velocity loop; what is less than a tick is owed to the next wait. Time passes on the
        observations' clock, but no step is counted, and success is judged at steps alone.

        Args:
            duration_s: seconds, at least 0; 0 changes nothing.

        Returns:
            None, or a sentence that names what went wrong in the physics: the episode has failed.

        Raises:
            UserError: a duration that is none.
        """
        if self._goal is None:
            raise RuntimeError("call reset before wait")
        if not 0.0 <= duration_s < math.inf:
            raise UserError(f"duration_s is {duration_s}; must be a finite number of seconds, at least 0")
        # A tick that lacks a billionth of itself has passed: a sum of durations rounds.
        num_ticks = math.floor((self._owed_s + duration_s) / TICK_S + 1e-9)
        self._owed_s = max(0.0, self._owed_s + duration_s - num_ticks * TICK_S)
        self._num_waited_ticks += num_ticks
        counts = warning_counts(self._data)
        self._servo.hold(self._data, self._reference_m, num_ticks=num_ticks)
        return physics_fault(self._data, counts)

    def oracle_action(self) -> NDArray[np.float32]:
        """The scripted oracle: straight to the goal, at most 5 cm per axis, direction kept; float32 [3]."""
        offset = self._goal_m - self._position_m()
        offset /= max(1.0, float(np.max(np.abs(offset))) / MAX_DISPLACEMENT_M)
        return offset.astype(np.float32)

    def foresee(self, actions: NDArray[np.float32]) -> NDArray[np.float64]:
        """What actions would truly lead to: a judge of predictions, never for a planner.

        Args:
            actions: float32 [H, 3].

        Returns:
            Distance to the goal after each action, metres, float64 [H]. The environment itself stays as it is.
        """
        data = mujoco.MjData(self._model)
        signature = mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(mujoco.mj_stateSize(self._model, signature))
        mujoco.mj_getState(self._model, self._data, state, signature)
        mujoco.mj_setState(self._model, data, state, signature)
        mujoco.mj_forward(self._model, data)
        distances = []
        for action in np.clip(np.asarray(actions, dtype=np.float64), -MAX_DISPLACEMENT_M, MAX_DISPLACEMENT_M):
            position = data.site_xpos[self._site].copy()
            self._servo.move(data, np.clip(position + action, self._low, self._high) - position)
            distances.append(float(np.linalg.norm(data.site_xpos[self._site] - self._goal_m)))
        return np.array(distances)

    def make_goal(self, *, index: int, split: str, seed: int) -> GoalSpec:
        """Draws a start and lets the oracle drive to a random goal; the state it ends in, at rest, is the goal.

        Args:
            index: number of the goal in its manifest.
            split: manifest's name.
            seed: manifest's seed.
        """
        rng = np.random.default_rng([seed, index])
        while True:
            wish = self._random_goal(rng)
            self._set_state(np.array(wish.start_qpos))
            self._goal_m = np.array(wish.goal_position_m)
            for _ in range(MAX_EPISODE_STEPS):
                self._servo.move(self._data, self.oracle_action().astype(np.float64))
            reached = self._position_m()
            start = np.array(wish.start_position_m)
            if np.linalg.norm(reached - self._goal_m) < 0.005 and np.linalg.norm(reached - start) >= MIN_DISTANCE_M:
                return GoalSpec(
                    id=f"{split}-{index:04d}",
                    start_qpos=wish.start_qpos,
                    goal_qpos=tuple(round(float(v), 9) for v in self._data.qpos),
                    start_position_m=wish.start_position_m,
                    goal_position_m=(float(reached[0]), float(reached[1]), float(reached[2])),
                )

    def render_report(self, size_px: int = 360) -> NDArray[np.uint8]:
        """A large picture with shadows from a third camera, uint8 [size, size, 3]; for people, never observed."""
        if self._report_renderer is not None and self._report_size_px != size_px:
            self._report_renderer.close()
            self._report_renderer = None
        if self._report_renderer is None:
            config = RenderConfig(height_px=size_px, width_px=size_px, shadow_size_px=1024)
            self._report_renderer, self._report_size_px = SceneRenderer(self._model, config), size_px
        return self._report_renderer.render(self._data, "report")

    # -- internals ------------------------------------------------------------------------------------------------------------------

    def _chosen_goal(self, options: dict[str, Any]) -> GoalSpec:
        goal = options.get("goal")
        if goal is not None:
            if not isinstance(goal, GoalSpec):
                raise UserError(f"options['goal'] is a {type(goal).__name__}; it must be a GoalSpec")
            return goal
        goals = load_manifest("reach", options.get("split", "test")).goals
        index = options.get("goal_index", self.np_random.integers(len(goals)))
        if not isinstance(index, int | np.integer) or isinstance(index, bool):
            raise UserError(f"goal_index={index!r} is a {type(index).__name__}; it must be a whole number in 0..{len(goals) - 1}")
        if not 0 <= index < len(goals):
            raise UserError(f"goal_index={index} is out of range 0..{len(goals) - 1}")
        return goals[index]

    def _random_goal(self, rng: np.random.Generator) -> GoalSpec:
        """A random start and goal, both kinematic; at least the minimal distance apart."""
        while True:
            start_m, goal_m = rng.uniform(self._low, self._high), rng.uniform(self._low, self._high)
            if np.linalg.norm(goal_m - start_m) < MIN_DISTANCE_M + 0.01:
                continue
            states = []
            for position in (start_m, goal_m):
                self._set_state(np.array([*_HOME_QPOS, *(3 * [_FINGER_QPOS])]))
                if self._servo.solve(self._data, position) > 1e-4:
                    break
                states.append(tuple(round(float(v), 9) for v in self._data.qpos))
            else:
                start, goal = (tuple(float(v) for v in p) for p in (start_m, goal_m))
                return GoalSpec(id="random", start_qpos=states[0], goal_qpos=states[1], start_position_m=start,  # type: ignore[arg-type]
                                goal_position_m=goal)  # type: ignore[arg-type]  # fmt: skip

    def _set_state(self, qpos: NDArray[np.float64]) -> None:
        if qpos.shape != (self._model.nq,):
            raise UserError(f"a state of reach has {self._model.nq} joint positions; got {qpos.shape}")
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = qpos
        mujoco.mj_forward(self._model, self._data)

    def _position_m(self) -> NDArray[np.float64]:
        return np.array(self._data.site_xpos[self._site])

    def _distance_m(self) -> float:
        return float(np.linalg.norm(self._position_m() - self._goal_m))

    def _pixels(self) -> NDArray[np.uint8]:
        return np.stack([self._renderer.render(self._data, camera) for camera in self.spec_info.cameras])

    def _observation(self) -> dict[str, Any]:
        proprio = np.concatenate([self._position_m(), self._data.qpos[self._arm_qpos], self._data.qvel[self._arm_dof]])
        return {
            "pixels": self._pixels(),
            "proprio": proprio.astype(np.float32),
            "time_s": np.array(self._num_steps * DT_S + self._num_waited_ticks * TICK_S, dtype=np.float64),
        }
