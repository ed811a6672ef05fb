"""Warm starts: the previous plan, shifted by the time that has passed, and batches of planner states.

    previous plan   |-- a1 --|-- a2 --|-- a3 --|-- a4 --|
    now                      ^ one step later
    warm start               |-- a2 --|-- a3 --|-- a4 --|-- a4 --|

Letters: B problems, H horizon steps, A action dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.base import PlannerState, Problem

_SNAP = 1e-3
"""A shift this near to a whole number of steps is one: clocks round."""


def shifted(state: PlannerState, problem: Problem, cold_BHA: Tensor) -> tuple[Tensor, Tensor]:
    """Shifts the previous plans to the new start times; between whole steps, actions are averaged by overlap.

    Beyond its end a plan repeats its last action. A plan that lies wholly in the past, or in the future (the clock was reset), is dropped.

    Args:
        state: With the previous plans, or without.
        problem: The new problems, as many as the state has.
        cold_BHA: Where a search without a warm start begins.

    Returns:
        The starting actions [B, H, A] and which problems are warm, bool [B].
    """
    num_problems, horizon, num_actions = cold_BHA.shape
    if len(state.seeds) != num_problems:
        raise UserError(
            f"planner state: made for {len(state.seeds)} problems, given {num_problems}; give PlannerState.initial one seed per problem"
        )
    previous = state.actions_BHA
    if previous is None or previous.shape[2] != num_actions:
        return cold_BHA, torch.zeros(num_problems, dtype=torch.bool, device=cold_BHA.device)
    length = previous.shape[1]
    warm, whole, part = [], [], []
    for now_s, then_s in zip(problem.start_time_s, state.start_time_s, strict=True):
        shift = (now_s - then_s) / problem.dt_s
        warm.append(-_SNAP <= shift < length - _SNAP)
        shift = shift if warm[-1] else 0.0
        nearest = round(shift)
        start = float(nearest) if abs(shift - nearest) < _SNAP else shift
        whole.append(math.floor(start))
        part.append(start - math.floor(start))
    device = cold_BHA.device
    first_BH = torch.tensor(whole)[:, None] + torch.arange(horizon)
    rows_B1 = torch.arange(num_problems)[:, None].to(device)
    part_B11 = torch.tensor(part, dtype=torch.float32)[:, None, None].to(device)
    early = previous[rows_B1, first_BH.clamp(max=length - 1).to(device)]
    late = previous[rows_B1, (first_BH + 1).clamp(max=length - 1).to(device)]
    warm_B = torch.tensor(warm).to(device)
    return torch.where(warm_B[:, None, None], torch.lerp(early, late, part_B11), cold_BHA), warm_B


def stack_states(states: Sequence[PlannerState]) -> PlannerState:
    """Joins the states of several problems into one, in order; any of them may be cold."""
    known = [state.actions_BHA for state in states if state.actions_BHA is not None]
    actions = None
    if known:
        parts = [known[0].new_zeros(len(s.seeds), *known[0].shape[1:]) if s.actions_BHA is None else s.actions_BHA for s in states]
        actions = torch.cat(parts)
    return PlannerState(
        seeds=tuple(seed for state in states for seed in state.seeds),
        steps=tuple(step for state in states for step in state.steps),
        actions_BHA=actions,
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
            start_time_s=state.start_time_s[b : b + 1],
        )
        for b in range(len(state.seeds))
    )
