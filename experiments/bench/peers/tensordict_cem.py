"""torchrl's CEM planner (https://github.com/pytorch/rl, `torchrl.modules.planners.CEMPlanner`).

It plans in an environment: here a `ModelBasedEnvBase` whose observation is the sequence of actions so far, and whose reward at the last
step is minus the shared cost object. Its first spread is always 1, so its unit is the common first spread; bounds are its action spec's,
to which it projects candidates. It returns the first action alone, of the mean of the last elites; that mean is taken again from the
last candidates, which costs nothing beside a rollout.

Letters: B problems, S candidates, H horizon steps, A action dimensions.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from goalward.experiments.bench.peers.contender import Contender, Search
from goalward.experiments.bench.peers.task import Costs, Meter, Task


def contenders() -> list[Contender]:
    """CEM.

    Raises:
        ImportError: Not installed, or something that it needs is missing.
    """
    planners, tensordict = (importlib.import_module(name) for name in ("torchrl.modules.planners", "tensordict"))

    def prepare(task: Task, seed: int, meter: Meter, rate: float | None) -> Search:
        num_problems, horizon, num_actions = task.shape_BHA
        score = Score(Costs(task, meter))
        planner = planners.CEMPlanner(_environment(score), horizon, task.num_iterations, task.num_samples, task.num_elites)
        beginning = tensordict.TensorDict(
            {"so_far": torch.zeros(num_problems, horizon, num_actions), "step": torch.zeros(num_problems, 1)}, [num_problems]
        )

        def search() -> Tensor:
            score.costs.prime()
            torch.manual_seed(seed)
            with torch.no_grad():
                planner(beginning.clone())
            return score.elite_mean()

        return search

    return [Contender(name="torchrl CEM", prepare=prepare, warm_start="none", batch="TensorDict")]


class Score(torch.nn.Module):
    """Reward of the sequence so far: nothing, until it is complete."""

    def __init__(self, costs: Costs) -> None:
        super().__init__()
        self.costs = costs
        self.last: tuple[Tensor, Tensor] | None = None

    def forward(self, so_far_BSHA: Tensor, step_BS1: Tensor) -> Tensor:
        """Rewards [B, S, 1]."""
        if int(step_BS1.flatten()[0]) < so_far_BSHA.shape[-2]:
            return torch.zeros_like(step_BS1)
        cost_BS = self.costs(so_far_BSHA * self.costs.task.init_std)
        self.last = so_far_BSHA, cost_BS
        return -cost_BS[..., None]

    def elite_mean(self) -> Tensor:
        """The plan: what the planner takes its first action from."""
        assert self.last is not None
        so_far_BSHA, cost_BS = self.last
        index_BE = (-cost_BS).topk(self.costs.task.num_elites, dim=1).indices
        rows_B1 = torch.arange(cost_BS.shape[0])[:, None]
        return self.costs.plan(so_far_BSHA[rows_B1, index_BE].mean(dim=1) * self.costs.task.init_std)


def _advance(so_far: Tensor, step: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    so_far = so_far.clone()
    so_far[..., int(step.flatten()[0]), :] = action
    return so_far, step + 1


def _environment(score: Score) -> Any:
    """As torchrl's docs make one: a world model of a transition and a reward, and specs."""
    envs, data, modules = (importlib.import_module(f"torchrl.{name}") for name in ("envs.model_based", "data", "modules"))
    nn = importlib.import_module("tensordict.nn")
    _, horizon, num_actions = score.costs.task.shape_BHA
    world = modules.WorldModelWrapper(
        nn.TensorDictModule(_advance, in_keys=["so_far", "step", "action"], out_keys=["so_far", "step"]),
        nn.TensorDictModule(score, in_keys=["so_far", "step"], out_keys=["reward"]),
    )
    base: Any = envs.ModelBasedEnvBase

    class Environment(base):  # type: ignore[misc]
        """Stateless: everything is in the tensordict."""

        def __init__(self) -> None:
            super().__init__(world, device="cpu", batch_size=torch.Size([]))
            seen = {"so_far": data.Unbounded((horizon, num_actions)), "step": data.Unbounded((1,))}
            self.observation_spec = data.Composite(**seen)
            self.state_spec = data.Composite(**{name: spec.clone() for name, spec in seen.items()})
            limit = 1.0 / score.costs.task.init_std
            self.action_spec = data.Bounded(low=-limit, high=limit, shape=(num_actions,), dtype=torch.float32)
            self.reward_spec = data.Unbounded((1,))

        def _reset(self, tensordict: Any, **_: Any) -> Any:
            return tensordict

    return Environment()
