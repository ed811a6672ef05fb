"""Proposals: action sequences that somebody who knows better than chance, such as an imitation policy, wants looked at first.

They take the place of as many candidates of the first iteration; the search goes on from there, so that it can only do better. The first
two candidates, which are the warm and the cold start, stay.

Letters: B problems, S candidates, P proposals, H horizon steps, A action dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.base import Problem

NUM_STARTS = 2
"""Candidates that are never replaced."""


def proposed_BS(problem: Problem, num_candidates: int) -> Tensor | None:
    """Says which candidates of a first iteration are proposals, bool [B, S]: as many as there is room for, and only finite ones.

    Raises:
        UserError: Proposals of another number of problems, horizon or actions, or together with knots.
    """
    proposals_BPHA = problem.proposals_BPHA
    if proposals_BPHA is None:
        return None
    if problem.knots is not None:
        raise UserError("proposals_BPHA: proposals are actions, and this problem plans in knots; leave one of them out")
    expected = [problem.num_problems, problem.horizon, problem.action_set.low_A.shape[0]]
    if proposals_BPHA.ndim != 4 or [proposals_BPHA.shape[0], *proposals_BPHA.shape[2:]] != expected:
        B, H, A = expected
        raise UserError(f"proposals_BPHA: shape {list(proposals_BPHA.shape)}; must be [{B}, any number, {H}, {A}]: problems, P, H, A")
    num = min(proposals_BPHA.shape[1], max(num_candidates - NUM_STARTS, 0))
    chosen_BS = torch.zeros(problem.num_problems, num_candidates, dtype=torch.bool, device=proposals_BPHA.device)
    chosen_BS[:, NUM_STARTS : NUM_STARTS + num] = torch.isfinite(proposals_BPHA[:, :num]).flatten(2).all(dim=2)
    return chosen_BS


def with_proposals(actions_BSHA: Tensor, problem: Problem) -> Tensor:
    """Puts the problem's proposals among the candidates of a first iteration; they need not be feasible.

    Raises:
        UserError: See `proposed_BS`.
    """
    chosen_BS = proposed_BS(problem, actions_BSHA.shape[1])
    if chosen_BS is None or problem.proposals_BPHA is None:
        return actions_BSHA
    num = min(problem.proposals_BPHA.shape[1], max(actions_BSHA.shape[1] - NUM_STARTS, 0))
    mixed_BSHA = actions_BSHA.clone()
    mixed_BSHA[:, NUM_STARTS : NUM_STARTS + num] = problem.proposals_BPHA[:, :num].to(actions_BSHA)
    return torch.where(chosen_BS[..., None, None], mixed_BSHA, actions_BSHA)
