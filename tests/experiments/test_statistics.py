"""Intervals and tests give the figures of the literature, and behave where formulas usually break."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goalward.experiments.statistics import Rate, compare_paired, percentile, rank_correlation, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe (1998), table I, method 3 (Wilson without continuity correction)
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # Brown, Cai, DasGupta (2001) and common tables
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0000),
        (190, 200, 0.9104, 0.9726),
    ],
)
def test_wilson_interval_has_the_published_values(successes: int, trials: int, low: float, high: float) -> None:
    found = wilson_interval(successes, trials)
    assert found == pytest.approx((low, high), abs=6e-5)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_its_rate_and_stays_in_0_1(case: tuple[int, int]) -> None:
    successes, trials = case
    low, high = wilson_interval(successes, trials)
    assert 0.0 <= low <= successes / trials <= high <= 1.0
    mirrored = wilson_interval(trials - successes, trials)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


@given(st.integers(1, 500), st.integers(2, 20))
def test_more_trials_of_the_same_rate_narrow_the_interval(successes: int, factor: int) -> None:
    one, many = wilson_interval(successes, 2 * successes), wilson_interval(factor * successes, 2 * factor * successes)
    assert many[1] - many[0] < one[1] - one[0]


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(successes, trials)


def test_rate_counts() -> None:
    rate = Rate.of([True, False, True, True])
    assert (rate.successes, rate.trials, rate.rate) == (3, 4, 0.75)
    assert (rate.low, rate.high) == wilson_interval(3, 4)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, None),
        ([3.0], 99, 3.0),
        ([1.0, 2.0, 3.0, 4.0], 50, 2.5),
        ([4.0, 1.0, 3.0, 2.0], 0, 1.0),
        ([4.0, 1.0, 3.0, 2.0], 100, 4.0),
        ([0.0, 10.0], 90, 9.0),
        ([1.0, math.inf], 50, math.inf),
        ([1.0, 2.0, math.inf], 50, 2.0),
        ([math.inf, math.inf], 50, math.inf),
    ],
)
def test_percentile(values: list[float], percent: float, expected: float | None) -> None:
    assert percentile(values, percent) == expected


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 100))
def test_percentile_lies_between_the_extremes(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert found is not None
    assert min(values) - 1e-6 <= found <= max(values) + 1e-6


def test_paired_test_counts_only_goals_where_the_methods_differ() -> None:
    # 10 wins, 2 losses: two-sided exact binomial, 2 * (1 + 12 + 66) / 4096.
    first = [True] * 10 + [False] * 2 + [True] * 5 + [False] * 3
    second = [False] * 10 + [True] * 2 + [True] * 5 + [False] * 3
    found = compare_paired(first, second)
    assert (found.wins, found.losses, found.ties) == (10, 2, 8)
    assert found.p_value == pytest.approx(158 / 4096)
    assert compare_paired(second, first).p_value == found.p_value


def test_paired_test_of_equal_methods_says_nothing() -> None:
    assert compare_paired([True, False], [True, False]).p_value == 1.0


def test_paired_test_of_very_many_goals_neither_overflows_nor_underflows_badly() -> None:
    found = compare_paired([True] * 3000, [False] * 3000)
    assert 0.0 <= found.p_value < 1e-300
    assert compare_paired([True, False] * 1500, [False, True] * 1500).p_value == 1.0


def test_paired_outcomes_must_belong_together() -> None:
    with pytest.raises(ValueError, match="differ in number"):
        compare_paired([True], [True, False])


def test_rank_correlation() -> None:
    assert rank_correlation([(1, 1), (2, 4), (3, 9), (4, 16)]) == pytest.approx(1.0)
    assert rank_correlation([(1, 9), (2, 4), (3, 1)]) == pytest.approx(-1.0)
    # Hand-computed with tied ranks: x ranks 1, 2.5, 2.5, 4; y ranks 1..4 -> 4.5 / (sqrt(4.5) * sqrt(5)).
    assert rank_correlation([(1, 1), (2, 2), (2, 3), (3, 4)]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert rank_correlation([(1, 1), (1, 2), (1, 3)]) is None
    assert rank_correlation([(1, 1), (2, 2)]) is None
