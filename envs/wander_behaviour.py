"""A behaviour that goes from one random place to the next, by a task's own scripted way: many short goals in one episode.

It serves every task with `random_place(rng)`, `action_towards(place)` and `arrived(place)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PATIENCE_STEPS = (4, 24)  # a place is given up after so many steps
_GAIN = (0.3, 1.0)  # how much of the way's action is taken, of a place
_NOISE = (0.0, 0.5)  # standard deviation in units of the largest action, of an episode


def wander(rng: np.random.Generator) -> Callable[[Any, dict[str, Any]], NDArray[np.float32]]:
    """Makes one behaviour for one episode."""
    noise = rng.uniform(*_NOISE)
    place: NDArray[np.float64] | None = None
    remaining, gain = 0, 1.0

    def act(env: Any, observation: dict[str, Any]) -> NDArray[np.float32]:
        nonlocal place, remaining, gain
        task, low, high = env.unwrapped, env.action_space.low, env.action_space.high
        if place is None or remaining <= 0 or task.arrived(place):
            place, gain, remaining = task.random_place(rng), rng.uniform(*_GAIN), int(rng.integers(*_PATIENCE_STEPS, endpoint=True))
        remaining -= 1
        wanted = gain * task.action_towards(place) + rng.normal(0.0, noise, size=low.shape) * high
        action: NDArray[np.float32] = np.clip(wanted, low, high).astype(np.float32)
        return action

    return act
