"""Goal manifests: held-out evaluation problems, stored with the package, named and hashed.

A manifest holds states; the images are drawn by the environment's own renderer at reset, so that goal and observation can never differ
in resolution, range or driver. Manifests are made by `python -m goalward.envs.goals [environment ...]`, which lets the oracle drive to
every goal.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from goalward import UserError
from goalward.envs.base import GoalSpec

SPLITS = ("test", "validation", "test-region", "validation-region")


@dataclass(frozen=True, kw_only=True, slots=True)
class GoalManifest:
    """A named, hashed list of goals."""

    env: str
    """Short name of the environment."""
    version: str
    """Gymnasium id that the states belong to."""
    split: str
    """`test` or `validation`; neither is ever used in training."""
    seed: int
    """Seed of the generator that drew starts and goals."""
    min_distance_m: float
    """Every start is at least this far from its goal (pre-solved starts are filtered)."""
    goals: tuple[GoalSpec, ...]
    """The goals, in evaluation order."""

    @property
    def sha256(self) -> str:
        """Hash of the canonical JSON of everything above."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> str:
        """The manifest as a file: the contents and their hash."""
        rows = ",\n  ".join(json.dumps(asdict(goal)) for goal in self.goals)
        head = {k: v for k, v in asdict(self).items() if k != "goals"}
        return json.dumps(head | {"sha256": self.sha256})[:-1] + f',\n "goals": [\n  {rows}\n ]}}\n'


def parse_manifest(text: str, *, source: str) -> GoalManifest:
    """Reads a manifest and checks its hash.

    Raises:
        UserError: not a manifest, or its contents do not match its hash.
    """
    try:
        raw: dict[str, Any] = json.loads(text)
        stated = raw.pop("sha256")
        goals = tuple(
            GoalSpec(id=g["id"], start_qpos=tuple(g["start_qpos"]), goal_qpos=tuple(g["goal_qpos"]),
                     start_position_m=tuple(g["start_position_m"]), goal_position_m=tuple(g["goal_position_m"]))
            for g in raw.pop("goals")
        )
        manifest = GoalManifest(**raw, goals=goals)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source} is not a goal manifest: {error!r}; reinstall the package or make it anew") from error
    if manifest.sha256 != stated:
        raise UserError(f"{source} is damaged: its contents hash to {manifest.sha256[:12]}, not to the {stated[:12]} it states")
    return manifest


@cache
def load_manifest(env: str, split: str = "test") -> GoalManifest:
    """The packaged manifest of an environment.

    Args:
        env: short name.
        split: `test` or `validation`, or the region that no training episode enters, `test-region` or `validation-region`.

    Raises:
        UserError: unknown split, no manifest for this environment, or a damaged file.
    """
    if split not in SPLITS:
        raise UserError(f"split={split!r} is not a goal split; choose one of {', '.join(SPLITS)}")
    file = resources.files("goalward.envs")/ "assets" / f"{env}_goals_{split}.json"
    if not file.is_file():
        raise UserError(f"environment {env!r} has no {split} goals; environments with goals are listed by `goalward doctor`")
    return parse_manifest(file.read_text(encoding="utf-8"), source=file.name)


def main(names: Sequence[str] = ()) -> None:
    """Makes packaged manifests anew (a changed environment needs a new version and new goals).

    Args:
        names: environments, by short name or id; none: all of them.
    """
    from goalward.envs.registry import ENVS, find_env, make_env

    for name, entry in map(find_env, names or ENVS):
        for split, (seed, count) in entry.goal_splits.items():
            env = make_env(name, variation=split.partition("-")[2] or "none")
            goals = tuple(env.unwrapped.make_goal(index=i, split=split, seed=seed) for i in range(count))  # type: ignore[attr-defined]
            manifest = GoalManifest(env=name, version=entry.id, split=split, seed=seed,
                                    min_distance_m=env.unwrapped.min_distance_m, goals=goals)  # type: ignore[attr-defined]
            path = Path(__file__).parent / "assets" / f"{name}_goals_{split}.json"
            path.write_text(manifest.to_json(), encoding="utf-8")
            print(f"{path.name}: {count} goals, sha256 {manifest.sha256[:12]}")
            env.close()


if __name__ == "__main__":
    main(sys.argv[1:])
