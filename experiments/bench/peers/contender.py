"""A planner in the comparison, ours or a peer's, and ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from goalward.experiments.bench.peers.task import Meter, Task, metered, primed
from goalward.planners.base import PlannerState
from goalward.planners.registry import PLANNERS, find_planner, make_planner

Search = Callable[[], Tensor]
"""Plans once: actions [B, H, A], physical units. What it takes is the plan time."""
OURS = "goalward"
REFERENCE = f"{OURS} cem"
"""What the others are compared with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """One planner."""

    name: str
    """Library and method, for tables."""
    prepare: Callable[[Task, int, Meter, float | None], Search]
    """Builds all that a control loop would build once, from a seed and the tuned constant; outside the plan time."""
    warm_start: str
    """What its interface offers for the next control step."""
    rates: tuple[float, ...] = ()
    """Values of the one constant that is tuned for each case, on other problems than those reported; none: nothing is tuned."""
    needs_model: bool = False
    """Whether it can only be run where there is a learned model."""
    batch: str = "yes"
    """How several problems are planned in one call; "no" if they cannot be."""
    prepare_batch: Callable[[Task, int, Meter, float | None], Search] | None = None
    """The same for several problems, where that is another class; None: `prepare` does."""
    contract: bool = True
    """Whether its behaviour under NaN and in batches is tested: once for each search."""

    @property
    def library(self) -> str:
        """First word of the name."""
        return self.name.split(" ", 1)[0]


def ours() -> list[Contender]:
    """Every registered planner, at its defaults but for the budget; the reference also with compiled rollouts."""
    found = [Contender(name=f"{OURS} {name}", prepare=_prepare(name), warm_start="by elapsed time") for name in PLANNERS]
    compiled = _prepare("cem", compiled=True)
    again = Contender(name=f"{REFERENCE}, compiled", prepare=compiled, warm_start="by elapsed time", needs_model=True, contract=False)
    return [*found, again]


def our_config(name: str, task: Task) -> Any:
    """A planner's default configuration with the task's budget."""
    default = find_planner(name).config()
    names = {field.name for field in dataclasses.fields(default)}
    budget = {"num_iterations": task.num_iterations, "init_std": task.init_std}
    if "num_starts" in names:
        # Gradient planners keep the spread of their starts; peers' gradient planners get the same number of both.
        budget = {"num_starts": task.num_starts, "num_iterations": task.num_descents}
    elif "num_samples" in names:
        budget["num_samples"] = task.num_samples
    if name in ("cem", "icem"):
        budget["num_elites"] = task.num_elites
    return dataclasses.replace(default, **{field: value for field, value in budget.items() if field in names})


def _prepare(name: str, *, compiled: bool = False) -> Callable[[Task, int, Meter, float | None], Search]:
    def prepare(task: Task, seed: int, meter: Meter, rate: float | None) -> Search:
        planner = make_planner(name, our_config(name, task))
        state = PlannerState.initial([seed] * task.problem.num_problems)
        problem = metered(replace(task.problem, model=task.compiled) if compiled else task.problem, meter)

        def search() -> Tensor:
            plan, _ = planner.plan(primed(problem), state)
            return plan.actions_BHA

        return search

    return prepare
