"""The anytime loop shared by the planners; a method adds `begin`, `propose` and `update`, all three pure functions.

    params <- begin(start)
    repeat, until the iterations are done, the search has converged or the deadline is near:
        candidates <- project(propose(params, noise)); in the first iteration, with the problem's own proposals among them
        costs      <- objective(rollout(candidates)); not finite: excluded and counted
        incumbent  <- the best candidate seen so far
        params     <- update(params, candidates, costs)

Letters: B problems, S candidates, K variables in time (horizon steps, or knots), H horizon steps, A action dimensions, I iterations.

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

from goalward import UserError
from goalward.planners.actions import center_A, half_range_A, hold_A
from goalward.planners.base import Plan, PlannerState, Problem, StopReason
from goalward.planners.methods.evaluation import Evaluation, Evaluator, Incumbent
from goalward.planners.methods.noise import generators, standard_normal_BSHA
from goalward.planners.methods.proposals import with_proposals
from goalward.planners.methods.screening import Screening, screened
from goalward.planners.methods.tally import Tally
from goalward.planners.methods.warm_start import shift_of

ParamsT = TypeVar("ParamsT")
Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Start:
    """Where a search begins."""

    mean_BKA: Tensor
    """The shifted previous plan; without one, the cold start."""
    cold_BKA: Tensor
    """The middle of the action set."""
    hold_BHA: Tensor
    """Holding still, as nearly as the action set permits."""
    warm_B: Tensor
    """Which problems have a previous plan."""
    others_BEKA: Tensor | None
    """Other good plans of the previous step, shifted; meaningless where a problem is cold."""
    unit_A: Tensor
    """Half the range of each action entry."""
    noise_BSKA: Callable[[int], Tensor]
    """Draws standard normal noise for so many candidates."""
    evaluate: Evaluator
    """Prices candidates, for methods that need more than the loop's own evaluation."""


class Search(ABC, Generic[ParamsT]):
    """Base of the iterative planners; holds constants only.

    Args:
        num_candidates: S.
        num_iterations: I, at most.
        tolerance: Relative improvement below which an iteration counts as stalled; 0 never stops early.
        clock: Monotonic seconds; deadlines are readings of it.
    """

    uses_gradient: ClassVar[bool] = False
    """Whether `update` needs the gradient of the costs, see `wants_gradient`."""
    screening: Screening | None = None
    """Look at all candidates coarsely first; see `screening.py`."""
    num_learned_from: int = 1
    """Candidates that an update needs at least."""
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

    def wants_gradient(self, params: ParamsT) -> bool:
        """Whether the next update needs the gradient."""
        return self.uses_gradient

    def conclude(self, params: ParamsT, incumbent: Incumbent, start: Start) -> Incumbent:
        """Chooses the result; the best candidate ever seen, unless a method knows better."""
        return incumbent

    def others_BEKA(self, params: ParamsT) -> Tensor | None:
        """Good plans beside the best, to be carried into the next step."""
        return None

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
        tally = Tally(problem.num_problems, start.mean_BKA.device)
        incumbent = _nothing_yet(start)
        params = self.begin(start)
        reason: StopReason = "iterations"
        slowest_s = 0.0
        for iteration in range(self.num_iterations):
            iteration_begun_s = self.clock() if deadline_s is not None else 0.0
            if iteration and deadline_s is not None and iteration_begun_s + slowest_s > deadline_s:
                reason = "deadline"
                break
            last = iteration == self.num_iterations - 1
            variables_BSKA = self.propose(params, start)
            if iteration == 0:
                variables_BSKA = with_proposals(variables_BSKA, problem)
            evaluation = self._evaluated(variables_BSKA, start, gradient=not last and self.wants_gradient(params))
            previous_B, incumbent = incumbent.cost_B, incumbent.challenged(evaluation, tally.active_B)
            tally.count(evaluation, incumbent)
            if self.tolerance > 0 and not last and tally.converged(previous_B, incumbent.cost_B, self.tolerance):
                reason = "converged"
                break
            if not last or self.updates_after_last:
                params = self.update(params, evaluation, incumbent, start)
            if deadline_s is not None:
                if evaluation.cost_BS.is_cuda:
                    torch.cuda.synchronize(evaluation.cost_BS.device)
                slowest_s = max(slowest_s, self.clock() - iteration_begun_s)
        incumbent = self.conclude(params, incumbent, start)
        assert incumbent.z_BHND is not None
        failed_B = ~torch.isfinite(incumbent.cost_B)
        times_BH = torch.tensor(problem.start_time_s, dtype=torch.float64)[:, None] + torch.arange(problem.horizon) * problem.dt_s
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
            stop_reason=tally.reasons(reason, failed_B),
            plan_ms=(self.clock() - begun_s) * 1e3,
        )
        return plan, _after(problem, state, plan, incumbent, self.others_BEKA(params))

    def _evaluated(self, variables_BSKA: Tensor, start: Start, *, gradient: bool) -> Evaluation:
        """Prices candidates; where the method screens, the most promising and the first two, which are the warm and the cold start."""
        if self.screening is None or gradient:
            return start.evaluate(variables_BSKA, gradient=gradient)
        if start.evaluate.spline_BHK is not None:
            raise UserError("screening: cannot be combined with knots; plan without one of them")
        actions_BSHA = start.evaluate.actions(variables_BSKA)
        return screened(start.evaluate.problem, actions_BSHA, start.unit_A, self.screening, at_least=self.num_learned_from, keep_first=2)

    def _start(self, problem: Problem, state: PlannerState) -> Start:
        """Gathers what a search begins from."""
        bounds, knots = problem.action_set, problem.knots
        num_actions = bounds.low_A.shape[0]
        num_variables = problem.horizon if knots is None else knots.num(problem.horizon, problem.dt_s)
        cold_BKA = center_A(bounds).expand(problem.num_problems, num_variables, num_actions)
        mean_BKA, others_BEKA = cold_BKA, None
        warm_B = torch.zeros(problem.num_problems, dtype=torch.bool, device=cold_BKA.device)
        shift = shift_of(state, problem, num_variables)
        if shift is not None and state.actions_BHA is not None:
            warm_B = shift.warm_B
            mean_BKA = torch.where(warm_B[:, None, None], shift.apply(state.actions_BHA[:, None])[:, 0], cold_BKA)
            others_BEKA = None if state.others_BEHA is None else shift.apply(state.others_BEHA)
        hold_BHA = hold_A(bounds).expand(problem.num_problems, problem.horizon, -1)
        spline_BHK = None
        if knots is None:  # one projection for all three: it costs as much as for one
            together_BSHA = torch.stack([cold_BKA, mean_BKA, hold_BHA], dim=1)
            cold_BKA, mean_BKA, hold_BHA = bounds.project(together_BSHA, problem.situation).unbind(1)
        else:
            spline_BHK = knots.weights_BHK(problem.start_time_s, problem.horizon, problem.dt_s).to(cold_BKA.device)
            hold_BHA = bounds.project(hold_BHA[:, None], problem.situation)[:, 0]
        sources = generators(state.seeds, state.steps)
        unit_A = half_range_A(bounds)
        return Start(
            mean_BKA=mean_BKA,
            cold_BKA=cold_BKA,
            hold_BHA=hold_BHA,
            warm_B=warm_B,
            others_BEKA=others_BEKA,
            unit_A=unit_A,
            noise_BSKA=lambda num: self.draw(sources, (num, num_variables, num_actions), problem),
            evaluate=Evaluator(problem=problem, unit_A=unit_A, spline_BHK=spline_BHK),
        )


def _nothing_yet(start: Start) -> Incumbent:
    """The incumbent before the first iteration: hold still, at infinite cost."""
    return Incumbent(
        variables_BKA=start.cold_BKA,
        actions_BHA=start.hold_BHA,
        cost_B=start.mean_BKA.new_full(start.mean_BKA.shape[:1], float("inf")),
    )


def _after(problem: Problem, state: PlannerState, plan: Plan, incumbent: Incumbent, others_BEKA: Tensor | None) -> PlannerState:
    """The state for the next call; a failed plan is no warm start."""
    times = tuple(
        float("-inf") if reason == "failed" else time_s for time_s, reason in zip(problem.start_time_s, plan.stop_reason, strict=True)
    )
    return replace(
        state,
        steps=tuple(step + 1 for step in state.steps),
        actions_BHA=incumbent.variables_BKA,
        others_BEHA=others_BEKA,
        start_time_s=times,
    )
