"""Coarse to fine: every candidate is rolled out coarsely, and only the most promising are rolled out in full.

    coarse     <- objective(rollout(candidates, some tokens, some layers))
    evaluation <- evaluate(the share of candidates with the least coarse cost)

Pays where a full rollout costs many times a coarse one and both rank candidates alike, which models of many tokens promise;
`experiments/bench/coarse.py` measures both for a model.

Letters: B problems, S candidates, M kept candidates, H horizon steps, N tokens, n tokens looked at, D latent width, A action dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.base import Problem
from goalward.planners.checks import require_count, require_number
from goalward.planners.methods.evaluation import Evaluation, evaluate, outcome_of
from goalward.planners.objectives import LatentDistance, Objective


class CoarseModel(Protocol):
    """A model that can also predict coarsely."""

    def rollout(self, context: Any, actions_BSHA: Tensor, *, tokens: Tensor | None = None, layers: int | None = None) -> Tensor:
        """Predicts these tokens alone, through so many layers; see `base.WorldModel.rollout`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Screening:
    """How coarsely to look first, and how many candidates to look at again."""

    keep_fraction: float = 0.1
    """Share of the candidates that is rolled out in full."""
    token_stride: int = 2
    """Look at every so-manieth token; 1 looks at all."""
    num_layers: int | None = None
    """Run so many of the model's first layers; None runs all."""

    def __post_init__(self) -> None:
        """Checks every field."""
        require_number("keep_fraction", self.keep_fraction, low=0.0, high=1.0, open_low=True)
        require_count("token_stride", self.token_stride)
        if self.num_layers is not None:
            require_count("num_layers", self.num_layers)

    def num_kept(self, num_candidates: int, *, at_least: int = 1) -> int:
        """M, how many of so many candidates are rolled out in full; `at_least` is what a method learns from, such as its elites."""
        return min(num_candidates, max(math.ceil(self.keep_fraction * num_candidates), at_least))


def coarse_cost_BS(problem: Problem, actions_BSHA: Tensor, unit_A: Tensor, screening: Screening) -> Tensor:
    """Costs of feasible actions by a coarse rollout, +inf where they are not finite; good for ranking only.

    Raises:
        UserError: The model cannot roll out coarsely, or the objective looks at none of the tokens.
    """
    tokens_n = torch.arange(0, problem.z_goal_BGND.shape[2], screening.token_stride, device=problem.z_goal_BGND.device)
    try:
        z_BSHnD = cast(CoarseModel, problem.model).rollout(problem.context, actions_BSHA, tokens=tokens_n, layers=screening.num_layers)
    except TypeError as error:
        raise UserError("screening: this model's rollout takes no tokens and layers; plan without screening") from error
    some = replace(problem, z_goal_BGND=problem.z_goal_BGND.index_select(2, tokens_n))
    cost_BS = _objective_of(problem.objective, tokens_n.tolist())(outcome_of(some, z_BSHnD, actions_BSHA, unit_A))
    return torch.where(torch.isfinite(cost_BS), cost_BS, float("inf"))


@torch.no_grad()
def screened(
    problem: Problem, actions_BSHA: Tensor, unit_A: Tensor, screening: Screening, *, at_least: int = 1, keep_first: int = 0
) -> Evaluation:
    """Evaluates the most promising M of S candidates in full.

    Args:
        problem: What is wanted.
        actions_BSHA: Feasible candidates.
        unit_A: Half the range of each action entry.
        screening: How to choose them.
        at_least: Keep so many in any case.
        keep_first: Keep the first so many candidates, however they look.

    Returns:
        The evaluation of M candidates in the order of their indices, as `evaluate` would give it; the others are not in it.
    """
    kept = screening.num_kept(actions_BSHA.shape[1], at_least=max(at_least, keep_first))
    if kept == actions_BSHA.shape[1]:
        return evaluate(problem, actions_BSHA, unit_A)
    cost_BS = coarse_cost_BS(problem, actions_BSHA, unit_A, screening)
    cost_BS[:, :keep_first] = float("-inf")
    index_BM = cost_BS.argsort(dim=1, stable=True)[:, :kept].sort(dim=1).values
    return evaluate(problem, actions_BSHA.take_along_dim(index_BM[..., None, None], dim=1), unit_A)


def _objective_of(objective: Objective, tokens: list[int]) -> Objective:
    """The objective for frames of these tokens alone."""
    return Objective(
        terms=tuple(
            replace(term, token_weights=tuple(term.token_weights[token] for token in tokens))
            if isinstance(term, LatentDistance) and term.token_weights is not None
            else term
            for term in objective.terms
        )
    )
