"""Splits: the named, hashed benchmarks of a task: goals, and the variation under which they are pursued.

    test            the plain task, held-out goals                test-look       the same goals and starts, another look
    validation      the same, for tuning                          validation-look ...

Goal i of `test-look` is goal i of `test`, so that methods and variations can be paired goal by goal. `region` alone has goals of its own.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from dataclasses import dataclass

from goalward import UserError
from goalward.envs.goals import load_manifest
from goalward.envs.variation import VARIATIONS, Variation

PLAIN = ("test", "validation")
"""Splits of the plain task."""
SPLITS = (*PLAIN, *(f"{plain}-{name}" for plain in PLAIN for name in VARIATIONS if name != "none"))
"""All there may be; a task need not have every one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """A benchmark."""

    name: str
    """`test-look`, for instance."""
    goals_split: str
    """Manifest of its goals; what `reset` takes as `split`."""
    variation: Variation
    """What the environment is made with."""
    sha256: str
    """Of the goals and the variation together."""


def find_split(env: str, split: str) -> Split:
    """Looks a split up.

    Args:
        env: short name of the environment.
        split: one of `SPLITS`.

    Raises:
        UserError: unknown split, or this environment has no such goals.
    """
    if split not in SPLITS:
        near = difflib.get_close_matches(str(split), SPLITS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(SPLITS)}"
        raise UserError(f"split={split!r} is unknown; {hint}")
    plain, _, name = split.partition("-")
    variation = VARIATIONS[name or "none"]
    goals_split = split if variation.region else plain
    manifest = load_manifest(env, goals_split)
    if split == plain:  # results of the plain task have always quoted the hash of its goals
        return Split(name=split, goals_split=goals_split, variation=variation, sha256=manifest.sha256)
    facts = {"goals": manifest.sha256, "variation": dataclasses.asdict(variation)}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return Split(name=split, goals_split=goals_split, variation=variation, sha256=hashlib.sha256(text.encode()).hexdigest())
