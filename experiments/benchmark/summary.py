"""From episodes to figures: every cell by itself, cells of one method together over training seeds, and methods against each other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from goalward.datasets.strict_json import canonical
from goalward.experiments.benchmark.attribution import attributions
from goalward.experiments.benchmark.comparison import Comparison, Outcomes, compare, pooled_interval
from goalward.experiments.benchmark.run import FinishedCell
from goalward.experiments.benchmark.spec import BenchmarkSpec
from goalward.experiments.results import EpisodeRecord, finite_json, summarise
from goalward.experiments.statistics import Rate, percentile

Key = tuple[str, str, str]
"""Task, split, method."""


def summary(spec: BenchmarkSpec, cells: Sequence[FinishedCell]) -> dict[str, Any]:
    """The figures of `results.json`: `cells`, `methods` (pooled over training seeds), `comparisons`, `attribution`."""
    grouped: dict[Key, list[FinishedCell]] = {}
    for cell in cells:
        grouped.setdefault((cell.cell.env, cell.cell.split, cell.cell.name), []).append(cell)
    pooled = [_pooled(spec, key, members) for key, members in grouped.items()]
    figures: dict[str, Any] = finite_json(
        {
            "cells": [_cell(cell) for cell in cells],
            "methods": pooled,
            "comparisons": comparisons(spec, {key: outcomes_of(members) for key, members in grouped.items()}),
            "attribution": attributions(spec, {(p["env"], p["split"], p["method"]): p["strict"]["rate"] for p in pooled}),
        }
    )
    return figures


def trace_sha256(episodes: Iterable[EpisodeRecord]) -> str:
    """Hash of everything in episodes but the time that decisions took: equal where a rerun was equal to the last bit."""
    digest = hashlib.sha256()
    for episode in episodes:
        digest.update(canonical([episode.index, episode.seed, episode.actions, episode.distances_m, episode.failure]))
    return digest.hexdigest()


def outcomes_of(members: Sequence[FinishedCell]) -> Outcomes:
    """Strict success by training seed."""
    return {member.cell.training_seed: [episode.strict for episode in member.episodes] for member in members}


def comparisons(spec: BenchmarkSpec, outcomes: Mapping[Key, Outcomes]) -> list[dict[str, Any]]:
    """The method `against` minus every other: on each split of each task, on all varied splits of a task, and of all tasks, together."""
    blocks: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for env, split, _ in outcomes:
        varied = "-" in split
        for block in [(env, split), *([(env, "all varied"), ("all", "all varied")] if varied else [("all", split)])]:
            if (env, split) not in blocks.setdefault(block, []):
                blocks[block].append((env, split))
    found = []
    for (env, split), members in blocks.items():
        if len(members) < 2 and (env == "all" or split == "all varied"):
            continue
        for name in spec.methods:
            pairs = [
                (outcomes[(*member, spec.against)], outcomes[(*member, name)])
                for member in members
                if (*member, spec.against) in outcomes and (*member, name) in outcomes
            ]
            if name != spec.against and len(pairs) == len(members):
                comparison: Comparison = compare(pairs, seed=spec.seed)
                found.append({"env": env, "split": split, "method": spec.against, "against": name, **asdict(comparison)})
    return found


def _cell(cell: FinishedCell) -> dict[str, Any]:
    role = "privileged reference" if cell.cell.method.privileged else cell.cell.method.kind
    figures = summarise(cell.cell.name, cell.episodes, role=role)
    figures.pop("name")
    return {
        "env": cell.cell.env, "split": cell.cell.split, "method": cell.cell.name, "training_seed": cell.cell.training_seed,
        "resumed_episodes": cell.resumed, "hashes": dict(cell.hashes), "trace_sha256": trace_sha256(cell.episodes), **figures,
    }  # fmt: skip


def _pooled(spec: BenchmarkSpec, key: Key, members: Sequence[FinishedCell]) -> dict[str, Any]:
    env, split, name = key
    episodes = [episode for member in members for episode in member.episodes]
    strict = asdict(Rate.of([episode.strict for episode in episodes]))
    if len(members) > 1:  # episodes of one training are not independent of each other
        shortest = min(len(member.episodes) for member in members)
        low, high = pooled_interval({k: row[:shortest] for k, row in outcomes_of(members).items()}, seed=spec.seed)
        strict |= {"low": low, "high": high}
    method = spec.methods[name]
    finals = [episode.final_distance_m for episode in episodes]
    times = [ms for episode in episodes for ms in episode.plan_ms]
    return {
        "env": env, "split": split, "method": name, "training_seeds": len(members), "episodes": len(episodes),
        "interval": "Wilson" if len(members) == 1 else "bootstrap over training seeds, then goals",
        "privileged": method.privileged, "family": method.family, "data_fraction": method.data_fraction, "strict": strict,
        "moderate": asdict(Rate.of([episode.moderate for episode in episodes])),
        "final_distance_m": {"median": percentile(finals, 50), "p90": percentile(finals, 90)},
        "steps_to_success": {"median": percentile([float(e.steps) for e in episodes if e.strict], 50)},
        "plan_ms": {f"p{p}": percentile(times, p) for p in (50, 95)},
        "failures": sum(episode.failure is not None for episode in episodes),
    }  # fmt: skip
