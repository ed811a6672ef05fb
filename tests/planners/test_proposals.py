"""Proposals: looked at by every planner, projected, never believed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.actions import Box
from goalward.planners.base import PlannerState, Problem
from goalward.planners.methods.adam import AdamConfig
from goalward.planners.methods.cem import CEMConfig
from goalward.planners.methods.cma_es import CMAESConfig
from goalward.planners.methods.grasp import GRASPConfig
from goalward.planners.methods.hybrid import HybridConfig
from goalward.planners.methods.icem import ICEMConfig
from goalward.planners.methods.knots import Knots
from goalward.planners.methods.mppi import MPPIConfig
from goalward.planners.methods.proposals import NUM_STARTS
from goalward.planners.methods.random_shooting import RandomShootingConfig
from goalward.planners.registry import PLANNERS, make_planner

WEAK: dict[str, Any] = {
    "random": RandomShootingConfig(num_samples=6, num_iterations=2),
    "cem": CEMConfig(num_samples=8, num_iterations=2, num_elites=2, num_kept_elites=1),
    "icem": ICEMConfig(num_samples=8, num_iterations=2, num_elites=2, num_kept_elites=1),
    "mppi": MPPIConfig(num_samples=8, num_iterations=2),
    "cma_es": CMAESConfig(num_samples=8, num_iterations=2),
    "adam": AdamConfig(num_starts=4, num_iterations=2),
    "hybrid": HybridConfig(num_samples=8, num_iterations=3, num_elites=2, num_kept_elites=1, num_sampling=2, num_refined=1),
    "grasp": GRASPConfig(num_starts=4, num_iterations=2, num_parallel=1),
}
every_planner = pytest.mark.parametrize("name", sorted(PLANNERS))


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def problems(worlds: SimpleNamespace) -> tuple[Any, Problem]:
    world = worlds.random_world(3)
    return world, worlds.make_problem(world, normal(1, 3, 3), normal(2, 3, 3))


def solve(name: str, problem: Problem, seeds: tuple[int, ...] = (0, 1, 2)) -> Any:
    return make_planner(name, WEAK[name]).plan(problem, PlannerState.initial(list(seeds)))[0]


def excellent(problem: Problem) -> Tensor:
    """Plans that a long search found, [B, 1, H, A]."""
    planner = make_planner("adam", AdamConfig(num_starts=6, num_iterations=150))
    return planner.plan(problem, PlannerState.initial([7, 8, 9]))[0].actions_BHA[:, None]


def test_every_registered_planner_is_tested_here() -> None:
    assert sorted(WEAK) == sorted(PLANNERS)


@every_planner
def test_a_plan_is_never_worse_than_what_was_proposed(name: str, worlds: SimpleNamespace) -> None:
    world, problem = problems(worlds)
    good_BPHA = excellent(problem)
    outcome = worlds.outcome(problem, world.rollout(problem.context, good_BPHA), good_BPHA)
    proposed_B = problem.objective(outcome)[:, 0]
    without, aided = solve(name, problem), solve(name, replace(problem, proposals_BPHA=good_BPHA))
    assert (aided.cost_B <= proposed_B + 1e-6).all()
    assert (without.cost_B > proposed_B + 1e-6).any(), "the proposal must be better than what this budget finds alone"


@every_planner
def test_proposals_outside_the_action_set_are_projected(name: str, worlds: SimpleNamespace) -> None:
    world, problem = problems(worlds)
    world.seen.clear()
    plan = solve(name, replace(problem, proposals_BPHA=100 * normal(5, 3, 3, 4, 2)))
    for actions in (*world.seen, plan.actions_BHA):
        assert (actions >= world.action_low).all()
        assert (actions <= world.action_high).all()


@every_planner
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_proposal_that_is_not_finite_changes_nothing(name: str, bad: float, worlds: SimpleNamespace) -> None:
    _, problem = problems(worlds)
    proposals_BPHA = torch.zeros(3, 2, 4, 2)
    proposals_BPHA[:, :, 1, 0] = bad
    assert torch.equal(solve(name, problem).actions_BHA, solve(name, replace(problem, proposals_BPHA=proposals_BPHA)).actions_BHA)


@every_planner
def test_proposals_of_other_problems_in_the_batch_change_nothing(name: str, worlds: SimpleNamespace) -> None:
    _, problem = problems(worlds)
    proposals_BPHA = 0.5 * normal(5, 3, 2, 4, 2)
    together = solve(name, replace(problem, proposals_BPHA=proposals_BPHA))
    for b in range(3):
        alone = solve(name, replace(worlds.pick(problem, [b]), proposals_BPHA=proposals_BPHA[b : b + 1]), (b,))
        assert torch.equal(alone.actions_BHA[0], together.actions_BHA[b])


@every_planner
def test_the_warm_and_the_cold_start_are_never_replaced(name: str, worlds: SimpleNamespace) -> None:
    world, problem = problems(worlds)
    planner = make_planner(name, WEAK[name])
    _, state = planner.plan(problem, PlannerState.initial([0, 1, 2]))
    later = replace(problem, start_time_s=(problem.dt_s,) * 3)
    first = []
    for proposals in (None, torch.full((3, 50, 4, 2), 0.25)):
        world.seen.clear()
        planner.plan(replace(later, proposals_BPHA=proposals), state)
        first.append(world.seen[0])
    assert torch.equal(first[0][:, :NUM_STARTS], first[1][:, :NUM_STARTS])
    assert (first[1][:, NUM_STARTS:] == 0.25).all()


def test_without_room_there_are_no_proposals(worlds: SimpleNamespace) -> None:
    world, problem = problems(worlds)
    for num in (1, 2):
        planner = make_planner("random", RandomShootingConfig(num_samples=num, num_iterations=1))
        world.seen.clear()
        planner.plan(replace(problem, proposals_BPHA=torch.full((3, 2, 4, 2), 0.25)), PlannerState.initial([0, 1, 2]))
        assert not (world.seen[0] == 0.25).all(dim=-1).any()


@pytest.mark.parametrize("shape", [(2, 1, 4, 2), (3, 1, 5, 2), (3, 1, 4, 3), (3, 4, 2)])
def test_proposals_of_another_shape_are_refused(shape: tuple[int, ...], worlds: SimpleNamespace) -> None:
    _, problem = problems(worlds)
    with pytest.raises(UserError, match="proposals_BPHA"):
        solve("cem", replace(problem, proposals_BPHA=torch.zeros(shape)))


def test_proposals_and_knots_exclude_one_another(worlds: SimpleNamespace) -> None:
    _, problem = problems(worlds)
    with pytest.raises(UserError, match="knots"):
        solve("cem", replace(problem, proposals_BPHA=torch.zeros(3, 1, 4, 2), knots=Knots(spacing_s=0.5)))


def test_the_controller_hands_latents_goal_state_and_horizon_to_its_proposer(worlds: SimpleNamespace) -> None:
    from goalward.planners.control.controller import make_controller

    world = worlds.PointWorld()
    calls = []

    def straight(z_BTND: Tensor, z_goal_BGND: Tensor, state: PlannerState, horizon: int) -> Tensor:
        calls.append((z_BTND.shape, z_goal_BGND.shape, state.seeds, state.steps, horizon))
        step_BA = ((z_goal_BGND[:, 0, 0] - z_BTND[:, -1, 0]) / horizon).clamp(-0.1, 0.1)
        return step_BA[:, None, None].expand(-1, 1, horizon, -1)

    weak = RandomShootingConfig(num_samples=3, num_iterations=1)
    options: dict[str, Any] = {
        "planner": "random", "planner_config": weak, "seed": 4, "action_set": Box.of(world.action_low, world.action_high)
    }  # fmt: skip
    start, goal = (0.5, 0.5, 0.5), (0.62, 0.44, 0.5)
    aided = make_controller(world, world.image(goal), proposer=straight, **options)
    action = aided.act(world.observation(start))
    assert calls == [((1, 2, 1, 3), (1, 1, 1, 3), (4,), (0,), 3)]
    torch.testing.assert_close(torch.from_numpy(action), torch.tensor([0.04, -0.02, 0.0]), atol=3e-3, rtol=0)
    alone = make_controller(world, world.image(goal), **options)
    assert abs(alone.act(world.observation(start)) - action).max() > 0.01
