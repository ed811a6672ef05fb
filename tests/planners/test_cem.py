"""What is particular to the cross-entropy planner."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.actions import Box
from goalward.planners.base import PlannerState
from goalward.planners.methods.cem import CEM, CEMConfig
from goalward.planners.objectives import ActionEffort, LatentDistance, Objective, Outcome

CONFIG = CEMConfig(num_samples=32, num_iterations=4, num_elites=8, num_kept_elites=3)
PATH = Objective(terms=(LatentDistance(step_weights="linear"), ActionEffort(weight=0.01)))


def problem_of(worlds: SimpleNamespace, **options):
    world = worlds.random_world(0)
    goal = torch.tensor([[0.5, -0.5, 1.0], [1.0, 0.0, -1.0]])
    return world, worlds.make_problem(world, torch.zeros(2, 3), goal, objective=PATH, **options)


def test_the_mean_is_a_candidate_of_every_iteration(worlds: SimpleNamespace) -> None:
    world, problem = problem_of(worlds)
    means: list[Tensor] = []

    class Spy(CEM):
        def propose(self, params, start):
            means.append(params.mean_BKA)
            return super().propose(params, start)

    Spy(CONFIG).plan(problem, PlannerState.initial([0, 1]))
    assert len(means) == 4
    for mean, candidates in zip(means, world.seen, strict=True):
        assert torch.allclose(candidates[:, 0], mean.clamp(-1, 1))


def test_a_warm_search_also_tries_the_cold_start(worlds: SimpleNamespace) -> None:
    world, problem = problem_of(worlds)
    _, state = CEM(CONFIG).plan(problem, PlannerState.initial([0, 1]))
    world.seen.clear()
    CEM(CONFIG).plan(problem, state)
    assert torch.equal(world.seen[0][:, 0], state.actions_BHA)
    assert torch.equal(world.seen[0][:, 1], torch.zeros(2, 4, 2))
    assert not torch.equal(world.seen[1][:, 1], torch.zeros(2, 4, 2))


def test_the_update_is_the_textbook_one(worlds: SimpleNamespace) -> None:
    """One iteration by hand: mean and deviation of the cheapest, blended with the old ones."""
    _world, problem = problem_of(worlds)
    seen = []

    class Spy(CEM):
        def update(self, params, evaluation, incumbent, start):
            after = super().update(params, evaluation, incumbent, start)
            seen.append((params, evaluation, after))
            return after

    Spy(replace(CONFIG, momentum=0.25, num_kept_elites=0, min_std=0.2)).plan(problem, PlannerState.initial([0, 1]))
    for params, evaluation, after in seen:
        for b in range(2):
            elites = evaluation.actions_BSHA[b][evaluation.cost_BS[b].argsort()[:8]]
            mean, std = elites.mean(0), elites.std(0, correction=0)
            assert torch.allclose(after.mean_BKA[b], 0.25 * params.mean_BKA[b] + 0.75 * mean, atol=1e-6)
            assert torch.allclose(after.std_BKA[b], (0.25 * params.std_BKA[b] + 0.75 * std).clamp(min=0.2), atol=1e-6)


def test_fewer_finite_candidates_than_elites_still_refit(worlds: SimpleNamespace) -> None:
    _, problem = problem_of(worlds)

    def few(outcome: Outcome) -> Tensor:
        cost = PATH(outcome)
        spoiled = torch.full_like(cost, float("nan"))
        spoiled[:, 5:8] = cost[:, 5:8]
        return spoiled

    seen = []

    class Spy(CEM):
        def update(self, params, evaluation, incumbent, start):
            after = super().update(params, evaluation, incumbent, start)
            seen.append((evaluation, after))
            return after

    config = replace(CONFIG, momentum=0.0, num_kept_elites=0, num_iterations=3)
    plan, _ = Spy(config).plan(replace(problem, objective=few), PlannerState.initial([0, 1]))
    assert plan.num_nonfinite_B.tolist() == [29 * 3] * 2
    for evaluation, after in seen:
        assert torch.allclose(after.mean_BKA, evaluation.actions_BSHA[:, 5:8].mean(1), atol=1e-6)


def test_kept_elites_compete_without_being_rolled_out_again(worlds: SimpleNamespace) -> None:
    world, problem = problem_of(worlds)
    seen = []

    class Spy(CEM):
        def update(self, params, evaluation, incumbent, start):
            after = super().update(params, evaluation, incumbent, start)
            seen.append(after)
            return after

    Spy(CONFIG).plan(problem, PlannerState.initial([0, 1]))
    for earlier, later in itertools.pairwise(seen):
        assert later.kept_BEKA.shape == (2, 3, 4, 2)
        assert bool((later.kept_cost_BE <= earlier.kept_cost_BE).all()), "the best are never lost"
    assert all(actions.shape[1] == 32 for actions in world.seen)


def test_spread_never_falls_below_its_floor(worlds: SimpleNamespace) -> None:
    world, problem = problem_of(worlds, action_set=Box.of([-1.0, -0.1], [1.0, 0.1]))
    CEM(CEMConfig(num_samples=200, num_iterations=12, num_elites=10, min_std=0.1, momentum=0.0)).plan(problem, PlannerState.initial([0, 1]))
    spread = world.seen[-1][:, 1:].std(dim=1).mean(dim=(0, 1))
    # Clipping at the bounds narrows it a little.
    assert float(spread[0]) > 0.05
    assert float(spread[1]) > 0.005


def test_warm_spread_applies_to_warm_problems_only(worlds: SimpleNamespace) -> None:
    world, problem = problem_of(worlds)
    planner = CEM(replace(CONFIG, warm_std=1e-3, init_std=0.3, num_iterations=1))
    _, state = planner.plan(problem, PlannerState.initial([0, 1]))
    half_warm = replace(state, start_time_s=(0.0, float("-inf")))
    world.seen.clear()
    planner.plan(problem, half_warm)
    spread = (world.seen[0][:, 2:] - world.seen[0][:, :1]).abs().mean(dim=(1, 2, 3))
    assert float(spread[0]) < 2e-3
    assert float(spread[1]) > 0.1


def test_returning_the_mean_evaluates_it(worlds: SimpleNamespace) -> None:
    world, problem = problem_of(worlds)
    plan, _ = CEM(replace(CONFIG, return_mean=True)).plan(problem, PlannerState.initial([0, 1]))
    assert world.seen[-1].shape[1] == 1
    assert torch.equal(world.seen[-1][:, 0], plan.actions_BHA)
    z = world.rollout(problem.context, plan.actions_BHA[:, None])
    assert torch.equal(plan.z_BHND, z[:, 0])
    assert torch.equal(plan.cost_B, PATH(worlds.outcome(problem, z, plan.actions_BHA[:, None], torch.ones(2)))[:, 0])
    assert plan.num_iterations == 4


def test_a_mean_without_finite_cost_gives_way_to_the_best_candidate(worlds: SimpleNamespace) -> None:
    world, problem = problem_of(worlds)
    best, _ = CEM(CONFIG).plan(problem, PlannerState.initial([0, 1]))
    world.corrupt = lambda z, a: z * float("nan") if a.shape[1] == 1 else z
    plan, _ = CEM(replace(CONFIG, return_mean=True)).plan(problem, PlannerState.initial([0, 1]))
    assert torch.equal(plan.actions_BHA, best.actions_BHA)
    assert torch.equal(plan.cost_B, best.cost_B)
    assert torch.equal(plan.z_BHND, best.z_BHND)


def test_coloured_noise_reaches_the_candidates(worlds: SimpleNamespace) -> None:
    world, problem = problem_of(worlds, horizon=6)
    for exponent, low, high in ((0.0, -0.1, 0.1), (3.0, 0.45, 0.7)):
        world.seen.clear()
        CEM(CEMConfig(num_samples=2000, num_iterations=1, init_std=0.05, noise_exponent=exponent)).plan(
            problem, PlannerState.initial([0, 1])
        )
        x = world.seen[0][0, 1:, :, 0] / 0.05
        assert low < float((x[:, 0] * x[:, 1]).mean()) < high
        assert float(x.var()) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_samples": 0}, "num_samples: 0 .* at least 1"),
        ({"num_samples": 4.0}, "num_samples: 4.0"),
        ({"num_iterations": 0}, "num_iterations: 0"),
        ({"num_samples": 10, "num_elites": 11}, "num_elites: 11 .* 1 to 10"),
        ({"num_elites": 2}, "num_kept_elites: 3 .* 0 to 2"),
        ({"init_std": 0.0}, "init_std: 0.0 .* above 0"),
        ({"init_std": float("nan")}, "init_std: nan"),
        ({"warm_std": -1.0}, "warm_std"),
        ({"min_std": -0.1}, "min_std: -0.1"),
        ({"momentum": 1.0}, "momentum: 1.0 .* below 1"),
        ({"noise_exponent": -1.0}, "noise_exponent"),
        ({"stop_tolerance": 2.0}, "stop_tolerance"),
        ({"stop_tolerance": 0.1, "return_mean": True}, "cannot be combined"),
    ],
)
def test_configurations_out_of_range_are_refused(fields, says: str) -> None:
    with pytest.raises(UserError, match=says):
        CEMConfig(**fields)
