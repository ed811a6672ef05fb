"""A behaviour for `push` that is rich in contact: pushes from random sides, in random directions, over random ways, then goes elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PUSH_STEPS = (6, 18)  # a push, the way to the puck included, is given up after so many steps
_ROAM_STEPS = (1, 3)  # between two pushes the hand goes somewhere for so many steps
_PUSH_M = (0.015, 0.05)  # longest displacement per step while pushing, of a push
_DONE_M = 0.015
_ONWARD = 0.6  # share of the pushes that begin on the hand's own side of the puck; the others need a way round it
_ONWARD_ANGLE_RAD = 0.7
_ONWARD_WAY_M = (0.05, 0.25)


def push_explore(rng: np.random.Generator) -> Callable[[Any, dict[str, Any]], NDArray[np.float32]]:
    """Makes one behaviour for one episode: pushes to one random place after another, slowly or fast, and more or less shakily."""
    noise = rng.uniform(0.0, 0.35)
    place_m: NDArray[np.float64] | None = None  # while pushing
    roam = np.zeros(2, dtype=np.float32)
    remaining, push_m = 0, 0.0

    def act(env: Any, observation: dict[str, Any]) -> NDArray[np.float32]:
        nonlocal place_m, roam, remaining, push_m
        task, low, high = env.unwrapped, env.action_space.low, env.action_space.high
        there = place_m is not None and float(np.linalg.norm(place_m - task.puck_m())) < _DONE_M
        if remaining <= 0 or there:
            if place_m is None:
                place_m = _place_onward(rng, task) if rng.random() < _ONWARD else task.random_place(rng)
                push_m, remaining = rng.uniform(*_PUSH_M), int(rng.integers(*_PUSH_STEPS, endpoint=True))
            else:
                place_m, remaining = None, int(rng.integers(*_ROAM_STEPS, endpoint=True))
                roam = rng.uniform(low, high).astype(np.float32)
        remaining -= 1
        wanted = roam if place_m is None else task.action_towards(place_m, max_push_m=push_m)
        action: NDArray[np.float32] = np.clip(wanted + rng.normal(0.0, noise, size=low.shape) * high, low, high).astype(np.float32)
        return action

    return act


def _place_onward(rng: np.random.Generator, task: Any) -> NDArray[np.float64]:
    """A place [2] roughly on the far side of the puck, as the hand sees it."""
    along = task.puck_m() - task.hand_m()
    angle = np.arctan2(along[1], along[0]) + rng.uniform(-_ONWARD_ANGLE_RAD, _ONWARD_ANGLE_RAD)
    way = rng.uniform(*_ONWARD_WAY_M) * np.array([np.cos(angle), np.sin(angle)])
    place: NDArray[np.float64] = np.clip(task.puck_m() + way, *task.places_m)
    return place
