"""What sets the planners apart; what they share is in test_contract.py and test_optima.py."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from goalward import UserError
from goalward.planners.actions import Box
from goalward.planners.base import PlannerState
from goalward.planners.methods.cem import CEM, CEMConfig
from goalward.planners.methods.cma_es import CMAES, CMAESConfig, told_costs
from goalward.planners.methods.evaluation import Evaluator
from goalward.planners.methods.grasp import GRASP, GRASPConfig
from goalward.planners.methods.hybrid import Hybrid, HybridConfig
from goalward.planners.methods.icem import ICEM, ICEMConfig
from goalward.planners.methods.knots import Knots
from goalward.planners.methods.mppi import MPPI, MPPIConfig, weights
from goalward.planners.methods.random_shooting import RandomShooting, RandomShootingConfig
from goalward.planners.methods.screening import Screening
from goalward.planners.objectives import Outcome

INF = float("inf")


def problem_with(worlds: SimpleNamespace, objective: Any = None, *, horizon: int = 3, num_actions: int = 2) -> tuple[Any, Any]:
    world = worlds.direct_world(horizon, num_actions)
    origin = torch.zeros(1, num_actions)
    return world, worlds.make_problem(world, origin, origin, horizon=horizon, objective=objective)


def bowl(outcome: Outcome) -> Tensor:
    return (outcome.actions_BSHA - 0.3).square().sum((-1, -2))


def test_random_shooting_draws_evenly_from_the_bounds(worlds: SimpleNamespace) -> None:
    world, problem = problem_with(worlds)
    problem = replace(problem, action_set=Box.of([-1.0, 0.0], [1.0, 0.5]))
    RandomShooting(RandomShootingConfig(num_samples=4000, num_iterations=1)).plan(problem, PlannerState.initial([0]))
    drawn = world.seen[-1][0, 1:]
    for entry, (low, high) in enumerate([(-1.0, 1.0), (0.0, 0.5)]):
        shares = torch.histc(drawn[..., entry], bins=10, min=low, max=high) / drawn[..., entry].numel()
        assert shares.tolist() == pytest.approx([0.1] * 10, abs=0.015)


def test_icem_draws_fewer_candidates_every_time_but_enough_for_its_elites(worlds: SimpleNamespace) -> None:
    world, problem = problem_with(worlds, bowl)
    ICEM(ICEMConfig(num_samples=40, num_iterations=6, num_elites=8, decay=1.25)).plan(problem, PlannerState.initial([0]))
    assert [actions.shape[1] for actions in world.seen] == [40, 32, 26, 20, 16, 16]


def test_icem_carries_its_elites_into_the_next_step(worlds: SimpleNamespace) -> None:
    world, problem = problem_with(worlds, bowl)
    planner = ICEM(ICEMConfig(num_samples=20, num_iterations=3, num_elites=6, num_kept_elites=3))
    _, state = planner.plan(problem, PlannerState.initial([0]))
    assert state.others_BEHA is not None
    assert state.others_BEHA.shape == (1, 3, 3, 2)
    world.seen.clear()
    later = replace(problem, start_time_s=(worlds.DT_S,))
    planner.plan(later, state)
    wanted = torch.cat([state.others_BEHA[:, :, 1:], state.others_BEHA[:, :, -1:]], dim=2)
    assert torch.equal(world.seen[0][:, -3:], wanted)
    world.seen.clear()
    planner.plan(later, state.cold())
    assert not torch.equal(world.seen[0][:, -3:], wanted), "a new goal forgets them"


def test_icem_noise_is_smoother_than_white(worlds: SimpleNamespace) -> None:
    def lag_one(exponent: float) -> float:
        world, problem = problem_with(worlds, horizon=8)
        config = ICEMConfig(num_samples=4000, num_iterations=1, noise_exponent=exponent, init_std=0.1)
        ICEM(config).plan(problem, PlannerState.initial([0]))
        drawn = world.seen[0][0, 2:]
        return float((drawn[:, 1:] * drawn[:, :-1]).mean() / drawn.square().mean())

    assert abs(lag_one(0.0)) < 0.02
    assert lag_one(2.0) > 0.4


costs = st.lists(st.one_of(st.floats(allow_nan=False, allow_infinity=False, width=32), st.just(INF)), min_size=1, max_size=12)


@given(values=costs, temperature=st.floats(1e-3, 100))
@settings(max_examples=200, deadline=None)
def test_mppi_weights_are_a_distribution_over_the_finite_candidates(values: list[float], temperature: float) -> None:
    cost_BS = torch.tensor([values])
    share_BS = weights(cost_BS, torch.isfinite(cost_BS), temperature)
    assert bool(torch.isfinite(share_BS).all() & (share_BS >= 0).all())
    assert bool((share_BS[~torch.isfinite(cost_BS)] == 0).all())
    assert float(share_BS.sum()) == pytest.approx(1.0 if np.isfinite(values).any() else 0.0, abs=1e-5)
    if np.isfinite(values).any():
        assert float(share_BS[0, int(cost_BS.argmin())]) == float(share_BS.max()), "the cheapest counts most"


def test_mppi_weights_are_the_formula() -> None:
    cost_BS = torch.tensor([[1.0, 2.0, 4.0]])
    std = np.std([1.0, 2.0, 4.0])
    raw = np.exp(-(np.array([1.0, 2.0, 4.0]) - 1.0) / (0.5 * std))
    assert weights(cost_BS, torch.isfinite(cost_BS), 0.5)[0].tolist() == pytest.approx((raw / raw.sum()).tolist(), rel=1e-5)


def test_mppi_with_equal_costs_averages_and_does_not_drift_to_a_bound(worlds: SimpleNamespace) -> None:
    """A peer's bug: under a flat cost the mean ran to a bound."""
    _, problem = problem_with(worlds, lambda outcome: outcome.actions_BSHA[..., 0, 0] * 0.0)
    means = []

    class Watched(MPPI):
        def update(self, *args: Any) -> Any:
            means.append(super().update(*args))
            return means[-1]

    Watched(MPPIConfig(num_samples=500, num_iterations=10)).plan(problem, PlannerState.initial([0]))
    assert float(means[-1].mean_BKA.abs().max()) < 0.1


def test_cma_es_leaves_numpys_global_generator_alone(worlds: SimpleNamespace) -> None:
    _, problem = problem_with(worlds, bowl)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    CMAES().plan(problem, PlannerState.initial([0]))
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_cma_es_learns_a_rotated_valley_better_than_cem(worlds: SimpleNamespace) -> None:
    """What the covariance is for: variables that must move together."""

    def valley(outcome: Outcome) -> Tensor:
        x = outcome.actions_BSHA.flatten(2) - 0.2
        total = x.sum(-1, keepdim=True)
        return 1000 * (x[..., 1:] - x[..., :-1]).square().sum(-1) + total[..., 0].square()

    ours, others = [], []
    for seed in range(5):
        _, problem = problem_with(worlds, valley)
        ours.append(float(CMAES(CMAESConfig(num_samples=20, num_iterations=60)).plan(problem, PlannerState.initial([seed]))[0].cost_B))
        cem = CEM(CEMConfig(num_samples=100, num_iterations=12, num_elites=12, min_std=1e-3))
        others.append(float(cem.plan(problem, PlannerState.initial([seed]))[0].cost_B))
    assert np.median(ours) < 0.2 * np.median(others)


def test_told_costs_put_failures_last_and_penalise_the_way_back() -> None:
    told = told_costs(np.array([3.0, INF, 1.0, 1.0]), np.array([0.0, 0.0, 0.0, 2.0]), 1.0)
    assert told is not None
    assert np.argsort(told)[0] == 2
    assert told.argmax() == 1
    assert told[3] > told[2]
    assert told_costs(np.array([INF, INF]), np.zeros(2), 1.0) is None


def test_everything_frozen_leaves_cma_es_nothing_to_search(worlds: SimpleNamespace) -> None:
    _, problem = problem_with(worlds, bowl)
    problem = replace(problem, action_set=Box.of([0.1, 0.2], [0.1, 0.2]))
    plan, _ = CMAES().plan(problem, PlannerState.initial([0]))
    assert plan.actions_BHA[0, 0].tolist() == pytest.approx([0.1, 0.2])


def test_refined_candidates_never_get_worse(worlds: SimpleNamespace) -> None:
    world = worlds.random_world(1)
    problem = worlds.make_problem(world, torch.ones(1, 3), torch.zeros(1, 3))
    seen = []

    class Watched(Hybrid):
        def update(self, *args: Any) -> Any:
            params = super().update(*args)
            if params.descent is not None:
                seen.append(params.descent.cost_BR)
            return params

    Watched(HybridConfig(num_iterations=30)).plan(problem, PlannerState.initial([0]))
    for before, after in itertools.pairwise(seen[1:]):
        assert bool((after <= before).all())
    assert bool((seen[-1] < seen[1]).all())


def test_a_gradient_that_misleads_costs_nothing(worlds: SimpleNamespace) -> None:
    """The way down is the way up: sampling alone decides."""

    class Reversed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, actions: Tensor) -> Tensor:
            return actions.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return -gradient

    def objective(outcome: Outcome) -> Tensor:
        return (Reversed.apply(outcome.actions_BSHA) - 0.3).square().sum((-1, -2))

    config = HybridConfig(num_iterations=10)
    _, problem = problem_with(worlds, objective)
    misled, _ = Hybrid(config).plan(problem, PlannerState.initial([0]))
    sampled, _ = Hybrid(replace(config, num_iterations=config.num_sampling)).plan(problem, PlannerState.initial([0]))
    assert float(misled.cost_B) <= float(sampled.cost_B)


def test_hybrid_with_iterations_for_sampling_alone_is_cem(worlds: SimpleNamespace) -> None:
    _, problem = problem_with(worlds, bowl)
    hybrid, _ = Hybrid(HybridConfig(num_iterations=2, num_sampling=2, num_kept_elites=4)).plan(problem, PlannerState.initial([0]))
    same = CEMConfig(num_samples=32, num_iterations=2, num_elites=6, num_kept_elites=4)
    cem, _ = CEM(same).plan(problem, PlannerState.initial([0]))
    assert torch.equal(hybrid.actions_BHA, cem.actions_BHA)


def test_grasp_says_what_it_lacks(worlds: SimpleNamespace) -> None:
    _, problem = problem_with(worlds)
    with pytest.raises(UserError, match="z_BTND"):
        GRASP().plan(replace(problem, z_BTND=None), PlannerState.initial([0]))


def test_grasp_states_end_at_the_goal_and_begin_on_the_straight_line(worlds: SimpleNamespace) -> None:
    world = worlds.random_world(0)
    z0, goal = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 2.0, 0.0]])
    problem = worlds.make_problem(world, z0, goal, horizon=4)
    seen = []

    class Watched(GRASP):
        def update(self, *args: Any) -> Any:
            seen.append(super().update(*args))
            return seen[-1]

    config = GRASPConfig(num_starts=2, num_iterations=3, num_parallel=1, state_noise=0.0, state_rate=1e-9)
    Watched(config).plan(problem, PlannerState.initial([0]))
    line = torch.stack([torch.lerp(z0[0], goal[0], part) for part in (0.25, 0.5, 0.75, 1.0)])
    assert torch.allclose(seen[0].states_BSHND[0, 0, :, 0], line, atol=1e-6)
    seen.clear()
    Watched(GRASPConfig(num_starts=2, num_iterations=6)).plan(problem, PlannerState.initial([0]))
    assert torch.equal(seen[-1].states_BSHND[:, :, -1], problem.z_goal_BGND[:, :1].expand(1, 2, -1, -1))


def test_grasp_sees_through_a_long_horizon(worlds: SimpleNamespace) -> None:
    """Thirty steps of a point: found as well as by Adam, which differentiates through the whole chain."""
    world = worlds.PointWorld()
    z0, goal = torch.zeros(1, 3), torch.tensor([[1.5, -1.0, 0.5]])
    problem = worlds.make_problem(world, z0, goal, horizon=30)
    plan, _ = GRASP(GRASPConfig(num_iterations=30, parallel_iterations=10)).plan(problem, PlannerState.initial([0]))
    assert float(plan.cost_B) < 1e-3


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ICEMConfig(decay=0.5), "decay: 0.5"),
        (lambda: MPPIConfig(temperature=0.0), "temperature: 0.0"),
        (lambda: CMAESConfig(num_samples=3), "num_samples: 3"),
        (lambda: HybridConfig(num_refined=9), "num_refined: 9"),
        (lambda: HybridConfig(return_mean=True), "return_mean"),
        (lambda: HybridConfig(shrink=1.0), "shrink: 1.0"),
        (lambda: GRASPConfig(state_rate=float("nan")), "state_rate: nan"),
        (lambda: RandomShootingConfig(num_samples=0), "num_samples: 0"),
    ],
)
def test_meaningless_settings_are_refused(make: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make()


def test_the_evaluator_is_all_a_method_needs_to_price_candidates(worlds: SimpleNamespace) -> None:
    _, problem = problem_with(worlds, bowl)
    evaluate = Evaluator(problem=problem, unit_A=torch.ones(2), spline_BHK=None)
    evaluation = evaluate(torch.full((1, 2, 3, 2), 5.0), gradient=True)
    assert bool((evaluation.actions_BSHA == 1.0).all()), "projected"
    assert evaluation.gradient_BSKA is not None
    assert evaluation.gradient_BSKA[0, 0, 0].tolist() == pytest.approx([1.4, 1.4])


def test_screening_rolls_out_in_full_what_promises_and_the_warm_start(worlds: SimpleNamespace) -> None:
    world = worlds.random_world(0)
    full, coarse, rollout = [], [], world.rollout

    def either(context: Any, actions: Tensor, *, tokens: Any = None, layers: Any = None) -> Tensor:
        (full if tokens is None else coarse).append(actions)
        return rollout(context, actions)

    world.rollout = either
    problem = worlds.make_problem(world, torch.ones(2, 3), torch.zeros(2, 3))
    config = CEMConfig(num_samples=100, num_elites=8, screening=Screening(keep_fraction=0.1))
    plan, state = CEM(config).plan(problem, PlannerState.initial([0, 1]))
    assert [actions.shape[1] for actions in coarse] == [100] * 4
    assert [actions.shape[1] for actions in full] == [10] * 4
    everything, _ = CEM(replace(config, screening=None)).plan(problem, PlannerState.initial([0, 1]))
    assert torch.equal(plan.actions_BHA[:, 0].isfinite(), everything.actions_BHA[:, 0].isfinite())
    assert torch.allclose(plan.cost_B, everything.cost_B, rtol=0.2), "here the coarse look is exact"
    warm, _ = CEM(config).plan(problem, state)
    assert bool((warm.best_cost_BI[:, 0] <= plan.cost_B).all())
    with pytest.raises(UserError, match="knots"):
        CEM(config).plan(replace(problem, knots=Knots(spacing_s=0.5)), PlannerState.initial([0, 1]))
