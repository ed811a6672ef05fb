"""Runs recorded actions again, to see what happened; the physics must come out the same, which every report checks.

Letters in array names: T steps, V camera views.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goalward.experiments.results import EpisodeRecord


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Replay:
    """What an episode looked like."""

    live_TVhw3: NDArray[np.uint8]
    """Frames before the first and after every step [T+1, V, h, w, 3]."""
    goal_Vhw3: NDArray[np.uint8]
    """Goal image."""
    scene_Thw3: NDArray[np.uint8] | None
    """Large pictures from outside [T+1, size, size, 3], where asked for and where the environment draws them."""
    deviation_m: float
    """Largest difference between a recorded and a replayed distance: 0 in a deterministic environment."""


def replay(env: Any, record: EpisodeRecord, *, split: str, scene_px: int | None = None) -> Replay:
    """Replays an episode.

    Args:
        env: the environment it was recorded in.
        record: the episode.
        split: goal manifest it was recorded on.
        scene_px: edge of pictures from outside; None leaves them out.
    """
    observation, info = env.reset(seed=record.seed, options={"goal_index": record.index, "split": split})
    goal = np.array(info["goal_pixels"])
    draw = getattr(env.unwrapped, "render_report", None) if scene_px else None
    frames, scenes, distances = [observation["pixels"]], [draw(scene_px)] if draw else [], [float(info["distance_m"])]
    for step, action in enumerate(record.actions):
        if record.waits_s:
            env.unwrapped.wait(record.waits_s[step])
        observation, _, _, _, info = env.step(np.array([math.nan if a is None else a for a in action], dtype=np.float32))
        frames.append(observation["pixels"])
        distances.append(float(info["distance_m"]))
        if draw:
            scenes.append(draw(scene_px))
    pairs = zip(distances, record.distances_m, strict=True)
    deviation = max((abs(a - b) for a, b in pairs if b is not None and math.isfinite(a)), default=0.0)
    return Replay(live_TVhw3=np.stack(frames), goal_Vhw3=goal, scene_Thw3=np.stack(scenes) if scenes else None, deviation_m=deviation)
