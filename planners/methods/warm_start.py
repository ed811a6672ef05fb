"""Warm starts: the previous plan, shifted by the time that has passed, and batches of planner states.

    previous plan   |-- a1 --|-- a2 --|-- a3 --|-- a4 --|
    now                      ^ one step later
    warm start               |-- a2 --|-- a3 --|-- a4 --|-- a4 --|

Letters: B problems, E plans of each, H variables in time (horizon steps, or knots), A action dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.base import PlannerState, Problem

_SNAP = 1e-3
"""A shift this near to a whole number of steps is one: clocks round."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Shift:
    """How far previous plans are shifted."""

    warm_B: Tensor
    """Which problems have a previous plan that reaches into the present."""
    first_BH: Tensor
    """Which previous step each new one begins in, int64; may point beyond the end, where the last step is repeated."""
    part_B: Tensor
    """How much of the step after it is mixed in, float32."""

    def apply(self, previous_BEHA: Tensor) -> Tensor:
        """Shifts plans, whatever their length, to the new times; between whole steps, actions are averaged by overlap."""
        last = previous_BEHA.shape[2] - 1
        rows_B1 = torch.arange(previous_BEHA.shape[0], device=previous_BEHA.device)[:, None]
        by_step_BHEA = previous_BEHA.transpose(1, 2)
        early = by_step_BHEA[rows_B1, self.first_BH.clamp(max=last)]
        late = by_step_BHEA[rows_B1, (self.first_BH + 1).clamp(max=last)]
        return torch.lerp(early, late, self.part_B[:, None, None, None]).transpose(1, 2)


def shift_of(state: PlannerState, problem: Problem, length: int) -> Shift | None:
    """Compares the clocks.

    A plan that lies wholly in the past, or in the future (the clock was reset), is dropped.

    Args:
        state: With the previous plans, or without.
        problem: The new problems, as many as the state has.
        length: H of the new plans.

    Returns:
        None where no problem can have a previous plan.

    Raises:
        UserError: The state belongs to another number of problems.
    """
    if len(state.seeds) != problem.num_problems:
        raise UserError(
            f"planner state: made for {len(state.seeds)} problems, given {problem.num_problems}; "
            "give PlannerState.initial one seed per problem"
        )
    previous = state.actions_BHA
    if previous is None or previous.shape[2] != problem.action_set.low_A.shape[0]:
        return None
    knots, end = problem.knots, previous.shape[1]
    if knots is not None and end != length:
        return None
    warm, whole, part = [], [], []
    for now_s, then_s in zip(problem.start_time_s, state.start_time_s, strict=True):
        if knots is None:
            shift = (now_s - then_s) / problem.dt_s
        else:
            known = math.isfinite(now_s) and math.isfinite(then_s)
            shift = float(knots.first(now_s) - knots.first(then_s)) if known else math.inf
        warm.append(-_SNAP <= shift < end - _SNAP)
        shift = shift if warm[-1] else 0.0
        nearest = round(shift)
        start = float(nearest) if abs(shift - nearest) < _SNAP else shift
        whole.append(math.floor(start))
        part.append(start - math.floor(start))
    device = previous.device
    return Shift(
        warm_B=torch.tensor(warm).to(device),
        first_BH=(torch.tensor(whole)[:, None] + torch.arange(length)).to(device),
        part_B=torch.tensor(part, dtype=torch.float32).to(device),
    )


def shifted(state: PlannerState, problem: Problem, cold_BHA: Tensor) -> tuple[Tensor, Tensor]:
    """Shifts the previous plans to the new start times; see `Shift` and `shift_of`.

    Args:
        state: With the previous plans, or without.
        problem: The new problems, as many as the state has.
        cold_BHA: Where a search without a warm start begins.

    Returns:
        Where to start [B, H, A], and which problems are warm, bool [B].
    """
    shift = shift_of(state, problem, cold_BHA.shape[1])
    if shift is None or state.actions_BHA is None:
        return cold_BHA, torch.zeros(problem.num_problems, dtype=torch.bool, device=cold_BHA.device)
    warm_BHA = shift.apply(state.actions_BHA[:, None])[:, 0]
    return torch.where(shift.warm_B[:, None, None], warm_BHA, cold_BHA), shift.warm_B


def stack_states(states: Sequence[PlannerState]) -> PlannerState:
    """Joins the states of several problems into one, in order; any of them may be cold."""
    return PlannerState(
        seeds=tuple(seed for state in states for seed in state.seeds),
        steps=tuple(step for state in states for step in state.steps),
        actions_BHA=_joined([(state.actions_BHA, len(state.seeds)) for state in states]),
        others_BEHA=_joined([(state.others_BEHA, len(state.seeds)) for state in states]),
        start_time_s=tuple(time for state in states for time in state.start_time_s),
    )


def split_state(state: PlannerState) -> tuple[PlannerState, ...]:
    """Takes a state apart, one problem each."""
    return tuple(
        replace(
            state,
            seeds=state.seeds[b : b + 1],
            steps=state.steps[b : b + 1],
            actions_BHA=None if state.actions_BHA is None else state.actions_BHA[b : b + 1],
            others_BEHA=None if state.others_BEHA is None else state.others_BEHA[b : b + 1],
            start_time_s=state.start_time_s[b : b + 1],
        )
        for b in range(len(state.seeds))
    )


def _joined(parts: Sequence[tuple[Tensor | None, int]]) -> Tensor | None:
    """Joins rows; zeros stand for what is missing, whose start time of -inf says that it is not to be used."""
    known = [part for part, _ in parts if part is not None]
    if not known:
        return None
    return torch.cat([known[0].new_zeros(num, *known[0].shape[1:]) if part is None else part for part, num in parts])
