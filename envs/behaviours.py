"""Scripted behaviours for data collection: planning needs to have seen far more than expert motion.

Each is a callable `(env, observation) -> action` with its own generator. `oracle` and `noisy` drive to the episode's random goal;
`explore` knows no goal: it holds random velocities for random durations, so that every direction, speed and stop is seen everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goalward import UserError
from goalward.envs.push_behaviour import push_explore
from goalward.envs.wander_behaviour import wander

Behaviour = Callable[[Any, dict[str, Any]], NDArray[np.float32]]

_EXPLORE_HOLD_STEPS = (1, 6)  # a random velocity is held for so many steps
_STOP_PROBABILITY = 0.12


def _oracle(rng: np.random.Generator) -> Behaviour:
    gain = rng.uniform(0.4, 1.0)

    def act(env: Any, observation: dict[str, Any]) -> NDArray[np.float32]:
        action: NDArray[np.float32] = (gain * env.unwrapped.oracle_action()).astype(np.float32)
        return action

    return act


def _noisy(rng: np.random.Generator) -> Behaviour:
    scale = rng.uniform(0.2, 0.8)

    def act(env: Any, observation: dict[str, Any]) -> NDArray[np.float32]:
        low, high = env.action_space.low, env.action_space.high
        noise = rng.normal(0.0, scale, size=low.shape) * (high - low) / 2
        action: NDArray[np.float32] = np.clip(env.unwrapped.oracle_action() + noise, low, high).astype(np.float32)
        return action

    return act


def _explore(rng: np.random.Generator) -> Behaviour:
    held: NDArray[np.float32] | None = None
    remaining = 0

    def act(env: Any, observation: dict[str, Any]) -> NDArray[np.float32]:
        nonlocal held, remaining
        low, high = env.action_space.low, env.action_space.high
        if held is None or remaining == 0:
            remaining = int(rng.integers(*_EXPLORE_HOLD_STEPS, endpoint=True))
            stop = rng.random() < _STOP_PROBABILITY
            held = np.zeros_like(low) if stop else rng.uniform(low, high).astype(np.float32)
        remaining -= 1
        jitter = rng.normal(0.0, 0.08, size=low.shape) * (high - low) / 2
        action: NDArray[np.float32] = np.clip(held + jitter, low, high).astype(np.float32)
        return action

    return act


def _idle(rng: np.random.Generator) -> Behaviour:
    def act(env: Any, observation: dict[str, Any]) -> NDArray[np.float32]:
        return np.zeros(env.action_space.shape, dtype=np.float32)

    return act


BEHAVIOURS: dict[str, Callable[[np.random.Generator], Behaviour]] = {
    "oracle": _oracle,
    "noisy": _noisy,
    "explore": _explore,
    "idle": _idle,
    "push_explore": push_explore,
    "wander": wander,
}


def make_behaviour(rng: np.random.Generator, name: str) -> Behaviour:
    """Makes one behaviour for one episode.

    Raises:
        UserError: unknown name.
    """
    if name not in BEHAVIOURS:
        raise UserError(f"unknown behaviour {name!r}; choose one of {', '.join(BEHAVIOURS)}")
    return BEHAVIOURS[name](rng)
