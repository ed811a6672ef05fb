"""Two methods on the same goals: paired differences, over goals and training seeds.

Sources: the exact paired test is McNemar's (see `statistics.py`); intervals over several training seeds are bootstraps in two levels, first
seeds, then goals (Davison and Hinkley 1997, "Bootstrap Methods and their Application", section 3.8), percentile intervals. Where nearly all
pairs agree a bootstrap is too sure of itself: no interval is narrower than Newcombe's for one training (`paired_interval`).

Letters: D draws, K training seeds, G goals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from goalward.experiments.statistics import compare_paired, paired_interval, wilson_interval

Outcomes = Mapping[int | None, Sequence[bool]]
"""Training seed (None: does not learn) -> success at goal 0, 1, ..."""
_DRAWS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How much better the first is than the second, in success rate."""

    difference: float
    """Mean difference of the rates, -1 to 1."""
    low: float
    """95 % interval of it: ..."""
    high: float
    """... the wider of the bootstrap's and Newcombe's."""
    wins: int
    """Pairs (training seed, goal) in which only the first succeeded."""
    losses: int
    """Pairs in which only the second did."""
    pairs: int
    """All pairs."""
    p_value: float
    """Exact two-sided McNemar test over the pairs; optimistic with several training seeds, whose goals are the same."""


def compare(groups: Sequence[tuple[Outcomes, Outcomes]], *, seed: int = 0, draws: int = _DRAWS) -> Comparison:
    """Compares two methods over one or several groups of cells (tasks, splits), each group weighing alike per pair.

    Args:
        groups: outcomes of the first and of the second method on the same goals. A method that does not learn is paired with every
            training seed of the other; two that do are paired seed by seed.
        seed: of the bootstrap.
        draws: of the bootstrap.

    Raises:
        ValueError: no group, or a group without a common goal.
    """
    if not groups:
        raise ValueError("nothing to compare")
    pairs = [_paired(first, second) for first, second in groups]
    rng = np.random.default_rng(seed)
    flat = [(a, b) for matrix in pairs for a, b in matrix]
    won = compare_paired([bool(x) for a, _ in flat for x in a], [bool(x) for _, b in flat for x in b])
    total = sum(len(a) for a, _ in flat)
    differences = [np.stack([a.astype(float) - b.astype(float) for a, b in matrix]) for matrix in pairs]
    low, high = np.quantile(sum(_resampled(difference_KG, rng, draws) for difference_KG in differences) / total, (0.025, 0.975))
    ours, theirs = (np.concatenate([rows[side] for rows in flat]) for side in (0, 1))
    trainings = max(len(matrix) for matrix in pairs)  # their goals are the same: as many pairs as one training has count as independent
    table = (ours & theirs, ours & ~theirs, ~ours & theirs, ~ours & ~theirs)
    least = paired_interval(*(float(entry.sum()) / trainings for entry in table))
    low, high = min(low, least[0]), max(high, least[1])
    return Comparison(
        difference=float(sum(d.sum() for d in differences) / total), low=float(low), high=float(high),
        wins=won.wins, losses=won.losses, pairs=total, p_value=won.p_value,
    )  # fmt: skip


def pooled_interval(outcomes: Outcomes, *, seed: int = 0, draws: int = _DRAWS) -> tuple[float, float]:
    """95 % interval of a success rate over training seeds, then goals; goals are drawn alike for all seeds.

    Where all succeed a bootstrap has no width: the interval is no narrower than Wilson's for one training of the same rate.
    """
    matrix_KG = np.stack([np.asarray(row, dtype=float) for row in outcomes.values()])
    low, high = np.quantile(_resampled(matrix_KG, np.random.default_rng(seed), draws) / matrix_KG.size, (0.025, 0.975))
    least, most = wilson_interval(round(float(matrix_KG.mean()) * matrix_KG.shape[1]), matrix_KG.shape[1])
    return min(float(low), least), max(float(high), most)


def _resampled(values_KG: NDArray[np.float64], rng: np.random.Generator, draws: int) -> NDArray[np.float64]:
    """Sums [D] over resampled training seeds and goals, which are drawn alike for all seeds."""
    seeds_DK, goals_DG = (rng.multinomial(size, np.full(size, 1 / size), size=draws) for size in values_KG.shape)
    sums: NDArray[np.float64] = ((seeds_DK @ values_KG) * goals_DG).sum(axis=1)
    return sums


def _paired(first: Outcomes, second: Outcomes) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Rows of outcomes side by side, one pair of rows a training seed, cut to the goals that both pursued."""
    if None in first:
        seeds = [(None, key) for key in second]
    elif None in second:
        seeds = [(key, None) for key in first]  # type: ignore[misc]
    else:
        seeds = [(key, key) for key in first if key in second]  # type: ignore[misc]
    rows = []
    for ours, theirs in seeds:
        num = min(len(first[ours]), len(second[theirs]))
        rows.append((np.asarray(first[ours][:num], dtype=bool), np.asarray(second[theirs][:num], dtype=bool)))
    shortest = min((len(a) for a, _ in rows), default=0)
    if shortest == 0:
        raise ValueError("no training seed, or no goal, in common")
    return [(a[:shortest], b[:shortest]) for a, b in rows]
