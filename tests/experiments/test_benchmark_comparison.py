"""Paired comparisons: what must hold of differences, their intervals, and of where failures come from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goalward.experiments.benchmark.attribution import attributions
from goalward.experiments.benchmark.cells import filled
from goalward.experiments.benchmark.comparison import compare, pooled_interval
from goalward.experiments.benchmark.spec import BenchmarkSpec, CellGroup, MethodSpec
from goalward.experiments.statistics import paired_interval, wilson_interval

counts = st.integers(0, 60)


@given(counts, counts, counts, counts)
def test_newcombes_interval_contains_the_difference_and_changes_sides(both: int, first: int, second: int, neither: int) -> None:
    trials = both + first + second + neither
    if trials == 0:
        return
    low, high = paired_interval(both, first, second, neither)
    assert -1 - 1e-9 <= low <= (first - second) / trials + 1e-9
    assert (first - second) / trials - 1e-9 <= high <= 1 + 1e-9
    assert paired_interval(both, second, first, neither) == pytest.approx((-high, -low), abs=1e-9)


def test_all_pairs_agreeing_leaves_room_for_doubt() -> None:
    low, high = paired_interval(200, 0, 0, 0)
    assert low == pytest.approx(wilson_interval(200, 200)[0] - 1)
    assert high == -low


@pytest.mark.parametrize("rates", [(0.9, 0.8), (0.5, 0.5), (0.97, 0.95)])
def test_newcombes_interval_covers(rates: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(600):
        hard = rng.normal(size=100)  # goals that are hard for one are hard for the other
        a, b = (hard + rng.normal(size=100) < np.sqrt(2) * _quantile(rate) for rate in rates)
        low, high = paired_interval((a & b).sum(), (a & ~b).sum(), (~a & b).sum(), (~a & ~b).sum())
        hits += low <= rates[0] - rates[1] <= high
    assert hits / 600 > 0.93


def _quantile(rate: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(rate)


outcomes = st.lists(st.booleans(), min_size=3, max_size=12)


@settings(max_examples=40, deadline=None)
@given(outcomes, outcomes)
def test_a_comparison_changes_sign_with_its_sides(first: list[bool], second: list[bool]) -> None:
    ours, theirs = compare([({0: first}, {0: second})], draws=500), compare([({0: second}, {0: first})], draws=500)
    assert ours.difference == pytest.approx(-theirs.difference)
    assert (ours.low, ours.high) == pytest.approx((-theirs.high, -theirs.low), abs=0.05)
    assert (ours.wins, ours.losses, ours.p_value) == (theirs.losses, theirs.wins, theirs.p_value)
    assert ours.low <= ours.difference <= ours.high
    assert ours.pairs == min(len(first), len(second))


def test_seeds_are_paired_with_seeds_and_the_fixed_method_with_all() -> None:
    ours, theirs = {0: [True, True], 1: [True, False], 7: [False, False]}, {0: [True, False], 1: [False, False]}
    assert compare([(ours, theirs)]).pairs == 4
    assert compare([(ours, {None: [True, False]})]).pairs == 6
    assert compare([({None: [True, False]}, theirs)]).wins == 1
    with pytest.raises(ValueError, match="in common"):
        compare([({5: [True]}, theirs)])
    with pytest.raises(ValueError, match="nothing"):
        compare([])


def test_trainings_that_disagree_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    alike = {seed: list(rng.random(100) < 0.7) for seed in range(3)}
    apart = {seed: list(rng.random(100) < rate) for seed, rate in enumerate((0.4, 0.7, 1.0))}
    widths = [high - low for low, high in (pooled_interval(alike), pooled_interval(apart))]
    assert widths[1] > 2 * widths[0]


def test_the_bootstrap_of_one_training_agrees_with_theory() -> None:
    rng = np.random.default_rng(1)
    row = list(rng.random(400) < 0.6)
    low, high = pooled_interval({0: row})
    rate = float(np.mean(row))
    assert high - low == pytest.approx(2 * 1.96 * (rate * (1 - rate) / 400) ** 0.5, rel=0.08)


def test_many_trainings_without_a_failure_are_not_certain() -> None:
    low, high = pooled_interval({seed: [True] * 200 for seed in range(3)})
    assert (low, high) == pytest.approx(wilson_interval(200, 200))
    assert low < 0.99


SWAPS = {
    "planner": MethodSpec(kind="planner", weights="{env}"),
    "true": MethodSpec(kind="planner", weights="{env}", dynamics="true", num_samples=32),
    "probe": MethodSpec(kind="planner", weights="{env}", dynamics="true", objective="probe"),
    "state": MethodSpec(kind="planner", weights="{env}", dynamics="true", objective="state"),
    "oracle": MethodSpec(kind="oracle"),
}


def spec_of(methods: dict[str, MethodSpec], against: str = "planner") -> BenchmarkSpec:
    group = CellGroup(envs=("reach",), splits=("test",), methods=tuple(methods), episodes=1)
    return BenchmarkSpec(name="x", seed=0, against=against, methods=methods, cells=(group,))


def test_what_is_lost_adds_up() -> None:
    rates = {("reach", "test", name): rate for name, rate in zip(SWAPS, (0.7, 0.8, 0.95, 0.9, 0.99), strict=True)}
    (found,) = attributions(spec_of(SWAPS), rates)
    assert found["success"] + sum(found["lost"].values()) == pytest.approx(1)
    assert found["lost"] == pytest.approx({"task": 0.01, "planner": 0.09, "perception": -0.05, "objective": 0.15, "model": 0.1})


def test_swaps_of_a_small_budget_are_compared_with_the_planner_of_that_budget() -> None:
    small = {"num_samples": 8, "num_iterations": 2}
    methods = {k: replace(v, **small) if k not in ("planner", "oracle") else v for k, v in SWAPS.items()}
    methods["small planner"] = replace(SWAPS["planner"], **small)
    rates = {("reach", "test", name): 1.0 for name in methods} | {("reach", "test", "small planner"): 0.6}
    (found,) = attributions(spec_of(methods), rates)
    assert found["success"] == 0.6
    assert found["lost"]["model"] == pytest.approx(0.4)


def test_what_is_evaluated_is_never_mistaken_for_another_budget() -> None:
    methods = {"planner, hasty": replace(SWAPS["planner"], execute_steps=8)} | SWAPS
    methods |= {"true, hasty": replace(SWAPS["true"], execute_steps=8)}
    rates = {("reach", "test", name): 0.9 for name in methods} | {("reach", "test", "planner, hasty"): 0.1}
    (found,) = attributions(spec_of(methods), rates)
    assert found["success"] == 0.9


def test_nothing_is_attributed_without_all_swaps() -> None:
    rates = {("reach", "test", name): 1.0 for name in SWAPS}
    assert not attributions(spec_of({k: v for k, v in SWAPS.items() if k != "probe"}), rates)
    assert not attributions(spec_of(SWAPS), {k: v for k, v in rates.items() if k[2] != "oracle"})
    assert not attributions(spec_of(SWAPS, against="oracle"), rates)


def test_names_of_weights_are_filled_in() -> None:
    method = filled(MethodSpec(kind="planner", weights="a/{env}-{seed}", proposals="p-{env}"), env="push", seed=2)
    assert (method.weights, method.proposals) == ("a/push-2", "p-push")
