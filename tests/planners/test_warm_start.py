"""Warm starts follow the clock, not the index."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from goalward import UserError
from goalward.planners.base import PlannerState
from goalward.planners.methods.warm_start import shifted, split_state, stack_states

INF = float("inf")
PREVIOUS = torch.tensor([[[1.0], [2.0], [4.0], [8.0]]])
COLD = torch.full((1, 4, 1), -1.0)


def shift(worlds: SimpleNamespace, elapsed_s: float, *, horizon: int = 4, then_s: float = 10.0) -> list[float]:
    world = worlds.direct_world(horizon, 1)
    problem = worlds.make_problem(world, torch.zeros(1, 1), torch.zeros(1, 1), horizon=horizon, start_time_s=(then_s + elapsed_s,))
    state = PlannerState(seeds=(0,), steps=(1,), actions_BHA=PREVIOUS, start_time_s=(then_s,))
    actions, warm = shifted(state, problem, COLD[:, :1].expand(1, horizon, 1))
    assert bool(warm) == (actions.flatten().tolist() != [-1.0] * horizon)
    return actions.flatten().tolist()


@pytest.mark.parametrize(
    ("elapsed_s", "expected"),
    [
        (0.0, [1, 2, 4, 8]),
        (0.25, [2, 4, 8, 8]),
        (0.5, [4, 8, 8, 8]),
        (0.75, [8, 8, 8, 8]),
        (0.125, [1.5, 3, 6, 8]),
        (0.25 + 1e-5, [2, 4, 8, 8]),
        (0.25 - 1e-5, [2, 4, 8, 8]),
        (1.0, [-1] * 4),
        (99.0, [-1] * 4),
        (-0.5, [-1] * 4),
        (float("nan"), [-1] * 4),
    ],
)
def test_a_plan_is_shifted_by_the_time_elapsed(worlds: SimpleNamespace, elapsed_s: float, expected: list[float]) -> None:
    assert shift(worlds, elapsed_s) == pytest.approx(expected)


def test_whole_steps_are_exact_even_late_in_the_day(worlds: SimpleNamespace) -> None:
    assert shift(worlds, 0.25, then_s=1.7e9) == [2, 4, 8, 8]


def test_the_horizon_may_change_between_plans(worlds: SimpleNamespace) -> None:
    assert shift(worlds, 0.25, horizon=2) == [2, 4]
    assert shift(worlds, 0.25, horizon=6) == [2, 4, 8, 8, 8, 8]


def test_a_cold_state_starts_cold(worlds: SimpleNamespace) -> None:
    problem = worlds.make_problem(worlds.direct_world(4, 1), torch.zeros(1, 1), torch.zeros(1, 1))
    state = PlannerState(seeds=(0,), steps=(1,), actions_BHA=PREVIOUS, start_time_s=(0.0,))
    for cold in (PlannerState.initial([0]), state.cold()):
        actions, warm = shifted(cold, problem, COLD)
        assert torch.equal(actions, COLD)
        assert warm.tolist() == [False]
    assert state.cold().steps == (1,), "random numbers go on"


def test_an_elapsed_time_of_each_problem_counts_for_itself(worlds: SimpleNamespace) -> None:
    problem = worlds.make_problem(worlds.direct_world(4, 1), torch.zeros(3, 1), torch.zeros(3, 1), start_time_s=(0.25, 5.0, 7.5))
    state = PlannerState(seeds=(0, 1, 2), steps=(1, 1, 1), actions_BHA=PREVIOUS.expand(3, 4, 1), start_time_s=(0.0, 5.0, -INF))
    actions, warm = shifted(state, problem, COLD.expand(3, 4, 1))
    assert actions.squeeze(-1).tolist() == [[2, 4, 8, 8], [1, 2, 4, 8], [-1] * 4]
    assert warm.tolist() == [True, True, False]


def test_states_stack_and_split(worlds: SimpleNamespace) -> None:
    warm = PlannerState(seeds=(7,), steps=(3,), actions_BHA=PREVIOUS, start_time_s=(1.0,))
    cold = PlannerState.initial([8])
    both = stack_states([cold, warm])
    assert (both.seeds, both.steps, both.start_time_s) == ((8, 7), (0, 3), (-INF, 1.0))
    first, second = split_state(both)
    assert (first.seeds, first.start_time_s) == ((8,), (-INF,))
    assert second.actions_BHA is not None
    assert torch.equal(second.actions_BHA, PREVIOUS)
    assert stack_states([cold, cold]).actions_BHA is None
    assert [state.actions_BHA for state in split_state(stack_states([cold, cold]))] == [None, None]


def test_a_state_for_another_number_of_problems_is_refused(worlds: SimpleNamespace) -> None:
    problem = worlds.make_problem(worlds.direct_world(4, 1), torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(UserError, match="made for 1 problems, given 2"):
        shifted(PlannerState.initial([0]), problem, COLD.expand(2, 4, 1))


@pytest.mark.parametrize(
    ("fields", "says"), [({"horizon": 0}, "horizon: 0"), ({"dt_s": 0.0}, "dt_s: 0.0"), ({"start_time_s": ()}, "start_time_s")]
)
def test_impossible_problems_are_refused(worlds: SimpleNamespace, fields, says: str) -> None:
    problem = worlds.make_problem(worlds.direct_world(4, 1), torch.zeros(1, 1), torch.zeros(1, 1))
    with pytest.raises(UserError, match=says):
        replace(problem, **fields)
