"""A light environment with the interface of the real ones, for tests of collection; importable by worker processes."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from goalward.envs.base import EnvInfo


class TinyEnv:
    """A dot on two 16 px cameras; fails at random when asked to."""

    def __init__(self, *, failure_rate: float = 0.0, step_s: float = 0.0, dt_s: float = 0.2, fault: str = "") -> None:
        limit = np.full(2, 0.05, np.float32)
        self.spec_info = EnvInfo(
            name="tiny", version="Goalward/Tiny-v0", cameras=("front", "side"), image_size_px=16, dt_s=dt_s,
            action_names=("dx_m", "dy_m"), action_low=-limit, action_high=limit, proprio_names=("x_m", "y_m", "time"),
            workspace_low_m=np.zeros(3, np.float32), workspace_high_m=np.ones(3, np.float32), max_episode_steps=30,
        )  # fmt: skip
        self.action_space = SimpleNamespace(low=-limit, high=limit, shape=(2,))
        self.unwrapped = self
        self._failure_rate, self._step_s, self._fault = failure_rate, step_s, fault
        self._steps = 0

    def reset(self, *, seed: int, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        assert options == {"collect": True}
        self._rng = np.random.default_rng(seed)
        self._position = self._rng.uniform(0, 1, 2)
        self._goal = self._rng.uniform(0, 1, 2)
        self._fails_at = int(self._rng.integers(3)) if self._rng.random() < self._failure_rate else -1
        self._texture = self._rng.integers(0, 255, (2, 16, 16, 3), dtype=np.uint8)
        self._steps = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        if self._fault == "die" and self._steps == 2:
            os._exit(7)
        if self._fault == "raise":
            raise ZeroDivisionError("a bug of the environment")
        time.sleep(self._step_s)
        self._position = np.clip(self._position + action, 0, 1)
        failure = "fell over" if self._steps == self._fails_at else None
        self._steps += 1
        return self._observe(), 0.0, failure is not None, False, {"failure": failure}

    def oracle_action(self) -> np.ndarray:
        return np.clip(self._goal - self._position, -0.05, 0.05).astype(np.float32)

    def close(self) -> None:
        pass

    def _observe(self) -> dict[str, Any]:
        pixels = self._texture.copy()
        row, column = (self._position * 15).astype(int)
        pixels[:, row, column] = 255
        return {"pixels": pixels, "proprio": np.array([*self._position, self._steps], np.float32), "time_s": np.float64(self._steps * 0.2)}
