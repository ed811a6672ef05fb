"""pytorch_mppi (https://github.com/UM-ARM-Lab/pytorch_mppi, 0.9.1).

Iterations are calls of `command(..., shift_nominal_trajectory=False)`, which its docs name for refining a plan. It wants dynamics and a
cost for each step: here the state is the sequence of actions so far, and the last step's cost is the shared cost object, shown whole
sequences. It begins from zeros, as all do.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from goalward.experiments.bench.peers.contender import Contender, Search
from goalward.experiments.bench.peers.task import Costs, Meter, Task

TEMPERATURES = (1.0, 0.1, 0.02, 0.004)
"""Its default, and smaller ones: its docs suggest 0.01 to begin with."""


def contenders() -> list[Contender]:
    """MPPI; several problems by its class for batches.

    Raises:
        ImportError: Not installed, or something that it needs is missing.
    """
    library = importlib.import_module("pytorch_mppi")

    def alone(task: Task, seed: int, meter: Meter, rate: float | None) -> Search:
        costs = Costs(task, meter)
        _, horizon, num_actions = task.shape_BHA
        options: dict[str, Any] = _options(costs, rate)
        # One terminal cost, shown all states and actions, is its quickest way to a cost of whole sequences.
        options |= {"terminal_state_cost": lambda states, actions: costs(actions)}
        options |= {"U_init": torch.zeros(horizon, num_actions)}

        def search() -> Tensor:
            costs.prime()
            torch.manual_seed(seed)
            search = library.MPPI(lambda state, u: state, lambda state, u: torch.zeros(len(u)), 1, **options)
            for _ in range(task.num_iterations):
                search.command(torch.zeros(1), shift_nominal_trajectory=False)
            return costs.plan(search.get_action_sequence()[None])

        return search

    def together(task: Task, seed: int, meter: Meter, rate: float | None) -> Search:
        costs = Costs(task, meter)
        num_problems, horizon, num_actions = task.shape_BHA
        width = horizon * num_actions

        def dynamics(state: Tensor, u: Tensor, step: int) -> Tensor:
            return torch.cat([state[:, num_actions:], u], dim=1)

        def running_cost(state: Tensor, u: Tensor, step: int) -> Tensor:
            if step < horizon - 1:
                return torch.zeros(len(state))
            return costs(state.reshape(num_problems, -1, horizon, num_actions)).flatten()

        def search() -> Tensor:
            costs.prime()
            torch.manual_seed(seed)
            search = library.MPPI_Batched(
                dynamics, running_cost, width, num_envs=num_problems, step_dependent_dynamics=True, **_options(costs, rate)
            )
            search.U = torch.zeros(num_problems, horizon, num_actions)
            for _ in range(task.num_iterations):
                search.command(torch.zeros(num_problems, width), shift_nominal_trajectory=False)
            return costs.plan(search.U)

        return search

    return [
        Contender(
            name="pytorch_mppi MPPI", prepare=alone, prepare_batch=together, warm_start="rolls the plan, by steps", rates=TEMPERATURES,
            batch="MPPI_Batched",
        )
    ]  # fmt: skip


def _options(costs: Costs, rate: float | None) -> dict[str, Any]:
    task = costs.task
    num_actions = task.shape_BHA[2]
    return {
        "noise_sigma": torch.eye(num_actions) * task.init_std**2, "num_samples": task.num_samples, "horizon": task.shape_BHA[1],
        "lambda_": rate, "u_min": -torch.ones(num_actions), "u_max": torch.ones(num_actions),
    }  # fmt: skip
