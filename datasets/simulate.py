"""One simulated episode, decided by a base seed and its number alone: whoever runs it, whenever, gets the same data.

Letters in array names: T actions in an episode, V camera views, A action dimensions, P proprioception dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from goalward import UserError
from goalward.datasets.spec import MAX_STEPS, Episode
from goalward.envs.behaviours import make_behaviour

MAX_ATTEMPTS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What decides the content of every episode, besides the environment."""

    base_seed: int
    """Seed of the collection."""
    episode_steps: int
    """T, actions in an episode."""
    behaviours: Mapping[str, float]
    """Behaviour -> weight of its share of the episodes."""

    def __post_init__(self) -> None:
        if not 0 <= self.base_seed < 2**32:
            raise UserError(f"seed={self.base_seed} is out of range 0..{2**32 - 1}")
        if not 1 <= self.episode_steps <= MAX_STEPS:
            raise UserError(f"episode_steps={self.episode_steps} is out of range 1..{MAX_STEPS}")
        if not self.behaviours or min(self.behaviours.values()) < 0 or sum(self.behaviours.values()) <= 0:
            raise UserError(f"behaviours={dict(self.behaviours)} must be weights of at least 0 with a positive sum")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, for the store's specification."""
        return {"seed": self.base_seed, "episode_steps": self.episode_steps, "behaviours": dict(self.behaviours)}


def episode_seed(base_seed: int, index: int, attempt: int) -> int:
    """Seed of one attempt at one episode: 53 well mixed bits, so that no two episodes of a collection share a stream."""
    high, low = np.random.SeedSequence([base_seed, index, attempt]).generate_state(2, np.uint32)
    return (int(high) << 21) ^ int(low)


def simulate_episode(env: Any, recipe: Recipe, index: int) -> tuple[Episode, int]:
    """Runs episode `index`.

    Args:
        env: a Gymnasium environment of this project; reset with `options={"collect": True}`.
        recipe: seeds, length and behaviours.
        index: number of the episode.

    Returns:
        The episode, and how many failed attempts (each with a seed of its own) were discarded before it.

    Raises:
        UserError: every attempt failed.
    """
    failure = ""
    for attempt in range(MAX_ATTEMPTS):
        seed = episode_seed(recipe.base_seed, index, attempt)
        result = _attempt(env, recipe, seed)
        if isinstance(result, Episode):
            return result, attempt
        failure = result
    raise UserError(f"episode {index} failed {MAX_ATTEMPTS} times in a row, last: {failure}")


def _attempt(env: Any, recipe: Recipe, seed: int) -> Episode | str:
    """The episode of a seed, or why it failed."""
    rng = np.random.default_rng(seed)
    names = sorted(recipe.behaviours)
    weights = np.array([recipe.behaviours[name] for name in names])
    name = str(rng.choice(names, p=weights / weights.sum()))
    behaviour = make_behaviour(rng, name)
    observation, _ = env.reset(seed=seed, options={"collect": True})
    pixels, proprio, actions = [observation["pixels"]], [observation["proprio"]], []
    for _ in range(recipe.episode_steps):
        action = np.asarray(behaviour(env, observation), dtype=np.float32)
        observation, _, terminated, truncated, info = env.step(action)
        if info.get("failure") is not None:
            return str(info["failure"])
        if terminated or truncated:
            return "the environment ended the episode early"
        actions.append(action)
        pixels.append(observation["pixels"])
        proprio.append(observation["proprio"])
    return Episode(pixels=np.stack(pixels), proprio=np.stack(proprio), actions=np.stack(actions), seed=seed, behaviour=name)
