"""The anytime loop shared by the planners; a method adds `begin`, `propose` and `update`, all three pure functions.

    params <- begin(start)
    repeat, until the iterations are done, the search has converged or the deadline is near:
        candidates <- project(propose(params, noise))
        costs      <- objective(rollout(candidates)); not finite: excluded and counted
        incumbent  <- the best candidate seen so far
        params     <- update(params, candidates, costs)

Letters: B problems, S candidates, H horizon steps, N tokens, D latent width, A action dimensions, I iterations.

Nothing in the loop waits for the device, unless a deadline or a tolerance was asked for.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from goalward.planners.actions import center_A, half_range_A, hold_A
from goalward.planners.base import Plan, PlannerState, Problem, StopReason
from goalward.planners.methods.noise import generators, standard_normal_BSHA
from goalward.planners.methods.warm_start import shifted
from goalward.planners.objectives.base import Outcome

ParamsT = TypeVar("ParamsT")
Clock = Callable[[], float]

STALLED_ITERATIONS = 2
"""A search has converged when this many iterations in a row improved the best cost by less than the tolerance."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Start:
    """Where a search begins."""

    mean_BHA: Tensor
    """The shifted previous plan; without one, the cold start. Feasible."""
    cold_BHA: Tensor
    """The middle of the action set. Feasible."""
    warm_B: Tensor
    """Which problems have a previous plan."""
    unit_A: Tensor
    """Half the range of each action entry."""
    noise_BSHA: Callable[[int], Tensor]
    """Draws standard normal noise for so many candidates."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evaluation:
    """What the model says of candidates."""

    actions_BSHA: Tensor
    """Feasible."""
    cost_BS: Tensor
    """+inf where the cost was not finite."""
    finite_BS: Tensor
    """Where it was finite."""
    z_BSHND: Tensor
    """Predicted latents."""
    gradient_BSHA: Tensor | None = None
    """Of the cost with respect to the actions, physical units, where the method asks for it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Incumbent:
    """The best candidate of each problem so far."""

    actions_BHA: Tensor
    cost_B: Tensor
    z_BHND: Tensor | None = None

    def challenged(self, evaluation: Evaluation, active_B: Tensor | None) -> Incumbent:
        """Accepts the best of the candidates where it is strictly better and the problem still active."""
        cost_B, best_B = evaluation.cost_BS.min(dim=1)
        rows_B = torch.arange(cost_B.shape[0], device=cost_B.device)
        better_B = cost_B < self.cost_B
        if active_B is not None:
            better_B = better_B & active_B
        better_B11 = better_B[:, None, None]
        z_BHND = evaluation.z_BSHND[rows_B, best_B]
        nothing = z_BHND.new_full((), float("nan")) if self.z_BHND is None else self.z_BHND
        return Incumbent(
            actions_BHA=torch.where(better_B11, evaluation.actions_BSHA[rows_B, best_B], self.actions_BHA),
            cost_B=torch.where(better_B, cost_B, self.cost_B),
            z_BHND=torch.where(better_B11[..., None], z_BHND, nothing),
        )


class Search(ABC, Generic[ParamsT]):
    """Base of the iterative planners; holds constants only.

    Args:
        num_candidates: S.
        num_iterations: I, at most.
        tolerance: Relative improvement below which an iteration counts as stalled; 0 never stops early.
        clock: Monotonic seconds; deadlines are readings of it.
    """

    uses_gradient: ClassVar[bool] = False
    """Whether `update` needs the gradient of the costs."""
    updates_after_last: bool = False
    """Whether `conclude` needs the parameters after the last iteration."""

    def __init__(self, *, num_candidates: int, num_iterations: int, tolerance: float = 0.0, clock: Clock = time.perf_counter) -> None:
        self.num_candidates = num_candidates
        self.num_iterations = num_iterations
        self.tolerance = tolerance
        self.clock = clock

    @abstractmethod
    def begin(self, start: Start) -> ParamsT:
        """Returns the parameters before the first iteration."""

    @abstractmethod
    def propose(self, params: ParamsT, start: Start) -> Tensor:
        """Returns candidates [B, S, H, A]; they need not be feasible, but finite."""

    @abstractmethod
    def update(self, params: ParamsT, evaluation: Evaluation, incumbent: Incumbent, start: Start) -> ParamsT:
        """Learns from the costs."""

    def conclude(self, params: ParamsT, problem: Problem, incumbent: Incumbent, start: Start) -> Incumbent:
        """Chooses the result; the best candidate ever seen, unless a method knows better."""
        return incumbent

    def coloring_HH(self, horizon: int) -> Tensor | None:
        """Time correlation of the noise, see `noise.coloring_matrix_HH`."""
        return None

    def draw(self, sources: list[torch.Generator], shape_SHA: tuple[int, int, int], problem: Problem) -> Tensor:
        """Draws the noise of one iteration in one call per problem."""
        device = problem.z_goal_BGND.device
        return standard_normal_BSHA(sources, shape_SHA, device=device, coloring_HH=self.coloring_HH(shape_SHA[1]))

    @torch.no_grad()
    def plan(self, problem: Problem, state: PlannerState, *, deadline_s: float | None = None) -> tuple[Plan, PlannerState]:
        """See `base.Planner.plan`."""
        begun_s = self.clock()
        start = self._start(problem, state)
        tally = _Tally(problem.num_problems, start.mean_BHA.device)
        incumbent = _nothing_yet(problem, start)
        params = self.begin(start)
        reason: StopReason = "iterations"
        slowest_s = 0.0
        for iteration in range(self.num_iterations):
            iteration_begun_s = self.clock() if deadline_s is not None else 0.0
            if iteration and deadline_s is not None and iteration_begun_s + slowest_s > deadline_s:
                reason = "deadline"
                break
            last = iteration == self.num_iterations - 1
            actions_BSHA = problem.action_set.project(self.propose(params, start), problem.situation)
            evaluation = evaluate(problem, actions_BSHA, start.unit_A, gradient=self.uses_gradient and not last)
            previous_B, incumbent = incumbent.cost_B, incumbent.challenged(evaluation, tally.active_B)
            tally.count(evaluation, incumbent)
            if self.tolerance > 0 and not last and tally.converged(previous_B, incumbent.cost_B, self.tolerance):
                reason = "converged"
                break
            if not last or self.updates_after_last:
                params = self.update(params, evaluation, incumbent, start)
            if deadline_s is not None:
                if actions_BSHA.is_cuda:
                    torch.cuda.synchronize(actions_BSHA.device)
                slowest_s = max(slowest_s, self.clock() - iteration_begun_s)
        incumbent = self.conclude(params, problem, incumbent, start)
        assert incumbent.z_BHND is not None
        failed_B = ~torch.isfinite(incumbent.cost_B)
        times_BH = torch.tensor(problem.start_time_s, dtype=torch.float64)[:, None] + torch.arange(problem.horizon) * problem.dt_s
        stop_reason = tally.reasons(reason, failed_B)
        plan = Plan(
            actions_BHA=incumbent.actions_BHA,
            times_BH=times_BH,
            z_BHND=incumbent.z_BHND,
            cost_B=incumbent.cost_B,
            best_cost_BI=torch.stack(tally.best_cost, dim=1),
            mean_cost_BI=torch.stack(tally.mean_cost, dim=1),
            num_iterations_B=tally.num_iterations_B,
            num_nonfinite_B=tally.num_nonfinite_B,
            failed_B=failed_B,
            stop_reason=stop_reason,
            plan_ms=(self.clock() - begun_s) * 1e3,
        )
        return plan, _after(problem, state, plan)

    def _start(self, problem: Problem, state: PlannerState) -> Start:
        """Gathers what a search begins from."""
        bounds = problem.action_set
        horizon, num_actions = problem.horizon, bounds.low_A.shape[0]
        middle_BSHA = center_A(bounds).expand(problem.num_problems, 1, horizon, num_actions)
        cold_BHA = bounds.project(middle_BSHA, problem.situation)[:, 0]
        mean_BHA, warm_B = shifted(state, problem, cold_BHA)
        sources = generators(state.seeds, state.steps)
        return Start(
            mean_BHA=bounds.project(mean_BHA[:, None], problem.situation)[:, 0],
            cold_BHA=cold_BHA,
            warm_B=warm_B,
            unit_A=half_range_A(bounds),
            noise_BSHA=lambda num: self.draw(sources, (num, horizon, num_actions), problem),
        )


def evaluate(problem: Problem, actions_BSHA: Tensor, unit_A: Tensor, *, gradient: bool = False) -> Evaluation:
    """Rolls candidates out and prices them; see the contract in `base.py` for costs that are not finite.

    Raises:
        ValueError: The model's answer has another shape than promised, or carries no gradient where one is asked for.
    """
    with torch.set_grad_enabled(gradient):
        leaf_BSHA = actions_BSHA.detach().requires_grad_(gradient)
        z_BSHND = problem.model.rollout(problem.context, leaf_BSHA)
        expected = (*actions_BSHA.shape[:3], *problem.z_goal_BGND.shape[2:])
        if tuple(z_BSHND.shape) != expected:
            raise ValueError(f"rollout: the model returned latents of shape {tuple(z_BSHND.shape)}; expected {expected}")
        outcome = Outcome(
            z_BSHND=z_BSHND, z_goal_BGND=problem.z_goal_BGND, actions_BSHA=leaf_BSHA, unit_A=unit_A, situation=problem.situation
        )
        cost_BS = problem.objective(outcome)
        finite_BS = torch.isfinite(cost_BS.detach())
        gradient_BSHA = None
        if gradient:
            if not cost_BS.requires_grad:
                raise ValueError(
                    "rollout: the model's latents carry no gradient with respect to the actions; use a planner without gradients"
                )
            (raw_BSHA,) = torch.autograd.grad(torch.where(finite_BS, cost_BS, 0.0).sum(), leaf_BSHA)
            gradient_BSHA = torch.where(torch.isfinite(raw_BSHA), raw_BSHA, 0.0)
    return Evaluation(
        actions_BSHA=actions_BSHA,
        cost_BS=torch.where(finite_BS, cost_BS.detach(), float("inf")),
        finite_BS=finite_BS,
        z_BSHND=z_BSHND.detach(),
        gradient_BSHA=gradient_BSHA,
    )


class _Tally:
    """Counts and histories of one call; converged problems stay as they were, however long the others go on."""

    def __init__(self, num_problems: int, device: torch.device) -> None:
        zeros_B = torch.zeros(num_problems, dtype=torch.int64, device=device)
        self.num_iterations_B, self.num_nonfinite_B, self._stalled_B = zeros_B, zeros_B, zeros_B
        self.active_B: Tensor | None = None
        self.best_cost: list[Tensor] = []
        self.mean_cost: list[Tensor] = []

    def count(self, evaluation: Evaluation, incumbent: Incumbent) -> None:
        """Enters one iteration."""
        num_finite_B = evaluation.finite_BS.sum(dim=1)
        excluded_B = evaluation.finite_BS.shape[1] - num_finite_B
        mean_B = torch.where(evaluation.finite_BS, evaluation.cost_BS, 0.0).sum(dim=1) / num_finite_B
        mean_B = torch.where(num_finite_B > 0, mean_B, float("inf"))
        if self.active_B is None:
            self.num_iterations_B = self.num_iterations_B + 1
            self.num_nonfinite_B = self.num_nonfinite_B + excluded_B
        else:
            mean_B = torch.where(self.active_B, mean_B, self.mean_cost[-1])
            self.num_iterations_B = self.num_iterations_B + self.active_B
            self.num_nonfinite_B = self.num_nonfinite_B + excluded_B * self.active_B
        self.best_cost.append(incumbent.cost_B)
        self.mean_cost.append(mean_B)

    def converged(self, previous_B: Tensor, cost_B: Tensor, tolerance: float) -> bool:
        """Retires the problems that have stalled; True if all have."""
        # The first finite cost gains infinitely much, and a problem without one has not stalled: it has not begun.
        stalled_B = (previous_B - cost_B <= tolerance * cost_B.abs()) & torch.isfinite(cost_B)
        self._stalled_B = torch.where(stalled_B, self._stalled_B + 1, 0)
        going_on_B = self._stalled_B < STALLED_ITERATIONS
        self.active_B = going_on_B if self.active_B is None else going_on_B & self.active_B
        return not bool(self.active_B.any())

    def reasons(self, reason: StopReason, failed_B: Tensor) -> tuple[StopReason, ...]:
        """Says for each problem why its search ended."""
        failed = failed_B.tolist()
        active = [reason != "converged"] * len(failed) if self.active_B is None else self.active_B.tolist()
        return tuple("failed" if failed[b] else reason if active[b] else "converged" for b in range(len(failed)))


def _nothing_yet(problem: Problem, start: Start) -> Incumbent:
    """The incumbent before the first iteration: hold still, at infinite cost."""
    hold_BSHA = hold_A(problem.action_set).expand_as(start.mean_BHA)[:, None]
    return Incumbent(
        actions_BHA=problem.action_set.project(hold_BSHA, problem.situation)[:, 0],
        cost_B=start.mean_BHA.new_full(start.mean_BHA.shape[:1], float("inf")),
    )


def _after(problem: Problem, state: PlannerState, plan: Plan) -> PlannerState:
    """The state for the next call; a failed plan is no warm start."""
    times = tuple(
        float("-inf") if reason == "failed" else time_s for time_s, reason in zip(problem.start_time_s, plan.stop_reason, strict=True)
    )
    return replace(state, steps=tuple(step + 1 for step in state.steps), actions_BHA=plan.actions_BHA, start_time_s=times)
