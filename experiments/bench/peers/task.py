"""One thing to plan, with the budget and the cost object that all planners share, and a meter that sees every call of it.

    u in [-1, 1]^A          actions = centre + half range * u           cost = objective(rollout(actions))

Peers plan in u, where their own constants (a unit spread, a learning rate of 0.1) have the scale that they were chosen for.

Letters: B problems, S candidates, H horizon steps, T context frames, N tokens, D latent width, A action dimensions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from goalward.planners.actions import center_A, half_range_A
from goalward.planners.base import Problem
from goalward.planners.methods.evaluation import outcome_of

ROUNDING = 1e-6
"""Actions that leave the box by no more than this part of half its range are counted as inside."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Task:
    """B problems of one kind, and what may be spent on them."""

    case: str
    """What kind, for tables."""
    problem: Problem
    """As our planners are given it; its action set is a box."""
    referee: Problem
    """The same, by which every plan is judged in the end: in float32, whatever precision was planned with."""
    num_samples: int
    """S."""
    num_iterations: int
    """I."""
    num_elites: int
    """Candidates that shape the next iteration, in every cross-entropy method."""
    init_std: float = 0.6
    """Spread of the first iteration, in units of half the range."""
    optimum: float | None = None
    """Least cost in the box, where it is known."""
    compiled: Any = None
    """The same model with compiled rollouts; None where there is no learned model."""
    rerun: Callable[[Problem, torch.dtype], Any] | None = None
    """Makes the same cost in stable-worldmodel's manner, see `rerun.py`; None where there is no learned model."""

    @property
    def half_A(self) -> Tensor:
        """Half the range of each action entry."""
        return half_range_A(self.problem.action_set)

    @property
    def centre_A(self) -> Tensor:
        """Middle of the box."""
        return center_A(self.problem.action_set)

    @property
    def shape_BHA(self) -> tuple[int, int, int]:
        """Of a plan."""
        return self.problem.num_problems, self.problem.horizon, self.half_A.shape[0]

    @property
    def num_starts(self) -> int:
        """Sequences that descend side by side in a gradient method: a sixteenth of the samples."""
        return max(1, self.num_samples // 16)

    @property
    def num_descents(self) -> int:
        """Iterations of a gradient method: twice those of a sampling one."""
        return 2 * self.num_iterations

    def outside(self, actions: Tensor) -> Tensor:
        """Which sequences [..., H, A] leave the box, or are not finite, bool [...]."""
        inside = ((actions - self.centre_A).abs() <= self.half_A * (1 + ROUNDING)) & torch.isfinite(actions)
        return ~inside.flatten(-2).all(dim=-1)

    def price(self, actions_BHA: Tensor) -> Tensor:
        """The referee's cost [B] of plans, clipped to the box as whatever executes them would."""
        bounds = self.referee.action_set
        clipped = torch.clamp(torch.nan_to_num(actions_BHA), bounds.low_A, bounds.high_A)
        return _cost(self.referee, clipped[:, None], self.half_A)[:, 0]

    def alone(self, row: int) -> Task:
        """One of the problems of a batch whose context is a tensor."""
        return replace(self, problem=_row(self.problem, row), referee=_row(self.referee, row))


@dataclass(slots=True)
class Meter:
    """Time spent in the cost object, and the candidates that it was shown."""

    inside_s: float = 0.0
    actions: list[Tensor] = field(default_factory=list)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Adds the time of a block."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.inside_s += time.perf_counter() - begun

    @contextmanager
    def backward(self) -> Iterator[None]:
        """Adds the time of every backward pass in a block: it runs through the model, whoever calls it."""
        grad, backward = torch.autograd.grad, torch.autograd.backward

        def timed(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                with self.inside():
                    return function(*args, **kwargs)

            return call

        torch.autograd.grad, torch.autograd.backward = timed(grad), timed(backward)
        try:
            yield
        finally:
            torch.autograd.grad, torch.autograd.backward = grad, backward


class Costs:
    """The cost object as peers see it: candidates in u to costs."""

    def __init__(self, task: Task, meter: Meter) -> None:
        self.task, self.meter, self.problem = task, meter, task.problem

    def prime(self) -> None:
        """Digests the observed frames, as every plan must once."""
        with self.meter.inside():
            self.problem = primed(self.task.problem)

    def __call__(self, u_BSHA: Tensor, rows: Tensor | None = None) -> Tensor:
        """Costs [B, S]; `rows` names the problems where candidates are given for some only."""
        with self.meter.inside():
            actions_BSHA = self.task.centre_A + self.task.half_A * u_BSHA
            self.meter.actions.append(actions_BSHA.detach())
            problem = self.problem if rows is None or len(rows) == self.problem.num_problems else _row(self.problem, int(rows[0]))
            return _cost(problem, actions_BSHA, self.task.half_A)

    def plan(self, u_BHA: Tensor) -> Tensor:
        """Actions [B, H, A] in physical units."""
        return (self.task.centre_A + self.task.half_A * u_BHA).detach()


def metered(problem: Problem, meter: Meter) -> Problem:
    """The same problem, whose model and objective report to a meter: the cost object as our planners see it."""
    model, objective = problem.model, problem.objective

    class Model:
        """Passes everything on."""

        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

        def prime(self, z_BTND: Tensor) -> Any:
            """Timed."""
            with meter.inside():
                return model.prime(z_BTND)

        def rollout(self, context: Any, actions_BSHA: Tensor) -> Tensor:
            """Timed, and noted."""
            meter.actions.append(actions_BSHA.detach())
            with meter.inside():
                return model.rollout(context, actions_BSHA)

    def timed(outcome: Any) -> Tensor:
        with meter.inside():
            return objective(outcome)

    wrapped: Any = Model()
    priced: Any = timed
    return replace(problem, model=wrapped, objective=priced)


def primed(problem: Problem) -> Problem:
    """Computes the context anew."""
    assert problem.z_BTND is not None
    return replace(problem, context=problem.model.prime(problem.z_BTND))


def _cost(problem: Problem, actions_BSHA: Tensor, unit_A: Tensor) -> Tensor:
    return problem.objective(outcome_of(problem, problem.model.rollout(problem.context, actions_BSHA), actions_BSHA, unit_A))


def _row(problem: Problem, row: int) -> Problem:
    assert problem.z_BTND is not None
    rows = slice(row, row + 1)
    return replace(
        problem,
        context=problem.context[rows],
        z_goal_BGND=problem.z_goal_BGND[rows],
        z_BTND=problem.z_BTND[rows],
        start_time_s=problem.start_time_s[rows],
    )
