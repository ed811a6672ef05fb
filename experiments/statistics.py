"""The arithmetic of an honest table: intervals for rates, percentiles, a paired test.

Sources: E. B. Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA 22; R. G. Newcombe (1998),
"Two-sided confidence intervals for the single proportion", Statistics in Medicine 17; Q. McNemar (1947), Psychometrika 12.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""Quantile 0.975 of the normal distribution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """A success rate and its 95 % confidence interval."""

    successes: int
    trials: int
    rate: float
    low: float
    high: float

    @classmethod
    def of(cls, outcomes: Sequence[bool]) -> Rate:
        """Counts outcomes; at least one is needed."""
        successes, trials = sum(map(bool, outcomes)), len(outcomes)
        low, high = wilson_interval(successes, trials)
        return cls(successes=successes, trials=trials, rate=successes / trials, low=low, high=high)


def wilson_interval(successes: float, trials: float, *, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval without continuity correction; Newcombe's method 3.

    Unlike rate +- z * sigma it is sensible at 0 % and 100 %, where good planners live.

    Args:
        successes: number of successes; a mean of several counts need not be whole.
        trials: number of trials, at least 1.
        z: normal quantile of the confidence wanted.

    Raises:
        ValueError: successes outside 0..trials, or no trial.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials: successes must lie in 0..trials and trials must be at least 1")
    p, z2 = successes / trials, z * z
    centre = p + z2 / (2 * trials)
    spread = z * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials * trials))
    scale = 1 + z2 / trials
    # Rounding must not push the interval past its own estimate at the two ends, where it is exact.
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == trials else (centre + spread) / scale
    return low, high


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Percentile with linear interpolation; infinities (episodes that failed) sort last and do not turn into NaN.

    Args:
        values: any order; infinities allowed.
        percent: 0 to 100.

    Returns:
        None when there are no values.
    """
    if not values:
        return None
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below, part = int(position), position - int(position)
    if part == 0 or ordered[below] == ordered[below + 1]:
        return ordered[below]
    return ordered[below] + part * (ordered[below + 1] - ordered[below])


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedComparison:
    """How two methods did on the same goals from the same seeds."""

    wins: int
    """Goals that only the first method reached."""
    losses: int
    """Goals that only the second method reached."""
    ties: int
    """Goals that both or neither reached."""
    p_value: float
    """Exact two-sided McNemar test: chance of a split at least this uneven were the methods equally good."""


def compare_paired(first: Sequence[bool], second: Sequence[bool]) -> PairedComparison:
    """Exact McNemar test on paired outcomes."""
    if len(first) != len(second):
        raise ValueError(f"paired outcomes differ in number: {len(first)} and {len(second)}")
    wins = sum(a and not b for a, b in zip(first, second, strict=True))
    losses = sum(b and not a for a, b in zip(first, second, strict=True))
    uneven = wins + losses
    tail = sum(math.comb(uneven, k) for k in range(min(wins, losses) + 1))
    p_value = min(1.0, 2 * tail / 2**uneven)  # integers divide exactly, however long
    return PairedComparison(wins=wins, losses=losses, ties=len(first) - uneven, p_value=p_value)


def paired_interval(both: float, first: float, second: float, neither: float, *, z: float = Z_95) -> tuple[float, float]:
    """Interval of the difference of two paired rates, first minus second: Newcombe's method 10, which squares and adds Wilson's intervals.

    Source: R. G. Newcombe (1998), "Improved confidence intervals for the difference between binomial proportions based on paired data",
    Statistics in Medicine 17, pages 2635 to 2650. Unlike a bootstrap, it has a width where all pairs agree.

    Args:
        both: pairs in which both succeeded; means of several counts need not be whole.
        first: only the first.
        second: only the second.
        neither: none.
        z: normal quantile of the confidence wanted.
    """
    trials = both + first + second + neither
    rates = ((both + first) / trials, (both + second) / trials)
    (low_1, high_1), (low_2, high_2) = (wilson_interval(rate * trials, trials, z=z) for rate in rates)
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    excess = both * neither - first * second
    if excess > 0:
        excess = max(excess - trials / 2, 0.0)
    correlation = excess / math.sqrt(margins) if margins > 0 else 0.0

    def width(ours: float, theirs: float) -> float:
        return math.sqrt(max(0.0, ours**2 - 2 * correlation * ours * theirs + theirs**2))

    difference = rates[0] - rates[1]
    return difference - width(rates[0] - low_1, high_2 - rates[1]), difference + width(high_1 - rates[0], rates[1] - low_2)


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's rank correlation; None for fewer than three pairs or a constant."""
    if len(pairs) < 3:
        return None
    ranks = [_ranks([pair[axis] for pair in pairs]) for axis in (0, 1)]
    mean = (len(pairs) + 1) / 2
    covariance = sum((a - mean) * (b - mean) for a, b in zip(*ranks, strict=True))
    spread = math.prod(math.sqrt(sum((r - mean) ** 2 for r in rank)) for rank in ranks)
    return covariance / spread if spread else None


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    begin = 0
    while begin < len(order):
        end = begin
        while end + 1 < len(order) and values[order[end + 1]] == values[order[begin]]:
            end += 1
        for place in order[begin : end + 1]:
            ranks[place] = (begin + end) / 2 + 1  # ties share the mean of their ranks
        begin = end + 1
    return ranks
