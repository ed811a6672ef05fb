"""What all goal-image tasks share: episodes, goals, success, observation, variations, and the judge that looks ahead.

    reset -> draw the goal's image -> start;   step: executed action -> advance -> success by the state alone

A task is a subclass that says what it is in class attributes and implements the six methods under *what a task must say*; see `reach.py`.

Letters in array names: V camera views, A action dimensions, P proprioception dimensions, H actions in a row.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import gymnasium as gym
import mujoco
import numpy as np
from numpy.typing import NDArray

from goalward import UserError
from goalward.envs.appearance import Appearance
from goalward.envs.appearance_config import AppearanceConfig
from goalward.envs.base import EnvInfo, GoalSpec
from goalward.envs.distractors import DistractorArea
from goalward.envs.disturbance import Disturbance
from goalward.envs.goals import load_manifest
from goalward.envs.physics_guard import disable_autoreset, physics_fault, warning_counts
from goalward.envs.rendering import RenderConfig, SceneRenderer
from goalward.envs.variation import Variation, find_variation

Vector = NDArray[np.float64]
REPORT_CAMERA = "report"
"""Every scene has one, for people; it is never observed."""


class GoalTask(gym.Env[dict[str, Any], NDArray[np.float32]], abc.ABC):
    """A goal-image task in MuJoCo; see `goalward.envs.base` for the contract."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 (Gymnasium's own form)

    name: ClassVar[str]
    """Short name, as in the registry."""
    version: ClassVar[str]
    """Gymnasium id."""
    camera_names: ClassVar[tuple[str, ...]]
    """Cameras that may be observed; all of them, in this order, unless told otherwise."""
    action_names: ClassVar[tuple[str, ...]]
    """Name and unit of every action entry."""
    action_limit: ClassVar[tuple[float, ...]]
    """Largest absolute value of every action entry."""
    proprio_names: ClassVar[tuple[str, ...]]
    """Name and unit of every proprioception entry."""
    workspace_low_m: ClassVar[tuple[float, float, float]]
    """Lower corner of the box that the end effector stays in."""
    workspace_high_m: ClassVar[tuple[float, float, float]]
    """Upper corner."""
    dt_s: ClassVar[float]
    """Control period."""
    tick_s: ClassVar[float]
    """Period of the inner loop; what `wait` counts in."""
    max_episode_steps: ClassVar[int]
    """Steps until an episode is truncated."""
    strict_tolerance_m: ClassVar[float]
    """Strict success: so near to the goal ..."""
    strict_steps: ClassVar[int]
    """... at so many consecutive steps."""
    moderate_tolerance_m: ClassVar[float]
    """Moderate success: so near at the end."""
    min_distance_m: ClassVar[float]
    """Every start is at least so far from its goal."""
    distractor_area: ClassVar[DistractorArea | None] = None
    """Where distractors may stand; None: the task has no such variation."""
    outer_workspace_m: ClassVar[tuple[tuple[float, float, float], tuple[float, float, float]] | None] = None
    """Lower and upper corner of the larger workspace of the variation `region`; None: the task has no such variation."""
    settled_m: ClassVar[float] = 0.005
    """A goal is kept when the oracle, wishing to be somewhere, came at least so near."""

    def __init__(
        self,
        *,
        cameras: tuple[str, ...] | None = None,
        image_size_px: int = 128,
        appearance: Literal["fixed", "varied"] = "fixed",
        variation: str | Variation = "none",
        render_mode: str | None = None,
    ) -> None:
        """Builds the scene.

        Args:
            cameras: named cameras to observe, in this order; None for all of the task's.
            image_size_px: height and width of a frame, 32 to 512.
            appearance: `varied` redraws lights, textures and camera poses at every reset (for pretraining videos).
            variation: how the task differs from what models were trained on, by name or as a value; see `variation.py`.
            render_mode: None or `rgb_array`.

        Raises:
            UserError: unknown camera, appearance or variation, a variation that the task does not have, or a size out of range.
        """
        cameras = self.camera_names if cameras is None else tuple(cameras)
        unknown = [c for c in cameras if c not in self.camera_names]
        if unknown or not cameras or len(set(cameras)) != len(cameras):
            raise UserError(f"cameras={cameras!r}: choose one or more different names of {', '.join(self.camera_names)}")
        if not 32 <= image_size_px <= 512:
            raise UserError(f"image_size_px={image_size_px} is out of range 32..512")
        if appearance not in ("fixed", "varied"):
            raise UserError(f"appearance={appearance!r}: choose fixed or varied")
        self.variation = find_variation(variation)
        if self.variation.region and self.outer_workspace_m is None:
            raise UserError(
                f"variation={self.variation.name!r}: {self.name} has no region that training never enters; choose another variation"
            )
        if appearance == "varied" and (self.variation.look is not None or self.variation.moves_cameras):
            raise UserError(f"variation={self.variation.name!r}: appearance='varied' redraws the same; leave one of them out")
        self._model = self._compile()
        disable_autoreset(self._model)
        self._data = mujoco.MjData(self._model)
        self._bind(self._model)
        outer = self.outer_workspace_m if self.variation.region else None
        corners = (self.workspace_low_m, self.workspace_high_m) if outer is None else outer
        self._low, self._high = np.array(corners[0]), np.array(corners[1])
        self._limit_A = np.array(self.action_limit)
        self._renderer = SceneRenderer(self._model, RenderConfig(height_px=image_size_px, width_px=image_size_px))
        self._report_renderer: SceneRenderer | None = None
        self._report_size_px = 0
        self._appearance: Appearance | None = None
        if appearance == "varied":
            self._appearance = Appearance(self._model, AppearanceConfig())
        elif self.variation.look is not None:
            self._appearance = Appearance(self._model, self.variation.look)
        self._disturbance = Disturbance(self.variation, self._model, cameras, self.distractor_area, self._limit_A)
        self.render_mode = render_mode

        limit = self._limit_A.astype(np.float32)
        self.spec_info = EnvInfo(
            name=self.name, version=self.version, cameras=cameras, image_size_px=image_size_px, dt_s=self.dt_s,
            action_names=self.action_names, action_low=-limit, action_high=limit, proprio_names=self.proprio_names,
            workspace_low_m=self._low.astype(np.float32), workspace_high_m=self._high.astype(np.float32),
            max_episode_steps=self.max_episode_steps,
        )  # fmt: skip
        frames = (len(cameras), image_size_px, image_size_px, 3)
        self.action_space = gym.spaces.Box(-limit, limit, dtype=np.float32)
        self.observation_space = gym.spaces.Dict(
            pixels=gym.spaces.Box(0, 255, frames, dtype=np.uint8),
            proprio=gym.spaces.Box(-100.0, 100.0, (len(self.proprio_names),), dtype=np.float32),
            time_s=gym.spaces.Box(0.0, 1e9, (), dtype=np.float64),
        )
        self._goal: GoalSpec | None = None
        self._goal_m = np.zeros(3)
        self._held: Vector = np.zeros(0)
        self._num_steps = 0
        self._num_inside = 0
        self._num_waited_ticks = 0
        self._owed_s = 0.0
        self._ends_on_success = True

    # -- what a task must say -----------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def _compile(self) -> mujoco.MjModel:
        """Builds the scene, with the task's cameras and one called `report`."""

    @abc.abstractmethod
    def _bind(self, model: mujoco.MjModel) -> None:
        """Resolves names in the model, once."""

    @abc.abstractmethod
    def _advance(self, data: mujoco.MjData, action_A: Vector) -> Vector:
        """Executes one action, inside the limits, for one control period; changes `data` alone.

        Returns:
            What `_hold` then keeps up.
        """

    @abc.abstractmethod
    def _hold(self, data: mujoco.MjData, held: Vector, num_ticks: int) -> None:
        """Lets the physics go on with what is held."""

    @abc.abstractmethod
    def _at_rest(self, data: mujoco.MjData) -> Vector:
        """What is held before the first action."""

    @abc.abstractmethod
    def _tracked_m(self, data: mujoco.MjData) -> Vector:
        """Position [3], world frame, of what has to get to the goal."""

    @abc.abstractmethod
    def _proprio(self, data: mujoco.MjData) -> Vector:
        """Proprioception [P], SI units."""

    @abc.abstractmethod
    def _random_goal(self, rng: np.random.Generator) -> GoalSpec:
        """A random start and goal, at least the minimal distance apart; both states put there, not reached. May change `self._data`."""

    @abc.abstractmethod
    def oracle_action(self) -> NDArray[np.float32]:
        """The scripted oracle, which knows the goal's state; float32 [A]."""

    def _is_new(self, position_m: Vector) -> bool:
        """Whether a place [3] of what has to get to the goal is a goal of the variation `region`: training never came there.

        By default: as far outside the plain task's workspace as strict success tolerates, so that whoever stays inside does not succeed.
        """
        inside = np.clip(position_m, self.workspace_low_m, self.workspace_high_m)
        return bool(np.linalg.norm(position_m - inside) >= self.strict_tolerance_m)

    def _matches(self, data: mujoco.MjData, tolerance_m: float) -> bool:
        """Whether the goal is met; a task may ask for more than a distance."""
        return self._distance_m(data) <= tolerance_m

    # -- Gymnasium ----------------------------------------------------------------------------------------------------------------

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
            if self._report_renderer is not None:
                self._appearance.upload(self._report_renderer)
        self._disturbance.begin(self.np_random, self._renderer)
        self._set_state(np.array(goal.goal_qpos))
        goal_pixels = self._pixels()
        self._set_state(np.array(goal.start_qpos))
        self._pursue(goal)
        self._num_steps = self._num_inside = self._num_waited_ticks = 0
        self._owed_s = 0.0
        self._ends_on_success = not collect
        info = {"goal_pixels": goal_pixels, "goal_id": goal.id, "distance_m": self._distance_m(self._data)}
        return self._observation(), info

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Acts for one control period.

        Args:
            action: float32 [A]; clipped to the action space.

        Returns:
            Observation, reward (minus the distance in metres), terminated, truncated, and info with `distance_m`, `strict_success`,
            `moderate_success`, `failure` (None or a sentence).
        """
        if self._goal is None:
            raise RuntimeError("call reset before step")
        action_A = np.asarray(action, dtype=np.float64)
        if action_A.shape != self._limit_A.shape:
            raise UserError(f"action has shape {action_A.shape}; it must be {self._limit_A.shape}: {', '.join(self.action_names)}")
        self._num_steps += 1
        failure: str | None = None
        if np.isfinite(action_A).all():
            counts = warning_counts(self._data)
            self._held = self._advance(self._data, self._disturbance.executed(action_A, self.np_random))
            failure = physics_fault(self._data, counts)
        else:
            failure = "the action is not finite"
        inside = failure is None and self._matches(self._data, self.strict_tolerance_m)
        self._num_inside = self._num_inside + 1 if inside else 0
        strict = self._num_inside >= self.strict_steps
        terminated = failure is not None or (strict and self._ends_on_success)
        truncated = not terminated and self._ends_on_success and self._num_steps >= self.max_episode_steps
        distance = self._distance_m(self._data)
        info = {
            "distance_m": distance,
            "strict_success": strict,
            "moderate_success": failure is None and self._matches(self._data, self.moderate_tolerance_m),
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

    # -- beyond Gymnasium: for data collection, evaluation and reports, never for a planner -----------------------------------------

    @property
    def pursued(self) -> GoalSpec:
        """The goal of this episode with its true state; for judges, never for a planner.

        Raises:
            RuntimeError: before the first reset.
        """
        if self._goal is None:
            raise RuntimeError("call reset first")
        return self._goal

    def wait(self, duration_s: float) -> str | None:
        """Lets time pass, with the last reference held: what a real robot does while its next action is being planned.

        The physics goes on in ticks of the inner loop; what is less than a tick is owed to the next wait. Time passes on the
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
        num_ticks = math.floor((self._owed_s + duration_s) / self.tick_s + 1e-9)
        self._owed_s = max(0.0, self._owed_s + duration_s - num_ticks * self.tick_s)
        self._num_waited_ticks += num_ticks
        counts = warning_counts(self._data)
        self._hold(self._data, self._held, num_ticks)
        return physics_fault(self._data, counts)

    def foresee(self, actions: NDArray[np.float32]) -> Vector:
        """What actions would truly lead to: a judge of predictions, never for a planner.

        Args:
            actions: float32 [H, A].

        Returns:
            Distance to the goal after each action, executed at once and exactly under every variation, metres, float64 [H]. The environment
            itself stays as it is.
        """
        return np.array([self._distance_m(data) for data in self._branch(actions)])

    def imagine(self, actions: NDArray[np.float32], *, last_only: bool = False) -> NDArray[np.uint8]:
        """What the cameras would truly see after each action: a perfect model, for references, never for a planner.

        Args:
            actions: float32 [H, A].
            last_only: Draw what is seen in the end alone, as [1, V, h, w, 3]: most of the time goes into drawing.

        Returns:
            uint8 [H, V, h, w, 3]. The environment itself stays as it is.
        """
        final = len(actions) - 1
        return np.stack([self._pixels(data) for step, data in enumerate(self._branch(actions)) if step == final or not last_only])

    def _branch(self, actions: NDArray[np.float32]) -> Iterator[mujoco.MjData]:
        """The states after each action, in a copy of the present; each is overwritten by the next."""
        data = mujoco.MjData(self._model)
        signature = mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(mujoco.mj_stateSize(self._model, signature))
        mujoco.mj_getState(self._model, self._data, state, signature)
        mujoco.mj_setState(self._model, data, state, signature)
        mujoco.mj_forward(self._model, data)
        for action_A in np.clip(np.asarray(actions, dtype=np.float64), -self._limit_A, self._limit_A):
            self._advance(data, action_A)
            yield data

    def make_goal(self, *, index: int, split: str, seed: int) -> GoalSpec:
        """Draws a start and a wish, and lets the oracle pursue it; the state it ends in, at rest, is the goal.

        Args:
            index: number of the goal in its manifest.
            split: manifest's name.
            seed: manifest's seed.
        """
        rng = np.random.default_rng([seed, index])
        while True:
            wish = self._random_goal(rng)
            self._set_state(np.array(wish.start_qpos))
            self._pursue(wish)
            for _ in range(self.max_episode_steps):
                self._advance(self._data, self.oracle_action().astype(np.float64))
            reached, start = self._tracked_m(self._data), np.array(wish.start_position_m)
            moved = np.linalg.norm(reached - start) >= self.min_distance_m
            if moved and self._matches(self._data, self.settled_m) and (not self.variation.region or self._is_new(reached)):
                return GoalSpec(
                    id=f"{split}-{index:04d}",
                    start_qpos=wish.start_qpos,
                    goal_qpos=tuple(round(float(v), 9) for v in self._data.qpos),
                    start_position_m=wish.start_position_m,
                    goal_position_m=(float(reached[0]), float(reached[1]), float(reached[2])),
                )

    def render_report(self, size_px: int = 360) -> NDArray[np.uint8]:
        """A large picture with shadows from a further camera, uint8 [size, size, 3]; for people, never observed."""
        if self._report_renderer is not None and self._report_size_px != size_px:
            self._report_renderer.close()
            self._report_renderer = None
        if self._report_renderer is None:
            config = RenderConfig(height_px=size_px, width_px=size_px, shadow_size_px=1024)
            self._report_renderer, self._report_size_px = SceneRenderer(self._model, config), size_px
        self._report_renderer.distractors = self._renderer.distractors
        if self._appearance is not None:
            self._appearance.upload(self._report_renderer)
        return self._report_renderer.render(self._data, REPORT_CAMERA)

    # -- internals ----------------------------------------------------------------------------------------------------------------

    def _chosen_goal(self, options: dict[str, Any]) -> GoalSpec:
        goal = options.get("goal")
        if goal is not None:
            if not isinstance(goal, GoalSpec):
                raise UserError(f"options['goal'] is a {type(goal).__name__}; it must be a GoalSpec")
            return goal
        split = options.get("split", "test-region" if self.variation.region else "test")
        goals = load_manifest(self.name, split).goals
        if split.endswith("-region") and not self.variation.region:
            raise UserError(f"split={split!r}: its goals lie outside of the plain task; make the environment with variation='region'")
        index = options.get("goal_index", self.np_random.integers(len(goals)))
        if not isinstance(index, int | np.integer) or isinstance(index, bool):
            raise UserError(f"goal_index={index!r} is a {type(index).__name__}; it must be a whole number in 0..{len(goals) - 1}")
        if not 0 <= index < len(goals):
            raise UserError(f"goal_index={index} is out of range 0..{len(goals) - 1}")
        return goals[index]

    def _pursue(self, goal: GoalSpec) -> None:
        self._goal, self._goal_m = goal, np.array(goal.goal_position_m)
        self._held = self._at_rest(self._data)

    def _set_state(self, qpos: Vector) -> None:
        if qpos.shape != (self._model.nq,):
            raise UserError(f"a state of {self.name} has {self._model.nq} joint positions; got {qpos.shape}")
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = qpos
        mujoco.mj_forward(self._model, self._data)

    def _distance_m(self, data: mujoco.MjData) -> float:
        return float(np.linalg.norm(self._tracked_m(data) - self._goal_m))

    def _pixels(self, data: mujoco.MjData | None = None) -> NDArray[np.uint8]:
        return np.stack([self._renderer.render(self._data if data is None else data, camera) for camera in self.spec_info.cameras])

    def _observation(self) -> dict[str, Any]:
        return {
            "pixels": self._pixels(),
            "proprio": self._proprio(self._data).astype(np.float32),
            "time_s": np.array(self._num_steps * self.dt_s + self._num_waited_ticks * self.tick_s, dtype=np.float64),
        }
