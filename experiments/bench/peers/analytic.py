"""Problems whose least cost is known: linear-quadratic worlds, a curved valley, a function of many minima.

Letters: B problems, S candidates, H horizon steps, T context frames, D latent width, A action dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from goalward.experiments.bench.peers.task import Task
from goalward.planners.actions import Box, Situation
from goalward.planners.base import Problem
from goalward.planners.methods.evaluation import outcome_of
from goalward.planners.objectives import ActionEffort, LatentDistance, Objective, Outcome

HORIZON, ACTIONS, WIDTH = 4, 2, 3
BUDGET: dict[str, Any] = {"num_samples": 128, "num_iterations": 16, "num_elites": 12}
CASES = ("linear-quadratic", "linear-quadratic, bounds active", "curved valley", "many minima")


class LinearWorld:
    """z' = F z + G a, with one token of width D; the context is the last observed frame."""

    context_frames, dt_s, device = 1, 0.25, torch.device("cpu")

    def __init__(self, F_DD: Tensor, G_DA: Tensor) -> None:
        self.F_DD, self.G_DA = F_DD, G_DA

    def prime(self, z_BTND: Tensor) -> Tensor:
        """[B, N, D]."""
        return z_BTND[:, -1]

    def rollout(self, context: Tensor, actions_BSHA: Tensor) -> Tensor:
        """Products by broadcasting, not by BLAS: bitwise the same in any batch."""
        F, G = self.F_DD.to(actions_BSHA.dtype), self.G_DA.to(actions_BSHA.dtype)
        z_BSD = context[:, None, 0].expand(-1, actions_BSHA.shape[1], -1).to(actions_BSHA.dtype)
        frames = []
        for action_BSA in actions_BSHA.unbind(2):
            z_BSD = (z_BSD[..., None, :] * F).sum(-1) + (action_BSA[..., None, :] * G).sum(-1)
            frames.append(z_BSD)
        return torch.stack(frames, dim=2).unsqueeze(3)


def analytic_task(case: str, seed: int, *, num_problems: int = 1) -> Task:
    """Makes one; the problems of a batch share a world and differ in their starts and goals.

    Args:
        case: One of `CASES`.
        seed: Decides world, start, goal and the place of the minimum.
        num_problems: B; the optimum is known for one only.
    """
    rng = torch.Generator().manual_seed(seed)
    if case.startswith("linear-quadratic"):
        active = case != "linear-quadratic"
        F_DD = torch.eye(WIDTH) + 0.2 * torch.randn(WIDTH, WIDTH, generator=rng)
        G_DA = 0.5 * torch.randn(WIDTH, ACTIONS, generator=rng)
        objective: Any = Objective(terms=(LatentDistance(step_weights="uniform"), ActionEffort(weight=0.05 if active else 4.0)))
        bounds = Box.of([-0.3] * ACTIONS, [0.5] * ACTIONS) if active else Box.of([-4.0] * ACTIONS, [4.0] * ACTIONS)
        z0_BD, goal_BD = torch.randn(2, num_problems, WIDTH, generator=rng).unbind()
        problem = _problem(LinearWorld(F_DD, G_DA), z0_BD, 3 * goal_BD if active else goal_BD, objective, bounds)
        optimum = least_cost(problem) if num_problems == 1 else None
    else:
        best_K = 1.2 * torch.rand(HORIZON * ACTIONS, generator=rng) - 0.6
        function = curved_valley if case == "curved valley" else many_minima
        nowhere_BD = torch.zeros(num_problems, ACTIONS)
        world = LinearWorld(torch.eye(ACTIONS), torch.eye(ACTIONS))
        problem = _problem(world, nowhere_BD, nowhere_BD, on_actions(function, best_K), Box.of([-1.0] * ACTIONS, [1.0] * ACTIONS))
        optimum = 1.0
    return Task(case=case, problem=problem, referee=problem, optimum=optimum, **BUDGET)


def with_nan(task: Task, share: float = 0.3) -> Task:
    """The same task, in which a part of the actions, scattered evenly over the box, has no cost; the referee's stays whole."""
    whole = task.problem.objective

    def holed(outcome: Outcome) -> Tensor:
        return torch.where(in_hole(outcome.actions_BSHA, share), torch.nan, whole(outcome))

    objective: Any = holed
    return replace(task, case=f"{task.case}, {share:.0%} NaN", problem=replace(task.problem, objective=objective))


def in_hole(actions_BSHA: Tensor, share: float) -> Tensor:
    """Which sequences have no cost, bool [B, S]: a hash of the actions, the same every time."""
    return (torch.sin(actions_BSHA.double() * 1e4).sum(dim=(-2, -1)) * 1e3).frac().abs() < share


def curved_valley(x_K: Tensor) -> Tensor:
    """Rosenbrock's function with a floor ten times as flat, around 0: sum 10 (y' - y^2)^2 + (1 - y)^2 with y = 1 + x."""
    y = 1 + x_K
    return (10 * (y[..., 1:] - y[..., :-1].square()).square() + (1 - y[..., :-1]).square()).sum(dim=-1)


def many_minima(x_K: Tensor) -> Tensor:
    """Rastrigin's function, scaled: 4 x^2 + 0.2 (1 - cos 8 x)."""
    return (4 * x_K.square() + 0.2 * (1 - torch.cos(8 * x_K))).sum(dim=-1)


def on_actions(function: Callable[[Tensor], Tensor], best_K: Tensor) -> Any:
    """An objective of the actions alone; least, 1, at `best_K`."""
    return lambda outcome: 1.0 + function(outcome.actions_BSHA.flatten(2) - best_K)


def least_cost(problem: Problem, steps: int = 20_000) -> float:
    """Least cost of a quadratic problem in its box: projected gradient descent in float64, slow and sure, in steps of 1 / L."""
    low_A, high_A = problem.action_set.low_A.double(), problem.action_set.high_A.double()
    shape = (1, 1, problem.horizon, len(low_A))

    def cost(point_K: Tensor) -> Tensor:
        actions = point_K.reshape(shape)
        outcome = outcome_of(problem, problem.model.rollout(problem.context, actions), actions, (high_A - low_A) / 2)
        return problem.objective(outcome).sum()

    origin_K = torch.zeros(problem.horizon * len(low_A), dtype=torch.float64, requires_grad=True)
    hessian: Any = torch.autograd.functional.hessian
    (slope,) = torch.autograd.grad(cost(origin_K), origin_K)
    Q_KK, g_K = hessian(cost, origin_K).numpy(), slope.numpy()
    low_K, high_K = (np.tile(bound_A.numpy(), problem.horizon) for bound_A in (low_A, high_A))
    rate, point_K = 1.0 / np.linalg.eigvalsh(Q_KK)[-1], np.zeros_like(g_K)
    for _ in range(steps):
        moved_K = np.clip(point_K - rate * (Q_KK @ point_K + g_K), low_K, high_K)
        if np.array_equal(moved_K, point_K):
            break
        point_K = moved_K
    return float(cost(torch.from_numpy(point_K)))


def _problem(world: Any, z0_BD: Tensor, goal_BD: Tensor, objective: Any, bounds: Box) -> Problem:
    z_BTND = z0_BD[:, None, None]
    return Problem(
        model=world, context=world.prime(z_BTND), z_BTND=z_BTND, z_goal_BGND=goal_BD[:, None, None], action_set=bounds,
        situation=Situation(), objective=objective, horizon=HORIZON, dt_s=world.dt_s, start_time_s=(0.0,) * len(goal_BD),
    )  # fmt: skip
