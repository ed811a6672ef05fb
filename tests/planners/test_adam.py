"""What is particular to the gradient planner: that it is Adam, and that its gradients are right."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.actions import Box
from goalward.planners.base import PlannerState
from goalward.planners.methods.adam import Adam, AdamConfig
from goalward.planners.methods.evaluation import evaluate
from goalward.planners.objectives import ActionEffort, LatentDistance, Objective, Outcome

PATH = Objective(terms=(LatentDistance(step_weights="linear"), ActionEffort(weight=0.01)))
WIDE = Box.of([-50.0, -500.0], [50.0, 500.0])
UNIT = torch.tensor([50.0, 500.0])


def problem_of(worlds: SimpleNamespace, action_set: Box = WIDE):
    world = worlds.random_world(0)
    goal = torch.tensor([[0.5, -0.5, 1.0], [1.0, 0.0, -1.0]])
    return world, worlds.make_problem(world, torch.zeros(2, 3), goal, objective=PATH, action_set=action_set)


def test_steps_are_those_of_torch_adam_in_scaled_units(worlds: SimpleNamespace) -> None:
    world, problem = problem_of(worlds)
    config = AdamConfig(num_starts=3, num_iterations=6, learning_rate=0.01, decay=0.9, init_std=0.05)
    Adam(config).plan(problem, PlannerState.initial([0, 1]))
    scaled = torch.nn.Parameter(world.seen[0] / UNIT)
    optimiser = torch.optim.Adam([scaled], lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=config.epsilon)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, config.decay)
    for ours in list(world.seen):
        assert torch.allclose(scaled.detach(), ours / UNIT, rtol=1e-4, atol=1e-4)
        optimiser.zero_grad()
        actions = scaled * UNIT
        PATH(worlds.outcome(problem, world.rollout(problem.context, actions), actions, UNIT)).sum().backward()
        optimiser.step()
        schedule.step()


def test_it_differs_from_gradient_descent_after_two_steps(worlds: SimpleNamespace) -> None:
    """A known fault elsewhere: an optimiser that is built and never stepped."""
    world, problem = problem_of(worlds)
    Adam(AdamConfig(num_starts=2, num_iterations=3, learning_rate=0.01, init_std=0.05)).plan(problem, PlannerState.initial([0, 1]))
    first, second, third = world.seen
    gradients = [evaluate(problem, actions, UNIT, gradient=True).gradient_BSKA * UNIT for actions in (first, second)]
    moves = [(second - first) / UNIT, (third - second) / UNIT]
    # The first step of Adam has one size in every entry, whatever the gradient's.
    assert torch.allclose(moves[0].abs(), torch.full_like(moves[0], 0.01), rtol=1e-2)
    ratios = torch.stack([move / -gradient for move, gradient in zip(moves, gradients, strict=True)])
    assert float(ratios.amax() / ratios.amin().clamp(min=1e-9)) > 2.0, "gradient descent would have one ratio throughout"


def test_gradients_equal_finite_differences_in_float64(worlds: SimpleNamespace) -> None:
    _, problem = problem_of(worlds)
    problem = replace(problem, context=problem.context.double(), z_goal_BGND=problem.z_goal_BGND.double())
    actions = torch.randn(2, 3, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = UNIT.double()
    gradient = evaluate(problem, actions, unit, gradient=True).gradient_BSKA
    assert gradient is not None
    step = 1e-5
    for t in range(4):
        for a in range(2):
            nudge = torch.zeros(4, 2, dtype=torch.float64)
            nudge[t, a] = step
            up, down = (evaluate(problem, actions + sign * nudge, unit).cost_BS for sign in (1, -1))
            assert torch.allclose(gradient[:, :, t, a], (up - down) / (2 * step), rtol=1e-3, atol=1e-9)


def test_first_start_is_the_warm_start_and_second_the_cold_one(worlds: SimpleNamespace) -> None:
    world, problem = problem_of(worlds, Box.of([-1.0] * 2, [1.0] * 2))
    planner = Adam(AdamConfig(num_starts=4, num_iterations=3))
    _, state = planner.plan(problem, PlannerState.initial([0, 1]))
    world.seen.clear()
    planner.plan(problem, state)
    assert torch.equal(world.seen[0][:, 0], state.actions_BHA)
    assert torch.equal(world.seen[0][:, 1], torch.zeros(2, 4, 2))
    assert len(world.seen[0][0].flatten(1).unique(dim=0)) == 4


def test_several_starts_escape_a_local_minimum(worlds: SimpleNamespace) -> None:
    def two_wells(outcome: Outcome) -> Tensor:
        x = outcome.actions_BSHA[..., 0, 0]
        return torch.minimum(0.5 + (x + 0.2) ** 2, 10 * (x - 0.8) ** 2)

    world = worlds.direct_world(1, 1)
    problem = worlds.make_problem(world, torch.zeros(1, 1), torch.zeros(1, 1), horizon=1, objective=two_wells)
    alone, _ = Adam(AdamConfig(num_starts=1, num_iterations=40)).plan(problem, PlannerState.initial([0]))
    many, _ = Adam(AdamConfig(num_starts=24, num_iterations=40, init_std=0.8)).plan(problem, PlannerState.initial([0]))
    assert float(alone.cost_B) == pytest.approx(0.5, abs=1e-2)
    assert float(many.cost_B) == pytest.approx(0.0, abs=1e-2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_do_no_harm(value: float, worlds: SimpleNamespace) -> None:
    world, problem = problem_of(worlds, Box.of([-1.0] * 2, [1.0] * 2))

    class Poison(torch.autograd.Function):
        @staticmethod
        def forward(ctx, actions):
            return actions.clone()

        @staticmethod
        def backward(ctx, gradient):
            spoiled = gradient.clone()
            spoiled[:, 1::2] = value
            return spoiled

    def objective(outcome: Outcome) -> Tensor:
        return PATH(outcome) + 0 * Poison.apply(outcome.actions_BSHA).sum((-1, -2))

    plan, _ = Adam(AdamConfig(num_starts=4, num_iterations=10)).plan(replace(problem, objective=objective), PlannerState.initial([0, 1]))
    assert all(bool(torch.isfinite(actions).all()) for actions in world.seen)
    assert not bool(plan.failed_B.any())
    assert bool((plan.best_cost_BI[:, -1] < plan.best_cost_BI[:, 0]).all())


def test_a_start_without_finite_cost_goes_on_from_the_incumbent(worlds: SimpleNamespace) -> None:
    world, problem = problem_of(worlds, Box.of([-1.0] * 2, [1.0] * 2))

    def objective(outcome: Outcome) -> Tensor:
        return torch.where(outcome.actions_BSHA[..., 0, 0] > 0.1, float("nan"), PATH(outcome))

    Adam(AdamConfig(num_starts=16, num_iterations=2)).plan(replace(problem, objective=objective), PlannerState.initial([0, 1]))
    first, second = world.seen
    lost = first[..., 0, 0] > 0.1
    assert bool(lost.any())
    cost = objective(worlds.outcome(problem, world.rollout(problem.context, first), first, torch.ones(2))).nan_to_num(float("inf"))
    best = first[torch.arange(2), cost.argmin(1)]
    for b in range(2):
        assert bool((second[b][lost[b]] == best[b]).all())


def test_the_last_iteration_needs_no_gradient(worlds: SimpleNamespace) -> None:
    world, problem = problem_of(worlds)
    tracked = []
    world.corrupt = lambda z, a: (tracked.append(a.requires_grad), z)[1]
    Adam(AdamConfig(num_starts=2, num_iterations=4)).plan(problem, PlannerState.initial([0, 1]))
    assert tracked == [True, True, True, False]


def test_a_model_without_gradient_is_named(worlds: SimpleNamespace) -> None:
    world, problem = problem_of(worlds)
    world.corrupt = lambda z, a: z.detach()
    with pytest.raises(ValueError, match="no gradient"):
        Adam().plan(replace(problem, objective=Objective(terms=(LatentDistance(),))), PlannerState.initial([0, 1]))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_starts": 0}, "num_starts: 0"),
        ({"num_iterations": True}, "num_iterations: True"),
        ({"learning_rate": 0.0}, "learning_rate: 0.0 .* above 0"),
        ({"decay": 1.5}, "decay: 1.5 .* at most 1"),
        ({"init_std": float("inf")}, "init_std: inf"),
        ({"beta1": 1.0}, "beta1: 1.0 .* below 1"),
        ({"beta2": -0.1}, "beta2: -0.1"),
        ({"epsilon": 0.0}, "epsilon: 0.0"),
        ({"stop_tolerance": -1.0}, "stop_tolerance"),
    ],
)
def test_configurations_out_of_range_are_refused(fields, says: str) -> None:
    with pytest.raises(UserError, match=says):
        AdamConfig(**fields)
