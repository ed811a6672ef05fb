"""Plans described by knots in absolute time: the splines, and every planner with them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from goalward import UserError
from goalward.planners.base import PlannerState
from goalward.planners.methods.knots import Knots
from goalward.planners.registry import PLANNERS, make_planner

DT_S = 0.25
ORDERS = ("zero", "linear", "cubic")
every_planner = pytest.mark.parametrize("name", sorted(PLANNERS))
times = st.floats(-50, 50, allow_nan=False)
orders = st.sampled_from(ORDERS)


def actions(knots: Knots, values_K: torch.Tensor, start_s: float, horizon: int) -> torch.Tensor:
    return knots.weights_BHK([start_s], horizon, DT_S)[0] @ values_K


@given(order=orders, spacing_s=st.floats(0.05, 3.0), start_s=times, horizon=st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_constant_knots_give_constant_actions_and_rows_sum_to_one(order, spacing_s: float, start_s: float, horizon: int) -> None:
    knots = Knots(spacing_s=spacing_s, order=order)
    weights_BHK = knots.weights_BHK([start_s], horizon, DT_S)
    assert weights_BHK.shape == (1, horizon, knots.num(horizon, DT_S))
    assert torch.allclose(weights_BHK.sum(-1), torch.ones(1, horizon), atol=1e-5)


@given(spacing_s=st.floats(0.1, 3.0), start_s=times, horizon=st.integers(1, 12), slope=st.floats(-2, 2))
@settings(max_examples=100, deadline=None)
def test_a_ramp_is_reproduced_by_linear_knots_and_by_cubic_ones_away_from_the_ends(
    spacing_s: float, start_s: float, horizon: int, slope: float
) -> None:
    time_s = start_s + np.arange(horizon) * DT_S
    for order in ("linear", "cubic"):
        knots = Knots(spacing_s=spacing_s, order=order)
        grid_s = (knots.first(start_s) + np.arange(knots.num(horizon, DT_S))) * spacing_s
        wanted = torch.from_numpy(slope * (time_s - start_s)).float()
        made = actions(knots, torch.from_numpy(slope * (grid_s - start_s)).float(), start_s, horizon)
        inside = (time_s >= grid_s[1] + 0.01) & (time_s <= grid_s[-2] - 0.01) if order == "cubic" else np.full(horizon, True)
        assert torch.allclose(made[inside], wanted[inside], atol=1e-2 * spacing_s + 1e-4), order


@pytest.mark.parametrize("order", ORDERS)
def test_splines_pass_through_their_knots(order) -> None:
    knots = Knots(spacing_s=0.5, order=order)
    values_K = torch.tensor([1.0, -2.0, 3.0, 0.5, 7.0])[: knots.num(6, DT_S)]
    made = actions(knots, values_K, 12.0, 6)
    assert made[::2].tolist() == pytest.approx(values_K[:3].tolist())
    between = {"zero": values_K[0], "linear": values_K[:2].mean()}
    if order in between:
        assert float(made[1]) == pytest.approx(float(between[order]))


def test_cubic_knots_have_no_corners() -> None:
    knots = Knots(spacing_s=1.0, order="cubic")
    fine = knots.weights_BHK([5.0], 300, 0.01)[0] @ torch.tensor([0.0, 1.0, -1.0, 2.0, 0.0])[: knots.num(300, 0.01)]
    velocity = fine.diff() / 0.01
    assert float(velocity.diff().abs().max()) < 0.15, "a linear spline jumps by 2 to 3 there"


@given(order=orders, spacing=st.integers(1, 4), start=st.integers(-20, 20), steps=st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_a_shifted_plan_repeats_the_old_one_exactly_where_they_overlap(order, spacing: int, start: int, steps: int) -> None:
    """Knots stand at absolute times: whatever time has passed, those ahead are the same knots."""
    horizon, knots = 8, Knots(spacing_s=spacing * DT_S, order=order)
    num = knots.num(horizon, DT_S)
    values_K = torch.randn(num, generator=torch.Generator().manual_seed(start + 100))
    then_s, now_s = start * DT_S, (start + steps) * DT_S
    passed = knots.first(now_s) - knots.first(then_s)
    shifted_K = values_K[torch.arange(passed, passed + num).clamp(max=num - 1)]
    old, new = actions(knots, values_K, then_s, horizon), actions(knots, shifted_K, now_s, horizon)
    overlap = horizon - steps - (2 * spacing if order == "cubic" else 0)  # a cubic's velocity looks one knot further
    if order == "cubic" and passed:
        return  # and one knot back, which the new plan no longer has
    assert torch.allclose(old[steps : steps + max(overlap, 0)], new[: max(overlap, 0)], atol=1e-5)


@every_planner
def test_zero_order_knots_at_every_step_change_nothing(name: str, worlds: SimpleNamespace) -> None:
    world = worlds.random_world(0)
    problem = worlds.make_problem(world, torch.ones(2, 3), torch.zeros(2, 3), start_time_s=(0.0, 1.25))
    if name == "grasp":
        return  # draws noise for its states in pieces of the size of a plan
    plain, _ = make_planner(name).plan(problem, PlannerState.initial([0, 1]))
    knotted, _ = make_planner(name).plan(replace(problem, knots=Knots(spacing_s=DT_S, order="zero")), PlannerState.initial([0, 1]))
    assert torch.equal(plain.actions_BHA, knotted.actions_BHA)
    assert torch.equal(plain.best_cost_BI, knotted.best_cost_BI)


@every_planner
@pytest.mark.parametrize("order", ORDERS)
def test_plans_lie_on_the_spline_and_warm_starts_are_never_worse(name: str, order, worlds: SimpleNamespace) -> None:
    world, knots = worlds.random_world(1), Knots(spacing_s=2 * DT_S, order=order)
    problem = replace(worlds.make_problem(world, torch.ones(2, 3), torch.zeros(2, 3), horizon=6), knots=knots)
    planner = make_planner(name)
    cold, state = planner.plan(problem, PlannerState.initial([0, 1]))
    assert state.actions_BHA is not None
    assert state.actions_BHA.shape == (2, knots.num(6, DT_S), 2)
    on_spline = knots.weights_BHK([0.0, 0.0], 6, DT_S) @ state.actions_BHA
    assert torch.allclose(on_spline.clamp(-1, 1), cold.actions_BHA, atol=1e-5)
    if order == "zero":
        assert torch.equal(cold.actions_BHA[:, ::2], cold.actions_BHA[:, 1::2])
    warm, _ = planner.plan(problem, state)
    assert bool((warm.best_cost_BI[:, 0] <= cold.cost_B).all())


@every_planner
def test_results_with_knots_are_bitwise_independent_of_the_batch(name: str, worlds: SimpleNamespace) -> None:
    world, knots = worlds.random_world(2), Knots(spacing_s=0.6, order="cubic")
    rng = torch.Generator().manual_seed(0)
    z0, goal = torch.randn(3, 3, generator=rng), torch.randn(3, 3, generator=rng)
    problem = replace(worlds.make_problem(world, z0, goal, horizon=5, start_time_s=(0.0, 0.3, 7.1)), knots=knots)
    together, _ = make_planner(name).plan(problem, PlannerState.initial([5, 6, 7]))
    for b in range(3):
        alone, _ = make_planner(name).plan(worlds.pick(problem, [b]), PlannerState.initial([5 + b]))
        assert torch.equal(alone.actions_BHA, together.actions_BHA[b : b + 1])


def test_gradients_pass_through_the_spline(worlds: SimpleNamespace) -> None:
    """With few knots, Adam finds the best spline: as good as a search over the knots' matrix in closed form."""
    world = worlds.direct_world(6, 1, low=-4.0, high=4.0)
    target_H = torch.tensor([0.0, 0.3, 0.5, 0.2, -0.3, -0.6])
    knots = Knots(spacing_s=3 * DT_S, order="linear")

    def objective(outcome):
        return (outcome.actions_BSHA[..., 0] - target_H).square().mean(-1)

    problem = worlds.make_problem(world, torch.zeros(1, 1), torch.zeros(1, 1), horizon=6, objective=objective)
    config = replace(make_planner("adam").config, num_iterations=300, learning_rate=0.05, decay=0.985)  # type: ignore[attr-defined]
    plan, _ = make_planner("adam", config).plan(replace(problem, knots=knots), PlannerState.initial([0]))
    matrix_HK = knots.weights_BHK([0.0], 6, DT_S)[0]
    best_K = torch.linalg.lstsq(matrix_HK, target_H[:, None]).solution
    optimum = float((matrix_HK @ best_K - target_H[:, None]).square().mean())
    assert float(plan.cost_B) <= optimum * 1.001 + 1e-7


@pytest.mark.parametrize(
    ("options", "says"), [({"spacing_s": 0.0}, "spacing_s: 0.0"), ({"spacing_s": 1.0, "order": "spline"}, "order: 'spline'")]
)
def test_meaningless_knots_are_refused(options, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Knots(**options)
