"""Every environment by name: one line each; nothing heavy is imported until one is made."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from goalward import UserError

if TYPE_CHECKING:
    import gymnasium as gym


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvEntry:
    """How an environment is made and how data is collected in it."""

    id: str
    """Versioned Gymnasium id."""
    entry_point: str
    """`module:Class`, imported on first use."""
    behaviours: Mapping[str, float]
    """Weights of the behaviours that `goalward collect` mixes."""
    goal_splits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Split -> (seed, number of goals) of its packaged goal manifests; empty for scenes without goals."""


ENVS: dict[str, EnvEntry] = {
    "reach": EnvEntry(
        id="Goalward/Reach-v0",
        entry_point="goalward.envs.reach:ReachEnv",
        behaviours={"oracle": 0.25, "noisy": 0.35, "explore": 0.40},
        goal_splits={
            "test": (20_001, 400), "validation": (10_001, 200), "test-region": (20_101, 200), "validation-region": (10_101, 100)
        },
    ),
    "push": EnvEntry(
        id="Goalward/Push-v0",
        entry_point="goalward.envs.push:PushEnv",
        behaviours={"oracle": 0.15, "noisy": 0.20, "explore": 0.10, "push_explore": 0.55},
        goal_splits={
            "test": (20_002, 400), "validation": (10_002, 200), "test-region": (20_102, 200), "validation-region": (10_102, 100)
        },
    ),
    "wall": EnvEntry(
        id="Goalward/Wall-v0",
        entry_point="goalward.envs.wall:WallEnv",
        behaviours={"oracle": 0.10, "noisy": 0.20, "explore": 0.30, "wander": 0.40},
        goal_splits={"test": (20_003, 400), "validation": (10_003, 200)},
    ),
    "reacher": EnvEntry(
        id="Goalward/Reacher-v0",
        entry_point="goalward.envs.reacher:ReacherEnv",
        behaviours={"oracle": 0.10, "noisy": 0.25, "explore": 0.25, "wander": 0.40},
        goal_splits={"test": (20_004, 400), "validation": (10_004, 200)},
    ),
    "scenes": EnvEntry(
        id="Goalward/Scenes-v0",
        entry_point="goalward.envs.video_scenes:VideoScenesEnv",
        behaviours={"idle": 1.0},
    ),
}


def find_env(name: str) -> tuple[str, EnvEntry]:
    """Looks an environment up by short name or Gymnasium id.

    Raises:
        UserError: unknown; names the nearest ones.
    """
    for short, entry in ENVS.items():
        if name in (short, entry.id):
            return short, entry
    near = difflib.get_close_matches(name, ENVS, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(ENVS)}"
    raise UserError(f"unknown environment {name!r}; {hint}")


def register_envs() -> None:
    """Registers every environment with Gymnasium; harmless when repeated."""
    import gymnasium as gym

    for entry in ENVS.values():
        if entry.id not in gym.registry:
            gym.register(id=entry.id, entry_point=entry.entry_point, disable_env_checker=True)


def make_env(name: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """Makes an environment.

    Args:
        name: short name (`reach`) or Gymnasium id (`Goalward/Reach-v0`).
        **kwargs: fields of the environment, e.g. `image_size_px`, `cameras`, `appearance`.

    Raises:
        UserError: unknown name, a field out of range, or no OpenGL library for rendering (says what to install).
    """
    import gymnasium as gym

    from goalward.envs.gl_backend import choose_backend

    _, entry = find_env(name)
    choose_backend()  # before MuJoCo is imported: where nothing can draw, say what to install
    register_envs()
    return gym.make(entry.id, **kwargs)
