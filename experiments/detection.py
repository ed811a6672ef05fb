"""Success as the controller sees it, in latents, against the true state: is it right when it says that it has arrived?

    frames    every observation of every episode: detected (energy at or below the threshold) against near (within the strict tolerance)
    claims    every episode's first claim (so many detections running) against the task's own success at that moment

A task ends at its own success; a claim that would have come a step later is counted as missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from goalward.experiments.evaluation import Detector
from goalward.experiments.results import EpisodeRecord
from goalward.experiments.statistics import Rate


def detection_figures(
    episodes: Sequence[EpisodeRecord], detector: Detector | None, *, tolerance_m: float | None, strict_steps: int | None
) -> dict[str, Any] | None:
    """The entry `detection` of `results.json`.

    Args:
        episodes: of one method, with energies.
        detector: its threshold.
        tolerance_m: what the task calls near.
        strict_steps: how many steps running the task wants it.

    Returns:
        None where the method cannot tell, or the task has no such tolerance. Precision and recall are null where nothing was detected, or
        nothing was near.
    """
    if detector is None or tolerance_m is None or strict_steps is None:
        return None
    seen = [_instants(episode, detector, tolerance_m) for episode in episodes]
    found = [(detected, near) for instants in seen for detected, near in instants]
    claims = [_claim(episode, instants, detector.steps, strict_steps) for episode, instants in zip(episodes, seen, strict=True)]
    claimed = [claim for claim in claims if claim["step"] is not None]
    reached = [claim for claim, episode in zip(claims, episodes, strict=True) if episode.strict]
    return {
        "energy": detector.energy,
        "steps": detector.steps,
        "tolerance_m": tolerance_m,
        "frames": {
            "precision": _rate([near for detected, near in found if detected]),
            "recall": _rate([detected for detected, near in found if near]),
        },
        "episodes": {
            "precision": _rate([bool(claim["near"]) for claim in claimed]),
            "precision_strict": _rate([bool(claim["strict"]) for claim in claimed]),
            "recall": _rate([claim["step"] is not None for claim in reached]),
        },
        "claims": claims,
    }


def _instants(episode: EpisodeRecord, detector: Detector, tolerance_m: float) -> list[tuple[bool, bool]]:
    """(detected, near) before the first and after every step; where a state had diverged, neither."""
    pairs = zip(episode.energies or (), episode.distances_m, strict=False)
    return [(e is not None and e <= detector.energy, d is not None and d <= tolerance_m) for e, d in pairs]


def _claim(episode: EpisodeRecord, instants: Sequence[tuple[bool, bool]], steps: int, strict_steps: int) -> dict[str, Any]:
    """The first claim of an episode; `near`: truly within the tolerance then; `strict`: at so many steps running, as the task wants."""
    running = 0
    for step, (detected, near) in enumerate(instants):
        running = running + 1 if detected else 0
        if running >= steps:
            recent = [was_near for _, was_near in instants[max(1, step - strict_steps + 1) : step + 1]]
            strict = len(recent) == strict_steps and all(recent)
            return {"index": episode.index, "step": step, "distance_m": episode.distances_m[step], "near": near, "strict": strict}
    return {"index": episode.index, "step": None, "distance_m": None, "near": None, "strict": None}


def _rate(outcomes: Sequence[bool]) -> dict[str, Any] | None:
    return asdict(Rate.of(outcomes)) if outcomes else None
