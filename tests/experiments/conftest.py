"""A world small enough to check by hand: a point in a square, two tiny cameras, ten goals."""

from typing import Any

import numpy as np
import pytest

from goalward import UserError
from goalward.envs.base import EnvInfo
from goalward.experiments.evaluation import EpisodeStart, Method

NUM_GOALS = 10
STEP_M = 0.05


class PointEnv:
    """A point moves by its action; goal k lies at a place that k decides. Implements what evaluation asks of an environment."""

    strict_tolerance_m, strict_steps, moderate_tolerance_m = 0.03, 3, 0.05

    def __init__(self, max_steps: int = 12, fail_at_goal: int | None = None) -> None:
        limit = np.full(2, STEP_M, dtype=np.float32)
        self.spec_info = EnvInfo(
            name="point", version="Test/Point-v0", cameras=("top", "side"), image_size_px=16, dt_s=0.25, action_names=("dx_m", "dy_m"),
            action_low=-limit, action_high=limit, proprio_names=("x_m", "y_m"), workspace_low_m=np.zeros(3, np.float32),
            workspace_high_m=np.ones(3, np.float32), max_episode_steps=max_steps,
        )  # fmt: skip
        self.fail_at_goal = fail_at_goal
        self.resets: list[tuple[int, int, str]] = []
        self.closed = False

    @property
    def unwrapped(self) -> "PointEnv":
        return self

    def reset(self, *, seed: int, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        index = options["goal_index"]
        if not 0 <= index < NUM_GOALS:
            raise UserError(f"goal_index={index} is out of range 0..{NUM_GOALS - 1}")
        self.resets.append((seed, index, options["split"]))
        self.index = index
        self.position, self.goal = self.places(index)
        self.steps = self.inside = 0
        return self._observe(), {"goal_pixels": self._draw(self.goal), "goal_id": f"goal-{index}", "distance_m": self._distance()}

    def places(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Start and goal."""
        return np.array([0.2, 0.2]), np.array([0.2 + 0.03 * (index + 6), 0.2 + 0.02 * index])

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.steps += 1
        failure = None
        if not np.isfinite(action).all():
            failure = "the action is not finite"
        elif self.index == self.fail_at_goal and self.steps == 2:
            failure = "the simulation <b>diverged</b>"
            self.position = np.full(2, np.nan)
        else:
            self.position = self.position + np.clip(action, -STEP_M, STEP_M)
        distance = self._distance()
        self.inside = self.inside + 1 if distance <= 0.03 else 0
        strict = self.inside >= 3
        info = {"distance_m": distance, "strict_success": strict, "moderate_success": distance <= 0.05, "failure": failure}
        truncated = self.steps >= self.spec_info.max_episode_steps
        return self._observe(), -distance, strict or failure is not None, truncated, info

    def oracle_action(self) -> np.ndarray:
        offset = self.goal - self.position
        return (offset / max(1.0, float(np.abs(offset).max()) / STEP_M)).astype(np.float32)

    def render_report(self, size_px: int) -> np.ndarray:
        return np.full((size_px, size_px, 3), 90, dtype=np.uint8)

    def close(self) -> None:
        self.closed = True

    def _distance(self) -> float:
        return float(np.linalg.norm(self.position - self.goal))

    def _draw(self, place: np.ndarray) -> np.ndarray:
        pixels = np.full((2, 16, 16, 3), 40, dtype=np.uint8)
        if np.isfinite(place).all():
            row, column = np.clip((place * 15).astype(int), 0, 15)
            pixels[0, row, column] = 255
            pixels[1, column, row] = 200
        return pixels

    def _observe(self) -> dict[str, Any]:
        return {"pixels": self._draw(self.position), "proprio": self.position.astype(np.float32), "time_s": np.array(self.steps * 0.25)}


def _planner(env: PointEnv) -> Method:
    """Stands for a planner: goes to the goal with a little noise, except for goal 3, where it stays."""

    def begin(start: EpisodeStart) -> Any:
        rng = np.random.default_rng(start.seed)

        def act(observation: Any) -> np.ndarray:
            assert set(observation) == {"pixels", "proprio", "time_s"}
            noise = rng.normal(0, 0.002, 2).astype(np.float32)
            return noise if env.index == 3 else env.oracle_action() + noise

        return act

    def energies(frames: np.ndarray, goal: np.ndarray) -> list[float]:
        return [float(e) for e in ((frames.astype(float) - goal) ** 2).mean(axis=(1, 2, 3, 4))]

    return Method(name="cem", role="planner", begin=begin, timed=True, energies=energies)


@pytest.fixture
def point_env() -> type[PointEnv]:
    """The environment's class."""
    return PointEnv


@pytest.fixture
def make_planner() -> Any:
    """Makes the stand-in planner of an environment."""
    return _planner


@pytest.fixture
def eval_config() -> Any:
    """Makes the resolved configuration of an evaluation."""

    def make(**changes: Any) -> dict[str, Any]:
        return {"env": "point", "episodes": 5, "seed": 7, "split": "test", "references": True, "max_cards": 50} | changes

    return make
