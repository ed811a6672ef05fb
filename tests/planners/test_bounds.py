"""No candidate outside the action set, ever: costs that pull out of it, and are at times not finite, over very many candidates."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from goalward.planners.actions import Ball, Box, Intersection, RateLimit, Situation, Workspace
from goalward.planners.base import PlannerState
from goalward.planners.methods.adam import AdamConfig
from goalward.planners.methods.cem import CEMConfig
from goalward.planners.methods.cma_es import CMAESConfig
from goalward.planners.methods.grasp import GRASPConfig
from goalward.planners.methods.hybrid import HybridConfig
from goalward.planners.methods.icem import ICEMConfig
from goalward.planners.methods.mppi import MPPIConfig
from goalward.planners.methods.random_shooting import RandomShootingConfig
from goalward.planners.objectives import Outcome
from goalward.planners.registry import PLANNERS, make_planner

LARGE: dict[str, Any] = {
    "random": RandomShootingConfig(num_samples=4096, num_iterations=10),
    "cem": CEMConfig(num_samples=4096, num_iterations=10, num_elites=100, init_std=5.0),
    "icem": ICEMConfig(num_samples=4096, num_iterations=10, num_elites=100, init_std=5.0, noise_exponent=2.0),
    "mppi": MPPIConfig(num_samples=4096, num_iterations=10, init_std=5.0, decay=1.0),
    "cma_es": CMAESConfig(num_samples=512, num_iterations=20, init_std=5.0, diagonal=True),
    "adam": AdamConfig(num_starts=2048, num_iterations=10, learning_rate=5.0, init_std=5.0),
    "hybrid": HybridConfig(num_samples=2048, num_elites=1024, num_refined=1024, num_sampling=3, num_iterations=10, step=5.0, init_std=5.0),
    "grasp": GRASPConfig(num_starts=1024, num_iterations=6, num_parallel=1, learning_rate=5.0, init_std=5.0),
}
BALL = Ball("l1", 0.12, (0, 1))
# A wall in x, a rate limit in y, z frozen, a ball in x and y: each binds, and none contradicts another (as a wall and a rate limit may).
LOW, HIGH, CHANGE = torch.tensor([-0.1, -0.05, 0.02]), torch.tensor([0.1, 0.07, 0.02]), torch.tensor([0.2, 0.03, 0.2])
WALL_LOW, WALL_HIGH = torch.tensor([0.45, 0.0, 0.0]), torch.tensor([0.6, 1.0, 1.0])
START, LAST = torch.tensor([[0.5, 0.5, 0.3]]), torch.tensor([[0.03, -0.02, 0.02]])


def adversarial(seed: int) -> Any:
    """A steep pull in a random direction, with pits of NaN and of both infinities."""
    pull_HA = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)) * 10.0 ** (seed % 7)

    def cost(outcome: Outcome) -> Tensor:
        actions = outcome.actions_BSHA
        cost_BS = (actions * pull_HA).sum((-1, -2))
        hash_BS = (actions.detach() * 7919.0).sum((-1, -2)) % 1.0
        for value, low in ((float("nan"), 0.0), (float("inf"), 0.1), (float("-inf"), 0.2)):
            cost_BS = torch.where((hash_BS >= low) & (hash_BS < low + 0.1), value, cost_BS)
        return cost_BS

    return cost


def violations(actions_BSHA: Tensor) -> int:
    """Candidates outside the box, the rate limit or the workspace; sums in float64."""
    actions = actions_BSHA.double()
    box = ((actions >= LOW.double()) & (actions <= HIGH.double())).all((-1, -2))
    before = torch.cat([LAST.double()[:, None, None].expand(-1, actions.shape[1], -1, -1), actions[:, :, :-1]], dim=2)
    rate = ((actions - before).abs() <= CHANGE.double()).all((-1, -2))
    reached = START.double()[:, None, None] + actions.cumsum(2)
    inside = ((reached >= WALL_LOW.double()) & (reached <= WALL_HIGH.double())).all((-1, -2))
    short = BALL.length(actions[..., :2]) <= BALL.radius
    return int((~(box & rate & inside & short.all(-1))).sum())


def count(name: str, worlds: SimpleNamespace, wanted: int) -> tuple[int, int]:
    world = worlds.direct_world(4, 3)
    bounds = Intersection(Box.of(LOW, HIGH), (RateLimit.of(CHANGE), Workspace.of(WALL_LOW.tolist(), WALL_HIGH.tolist())), (BALL,))
    planner, state = make_planner(name, LARGE[name]), PlannerState.initial([0])
    seen = bad = seed = 0
    while seen < wanted:
        world.seen.clear()
        problem = worlds.make_problem(
            world, torch.zeros(1, 3), torch.zeros(1, 3), action_set=bounds, objective=adversarial(seed),
            situation=Situation(position_BE=START, last_action_BA=LAST), start_time_s=(seed * worlds.DT_S,),
        )  # fmt: skip
        plan, state = planner.plan(problem, state)
        for actions in (*world.seen, plan.actions_BHA[:, None]):
            whole = actions.reshape(1, -1, 4, 3)  # grasp rolls the steps of its sequences out side by side
            assert bool(torch.isfinite(whole).all())
            seen, bad = seen + whole.shape[1], bad + violations(whole)
        seed += 1
    return seen, bad


def test_every_planner_is_tested_here() -> None:
    assert sorted(LARGE) == sorted(PLANNERS)


@pytest.mark.parametrize("name", sorted(PLANNERS))
def test_no_candidate_violates_a_bound(name: str, worlds: SimpleNamespace) -> None:
    _, bad = count(name, worlds, 10_000)
    assert bad == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PLANNERS))
def test_no_candidate_of_a_million_violates_a_bound(name: str, worlds: SimpleNamespace) -> None:
    seen, bad = count(name, worlds, 1_000_000)
    assert seen >= 1_000_000
    assert bad == 0
