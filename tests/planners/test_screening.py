"""Coarse to fine: the candidates kept are the coarsely best, and what is said of them is what a full rollout says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from goalward import UserError
from goalward.planners.actions import Box, Situation
from goalward.planners.base import Problem
from goalward.planners.methods.evaluation import evaluate
from goalward.planners.methods.screening import Screening, coarse_cost_BS, screened
from goalward.planners.objectives import LatentDistance, Objective

UNIT = torch.ones(2)


class TokenWorld:
    """Token n moves by (n + 1) times the sum of the actions so far; fewer layers forget the second action entry."""

    def rollout(self, context, actions_BSHA, *, tokens=None, layers=None):
        used = actions_BSHA if layers is None else actions_BSHA * torch.tensor([1.0, 0.0])
        z_BSHND = used.cumsum(2)[..., None, :] * torch.arange(1.0, 5.0)[:, None] + context[:, None, None]
        return z_BSHND if tokens is None else z_BSHND[:, :, :, tokens]


class PlainWorld:
    def rollout(self, context, actions_BSHA):
        return TokenWorld().rollout(context, actions_BSHA)


@pytest.fixture
def problem() -> Problem:
    return Problem(
        model=TokenWorld(),
        context=torch.zeros(2, 4, 2),
        z_goal_BGND=torch.randn(2, 1, 4, 2, generator=torch.Generator().manual_seed(0)),
        action_set=Box.of(torch.full((2,), -1.0), torch.full((2,), 1.0)),
        situation=Situation(),
        objective=Objective(terms=(LatentDistance(),)),
        horizon=3,
        dt_s=0.1,
        start_time_s=(0.0, 0.0),
    )


@pytest.fixture
def actions() -> torch.Tensor:
    return torch.randn(2, 20, 3, 2, generator=torch.Generator().manual_seed(1))


def test_kept_candidates_are_the_coarsely_best_and_fully_priced(problem, actions) -> None:
    screening = Screening(keep_fraction=0.2, token_stride=2, num_layers=1)
    got, everything = screened(problem, actions, UNIT, screening), evaluate(problem, actions, UNIT)
    coarse = coarse_cost_BS(problem, actions, UNIT, screening)
    assert got.cost_BS.shape == (2, 4)
    for b in range(2):
        best = coarse[b].argsort()[:4].sort().values
        assert torch.equal(got.actions_BSHA[b], actions[b, best])
        torch.testing.assert_close(got.cost_BS[b], everything.cost_BS[b, best])
        torch.testing.assert_close(got.z_BSHND[b], everything.z_BSHND[b, best])


def test_the_coarse_cost_looks_at_some_tokens_and_layers(problem, actions) -> None:
    z = TokenWorld().rollout(problem.context, actions * torch.tensor([1.0, 0.0]))[:, :, -1, ::2]
    expected = (z - problem.z_goal_BGND[:, :, ::2]).square().mean((2, 3)) / 2
    torch.testing.assert_close(coarse_cost_BS(problem, actions, UNIT, Screening(token_stride=2, num_layers=1)), expected)


def test_looking_at_everything_is_the_full_cost(problem, actions) -> None:
    coarse = coarse_cost_BS(problem, actions, UNIT, Screening(token_stride=1))
    torch.testing.assert_close(coarse, evaluate(problem, actions, UNIT).cost_BS)


def test_keeping_all_is_no_screening(problem, actions) -> None:
    got = screened(problem, actions, UNIT, Screening(keep_fraction=1.0))
    assert torch.equal(got.cost_BS, evaluate(problem, actions, UNIT).cost_BS)


def test_token_weights_are_cut_like_the_tokens(problem, actions) -> None:
    weighted = replace(problem, objective=Objective(terms=(LatentDistance(token_weights=(1.0, 5.0, 3.0, 0.0)),)))
    cut = replace(problem, objective=Objective(terms=(LatentDistance(token_weights=(1.0, 0.0, 3.0, 0.0)),)))
    torch.testing.assert_close(coarse_cost_BS(weighted, actions, UNIT, Screening()), evaluate(cut, actions, UNIT).cost_BS)
    blind = replace(problem, objective=Objective(terms=(LatentDistance(token_weights=(0.0, 1.0, 0.0, 1.0)),)))
    with pytest.raises(UserError, match="token_weights"):
        coarse_cost_BS(blind, actions, UNIT, Screening())


def test_candidates_that_are_not_finite_are_kept_last(problem, actions) -> None:
    actions[:, ::2] = float("nan")
    assert torch.isfinite(screened(problem, actions, UNIT, Screening(keep_fraction=0.5)).cost_BS).all()


def test_as_many_are_kept_as_a_method_needs() -> None:
    assert [Screening(keep_fraction=0.1).num_kept(64, at_least=n) for n in (1, 10, 100)] == [7, 10, 64]
    assert Screening(keep_fraction=1e-9).num_kept(64) == 1


def test_a_problem_gets_what_it_gets_alone(problem, actions) -> None:
    together = screened(problem, actions, UNIT, Screening(keep_fraction=0.3))
    for b in range(2):
        alone = replace(problem, context=problem.context[b : b + 1], z_goal_BGND=problem.z_goal_BGND[b : b + 1], start_time_s=(0.0,))
        assert torch.equal(screened(alone, actions[b : b + 1], UNIT, Screening(keep_fraction=0.3)).cost_BS[0], together.cost_BS[b])


def test_models_without_coarse_rollouts_are_refused(problem, actions) -> None:
    with pytest.raises(UserError, match="without screening"):
        screened(replace(problem, model=PlainWorld()), actions, UNIT, Screening())


@pytest.mark.parametrize(("field", "value"), [("keep_fraction", 0.0), ("keep_fraction", 1.5), ("token_stride", 0), ("num_layers", 0)])
def test_bad_fields_are_named(field: str, value: float) -> None:
    with pytest.raises(UserError, match=field):
        Screening(**{field: value})
