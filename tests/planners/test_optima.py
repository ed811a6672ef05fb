"""Planners against known optima: a linear-quadratic world, and another library's search on other functions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cma
import numpy as np
import pytest
import torch
from torch import Tensor

from goalward.planners.actions import Box
from goalward.planners.base import PlannerState, Problem
from goalward.planners.methods.adam import AdamConfig
from goalward.planners.methods.cem import CEMConfig
from goalward.planners.methods.cma_es import CMAESConfig
from goalward.planners.methods.grasp import GRASPConfig
from goalward.planners.methods.hybrid import HybridConfig
from goalward.planners.methods.icem import ICEMConfig
from goalward.planners.methods.mppi import MPPIConfig
from goalward.planners.objectives import ActionEffort, LatentDistance, Objective
from goalward.planners.registry import PLANNERS, make_planner

EFFORT = 1.0
QUADRATIC = Objective(terms=(LatentDistance(step_weights="uniform"), ActionEffort(weight=EFFORT)))
PATH = Objective(terms=(LatentDistance(step_weights="uniform"), ActionEffort(weight=0.05)))
STRONG: dict[str, Any] = {
    "cem": CEMConfig(num_samples=256, num_iterations=20, num_elites=24, min_std=1e-3),
    "icem": ICEMConfig(
        num_samples=400, num_iterations=30, num_elites=32, min_std=1e-3, noise_exponent=0.5, decay=1.05, momentum=0.3, init_std=0.6
    ),
    "mppi": MPPIConfig(num_samples=256, num_iterations=24, decay=0.8, min_std=1e-3, temperature=0.2),
    "cma_es": CMAESConfig(num_samples=48, num_iterations=60),
    "adam": AdamConfig(num_starts=4, num_iterations=150, learning_rate=0.1, decay=0.97, beta1=0.9),
    "hybrid": HybridConfig(num_samples=128, num_iterations=160, num_sampling=8, num_elites=12, num_refined=4),
    "grasp": GRASPConfig(num_starts=4, num_iterations=150, learning_rate=0.1, decay=0.97),
}
"""Every planner that converges; random shooting does not."""
WITHIN = {"cem": 0.01, "icem": 0.01, "mppi": 0.01, "cma_es": 0.001, "adam": 0.001, "hybrid": 0.001, "grasp": 0.001}


def test_every_planner_that_converges_is_tested_here() -> None:
    assert sorted([*STRONG, "random"]) == sorted(PLANNERS)


def linear_quadratic(worlds: SimpleNamespace, seed: int, horizon: int) -> tuple[Problem, Tensor, Tensor, Any]:
    world = worlds.random_world(seed)
    rng = torch.Generator().manual_seed(seed + 100)
    z0, goal = torch.randn(1, 3, generator=rng), torch.randn(1, 3, generator=rng)
    # Bounds so wide that the optimum does not feel them: then it is the Riccati solution.
    problem = worlds.make_problem(world, z0, goal, horizon=horizon, objective=QUADRATIC, action_set=Box.of([-4.0] * 2, [4.0] * 2))
    return problem, z0, goal, world


def riccati_cost(world: Any, z0: Tensor, goal: Tensor, horizon: int, half: float) -> float:
    """Optimal cost of   sum over t of |z_t - goal|^2 / (2 D H) + EFFORT |a_t|^2 / (half^2 A H)   by dynamic programming.

    The value function is x' P x of the state x = (z, 1), and z_t - goal is linear in x.
    """
    F, G = world.F_DD.double().numpy(), world.G_DA.double().numpy()
    (D, A), g = G.shape, goal[0].double().numpy()
    transition = np.block([[F, np.zeros((D, 1))], [np.zeros((1, D)), np.eye(1)]])
    control = np.vstack([G, np.zeros((1, A))])
    error = np.hstack([np.eye(D), -g[:, None]])
    stage = error.T @ error / (2 * D * horizon)  # 2: what two unrelated frames cost
    effort = EFFORT * np.eye(A) / (half**2 * A * horizon)
    value = np.zeros((D + 1, D + 1))
    for _ in range(horizon):
        after = stage + value
        gain = np.linalg.solve(effort + control.T @ after @ control, control.T @ after @ transition)
        value = transition.T @ after @ (transition - control @ gain)
    x0 = np.append(z0[0].double().numpy(), 1.0)
    return float(x0 @ value @ x0)


@pytest.mark.parametrize("name", sorted(STRONG))
@pytest.mark.parametrize(("seed", "horizon"), [(0, 4), (1, 4), (2, 3), (3, 1), (4, 6)])
def test_linear_quadratic_world_is_solved_to_the_riccati_cost(name: str, seed: int, horizon: int, worlds: SimpleNamespace) -> None:
    problem, z0, goal, world = linear_quadratic(worlds, seed, horizon)
    optimum = riccati_cost(world, z0, goal, horizon, half=4.0)
    plan, _ = make_planner(name, STRONG[name]).plan(problem, PlannerState.initial([seed]))
    assert bool((plan.actions_BHA.abs() < 4.0).all()), "the optimum must not feel the bounds"
    assert optimum * (1 - 1e-4) <= float(plan.cost_B) <= optimum * (1 + WITHIN[name]) + 1e-6


def projected_gradient_optimum(worlds: SimpleNamespace, problem: Problem, low: float, high: float) -> float:
    """Reference for an optimum on the bounds: slow, sure projected gradient descent in float64."""
    actions = torch.zeros(1, 1, problem.horizon, 2, dtype=torch.float64)
    unit = torch.full((2,), (high - low) / 2, dtype=torch.float64)
    cost = torch.tensor(0.0)
    for _ in range(400):
        leaf = actions.requires_grad_()
        cost = problem.objective(worlds.outcome(problem, problem.model.rollout(problem.context, leaf), leaf, unit)).sum()
        (gradient,) = torch.autograd.grad(cost, leaf)
        actions = (leaf.detach() - 0.05 * gradient).clamp(low, high)
    return float(cost.detach())


def test_optimum_on_the_bounds_is_found(worlds: SimpleNamespace) -> None:
    world = worlds.random_world(5)
    z0, goal = torch.zeros(1, 3), 3 * torch.ones(1, 3)
    problem = worlds.make_problem(world, z0, goal, objective=PATH, action_set=Box.of([-0.3] * 2, [0.5] * 2))
    optimum = projected_gradient_optimum(worlds, problem, -0.3, 0.5)
    for name, config in STRONG.items():
        plan, _ = make_planner(name, config).plan(problem, PlannerState.initial([0]))
        assert bool(((plan.actions_BHA == 0.5) | (plan.actions_BHA == -0.3)).any())
        assert optimum * (1 - 1e-4) <= float(plan.cost_B) <= optimum * (1 + WITHIN[name]), name


def _rotated(x: Tensor, seed: int = 3) -> Tensor:
    matrix, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)))
    return x @ matrix


_SCALES = torch.tensor([1.0, 2.0, 4.0, 8.0])
# Each has its minimum, 1, at x = 0.3 in every entry, unless it says otherwise.
CONVEX = {
    "sphere": lambda x: (x**2).sum(-1),
    "ellipsoid": lambda x: (_SCALES * x**2).sum(-1),
    "rotated ellipsoid": lambda x: (_SCALES * _rotated(x) ** 2).sum(-1),
    "absolute": lambda x: x.abs().sum(-1),
    "maximum": lambda x: x.abs().amax(-1),
    "norm": lambda x: x.norm(dim=-1),
    "quartic": lambda x: (x**4).sum(-1),
    "sum of powers": lambda x: x[..., 0] ** 2 + x[..., 1].abs() ** 3 + x[..., 2] ** 4 + x[..., 3].abs(),
    "log-sum-exp": lambda x: torch.logsumexp(torch.stack([_rotated(x)[..., i] * s for i in range(4) for s in (2.0, -2.0)], -1), -1),
    "huber": lambda x: torch.where(x.abs() < 0.1, 5 * x**2, x.abs() - 0.05).sum(-1),
}
MULTIMODAL = {
    "rastrigin": lambda x: (4 * x**2 + 0.2 * (1 - torch.cos(8 * x))).sum(-1),
    "ackley": lambda x: 2 - 2 * torch.exp(-2 * x.norm(dim=-1)) + 0.1 * (1 - torch.cos(10 * x)).sum(-1),
}


EQUAL: dict[str, Any] = {  # at most 1200 evaluations each
    "cem": CEMConfig(num_samples=100, num_iterations=12, num_elites=12, min_std=1e-3, init_std=0.5),
    "icem": ICEMConfig(num_samples=150, num_iterations=12, num_elites=12, min_std=1e-3, init_std=0.5, decay=1.1, noise_exponent=0.0),
    "mppi": MPPIConfig(num_samples=100, num_iterations=12, init_std=0.5, min_std=1e-3, temperature=0.15),
    "cma_es": CMAESConfig(num_samples=30, num_iterations=40, init_std=0.5),
    "adam": AdamConfig(num_starts=16, num_iterations=75, learning_rate=0.1, decay=0.95),
    "hybrid": HybridConfig(num_samples=100, num_iterations=75, num_sampling=6, num_elites=12, num_refined=8),
}


@pytest.mark.parametrize("name", sorted(EQUAL))
@pytest.mark.parametrize("function", [*CONVEX, *MULTIMODAL])
def test_planners_match_cma_at_equal_budget(name: str, function: str, worlds: SimpleNamespace) -> None:
    """R39: within 5 % of the cost that `cma` reaches with as many evaluations."""
    raw = {**CONVEX, **MULTIMODAL}[function]

    def cost(x: Tensor) -> Tensor:
        return 1.0 + raw(x - 0.3)

    origin = torch.zeros(1, 2)
    problem = worlds.make_problem(
        worlds.direct_world(2, 2), origin, origin, horizon=2, objective=lambda outcome: cost(outcome.actions_BSHA.flatten(2))
    )
    ours = [float(make_planner(name, EQUAL[name]).plan(problem, PlannerState.initial([seed]))[0].cost_B) for seed in range(3)]
    options = {"seed": 1, "bounds": [-1, 1], "popsize": 30, "maxfevals": 1200, "verbose": -9, "verb_log": 0, "verb_disp": 0}
    search = cma.CMAEvolutionStrategy([0.0] * 4, 0.5, options)
    while not search.stop():
        points = search.ask()
        search.tell(points, cost(torch.tensor(np.array(points), dtype=torch.float32)).tolist())
    assert np.median(ours) <= 1.05 * search.result.fbest
