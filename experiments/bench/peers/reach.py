"""Problems of a shipped model, from recorded observations and goals of its environment.

The observations are rendered and encoded where the simulator is installed, and handed over as arrays: the peers' environment needs none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from goalward.experiments.bench.peers.rerun import RerunCost
from goalward.experiments.bench.peers.task import Task
from goalward.planners.actions import Box, Situation
from goalward.planners.base import Problem
from goalward.planners.objectives import LatentDistance, Objective

HORIZON = 3
BUDGETS = ((256, 5), (64, 4))


def record(path: Path, env: str, *, num_problems: int) -> None:
    """Writes the latents of moments on the way to validation goals: z_MTND and z_goal_MND, float32."""
    from goalward import load_model
    from goalward.experiments.bench.reach_problems import snapshots

    model = load_model(env)
    taken = snapshots(env, model, num_goals=-(-num_problems // 2), oracle_steps=(0, 3))[:num_problems]
    observed, goals = ([getattr(moment, name).numpy() for moment in taken] for name in ("z_TND", "z_goal_ND"))
    np.savez(path, z_MTND=np.stack(observed), z_goal_MND=np.stack(goals))


def reach_tasks(path: Path, env: str, budget: tuple[int, int]) -> list[Task]:
    """One task a moment."""
    from goalward.wm.model import load_model

    model, exact, compiled = load_model(env), load_model(env, dtype=torch.float32), load_model(env, compiled=True)
    tasks = []
    with np.load(path, allow_pickle=False) as arrays:
        for z_TND, z_goal_ND in zip(arrays["z_MTND"], arrays["z_goal_MND"], strict=True):
            observed, goal = torch.from_numpy(z_TND)[None], torch.from_numpy(z_goal_ND)[None, None]
            tasks.append(
                Task(
                    case=f"{env}, {budget[0]} x {budget[1]}",
                    problem=_problem(model, observed, goal),
                    referee=_problem(exact, observed, goal),
                    num_samples=budget[0],
                    num_iterations=budget[1],
                    num_elites=max(10, budget[0] // 10),
                    compiled=compiled,
                    rerun=RerunCost,
                )
            )
    return tasks


def _problem(model: Any, z_BTND: torch.Tensor, z_goal_BGND: torch.Tensor) -> Problem:
    return Problem(
        model=model,
        context=model.prime(z_BTND),
        z_BTND=z_BTND,
        z_goal_BGND=z_goal_BGND,
        action_set=Box.of(model.action_low, model.action_high),
        situation=Situation(),
        objective=Objective(terms=(LatentDistance(step_weights="uniform"),)),
        horizon=HORIZON,
        dt_s=model.dt_s,
        start_time_s=(0.0,) * len(z_BTND),
    )
