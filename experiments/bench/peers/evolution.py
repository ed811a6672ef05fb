"""pycma (https://github.com/CMA-ES/pycma) by itself: ask, price, tell; bounds by its own option; the best candidate is the plan.

Our planner `cma_es` is made of the same library. Here it is used as its docs show, so that what ours adds can be seen.
"""

from __future__ import annotations

import importlib
import warnings

import numpy as np
import torch
from torch import Tensor

from goalward.experiments.bench.peers.contender import Contender, Search
from goalward.experiments.bench.peers.task import Costs, Meter, Task


def contenders() -> list[Contender]:
    """CMA-ES, one problem at a time.

    Raises:
        ImportError: Not installed.
    """
    library = importlib.import_module("cma")

    def prepare(task: Task, seed: int, meter: Meter, rate: float | None) -> Search:
        costs = Costs(task, meter)
        _, horizon, num_actions = task.shape_BHA
        options = {
            "bounds": [-1, 1], "popsize": task.num_samples, "maxiter": task.num_iterations, "seed": seed + 1, "verbose": -9,
            "verb_log": 0, "verb_disp": 0,
        }  # fmt: skip

        def search() -> Tensor:
            costs.prime()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it comments on budgets as small as a control loop's
                search = library.CMAEvolutionStrategy([0.0] * (horizon * num_actions), task.init_std, options)
                for _ in range(task.num_iterations):
                    points = search.ask()
                    u_BSHA = torch.from_numpy(np.asarray(points, dtype=np.float32)).reshape(1, -1, horizon, num_actions)
                    search.tell(points, costs(u_BSHA)[0].tolist())
            best = search.result.xbest
            plan = torch.full((1, horizon, num_actions), torch.nan) if best is None else torch.tensor(best).float()
            return costs.plan(plan.reshape(1, horizon, num_actions))

        return search

    return [Contender(name="cma CMA-ES", prepare=prepare, warm_start="initial mean, by hand", batch="no")]
