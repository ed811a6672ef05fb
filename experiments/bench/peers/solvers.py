"""stable-worldmodel's solvers (https://github.com/galilai-group/stable-worldmodel, 0.1.1).

They are used as its policy does: built once, configured with the action space, `solve(info)` for every plan, the mean (or what they return)
taken as the plan. Actions are normalised, as in its own training. The elites are ours; all else is their default, but for what is tuned.

The package's own `__init__` imports data sets, environments and torchvision, which planning does not need: an empty package is put in its
place, so that `stable_worldmodel.solver` can be imported by itself.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import types
from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from goalward.experiments.bench.peers.contender import Contender, Search
from goalward.experiments.bench.peers.rerun import RerunCost
from goalward.experiments.bench.peers.task import Costs, Meter, Task

LIBRARY = "stable-worldmodel"
_WARM = "init_action, by steps"
TEMPERATURES = (0.5, 0.1, 0.02, 0.004)
SGD_RATES = (1.0, 0.3, 0.1, 10.0)
ADAM_RATES = (0.1, 0.03, 0.3)


def contenders() -> list[Contender]:
    """Its solvers for continuous actions, with the shared cost object and with its own way to roll out.

    Raises:
        ImportError: Not installed, or not importable; says which module.
    """
    solvers, Box = load_solvers(), importlib.import_module("gymnasium.spaces").Box

    def cem(task: Task, rate: float | None) -> dict[str, Any]:
        return {"num_samples": task.num_samples, "n_steps": task.num_iterations, "topk": task.num_elites}

    def mppi(task: Task, rate: float | None) -> dict[str, Any]:
        return cem(task, rate) | {"temperature": rate}

    def gradient(optimizer: Any) -> Callable[[Task, float | None], dict[str, Any]]:
        return lambda task, rate: {
            "num_samples": task.num_starts, "n_steps": task.num_descents, "optimizer_cls": optimizer, "optimizer_kwargs": {"lr": rate}
        }  # fmt: skip

    methods: dict[str, tuple[Any, Callable[[Task, float | None], dict[str, Any]], tuple[float, ...]]] = {
        "CEM": (solvers.CEMSolver, cem, ()),
        "iCEM": (solvers.ICEMSolver, cem, ()),
        "MPPI": (solvers.MPPISolver, mppi, TEMPERATURES),
        "gradient, SGD": (solvers.GradientSolver, gradient(torch.optim.SGD), SGD_RATES),
        "gradient, AdamW": (solvers.GradientSolver, gradient(torch.optim.AdamW), ADAM_RATES),
    }
    made = []
    for name, (solver, options, rates) in methods.items():
        common: Any = {"warm_start": _WARM, "rates": rates, "batch": "n_envs"}
        made.append(Contender(name=f"{LIBRARY} {name}", prepare=_prepare(solver, options, Box, None), **common))
        rollouts = {"own rollout": torch.float32, "own rollout in bfloat16": torch.bfloat16}
        for label, dtype in rollouts.items():
            if name == "CEM" or (name != "gradient, SGD" and dtype == torch.float32):
                prepare = _prepare(solver, options, Box, dtype)
                made.append(Contender(name=f"{LIBRARY} {name}, {label}", prepare=prepare, needs_model=True, contract=False, **common))
    return made


def load_solvers() -> Any:
    """Imports `stable_worldmodel.solver` without the rest of the package.

    Raises:
        ImportError: Not installed, or something that it needs is missing.
    """
    spec = find_spec("stable_worldmodel") if "stable_worldmodel" not in sys.modules else None
    if spec is not None:
        empty = types.ModuleType("stable_worldmodel")
        empty.__path__ = list(spec.submodule_search_locations or [])
        sys.modules["stable_worldmodel"] = empty
    return importlib.import_module("stable_worldmodel.solver")


class Costable:
    """The shared cost object, in stable-worldmodel's protocol; it has no parameters, so solvers work in float32."""

    def __init__(self, costs: Costs, rerun: RerunCost | None) -> None:
        self.costs, self.rerun = costs, rerun

    def get_cost(self, info: dict[str, Tensor], candidates_BSHA: Tensor) -> Tensor:
        """Costs [B, S] of candidates in u."""
        if self.rerun is None:
            return self.costs(candidates_BSHA, info["row"][:, 0])
        task, meter = self.costs.task, self.costs.meter
        with meter.inside():
            actions_BSHA = task.centre_A + task.half_A * candidates_BSHA
            meter.actions.append(actions_BSHA.detach())
            return self.rerun.cost(info, actions_BSHA, task.half_A)


def _prepare(
    solver_class: Any, options: Callable[[Task, float | None], dict[str, Any]], Box: Any, dtype: torch.dtype | None
) -> Callable[[Task, int, Meter, float | None], Search]:
    def prepare(task: Task, seed: int, meter: Meter, rate: float | None) -> Search:
        num_problems, horizon, num_actions = task.shape_BHA
        assert task.rerun is not None or dtype is None
        rerun = None if dtype is None or task.rerun is None else task.rerun(task.referee, dtype)
        info = {"row": torch.arange(num_problems)} if rerun is None else rerun.info()
        costs = Costs(task, meter)
        solver = solver_class(
            model=Costable(costs, rerun), batch_size=num_problems, var_scale=task.init_std, seed=seed, **options(task, rate)
        )
        space = Box(-1.0, 1.0, (num_problems, num_actions), np.float32)
        solver.configure(action_space=space, n_envs=num_problems, config=SimpleNamespace(horizon=horizon, action_block=1))

        def search() -> Tensor:
            if rerun is None:
                costs.prime()
            with contextlib.redirect_stdout(io.StringIO()):
                return costs.plan(solver.solve(dict(info))["actions"])

        return search

    return prepare
