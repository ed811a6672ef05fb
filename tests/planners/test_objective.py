"""Objectives: the formulas, their normalisation and their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from goalward import UserError
from goalward.planners.actions import Situation
from goalward.planners.objectives import ActionEffort, LatentDistance, Objective, Outcome, latent_distance

UNIT = torch.tensor([0.05, 0.1])


def tensors(seed: int = 0, dtype: torch.dtype = torch.float32):
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(2, 5, 3, 4, 6, generator=rng, dtype=dtype)
    return z, torch.randn(2, 4, 6, generator=rng, dtype=dtype), torch.randn(2, 5, 3, 2, generator=rng, dtype=dtype) * 0.05


def outcome(z: Tensor, goal: Tensor, actions: Tensor, unit: Tensor = UNIT) -> Outcome:
    return Outcome(z_BSHND=z, z_goal_BGND=goal[:, None], actions_BSHA=actions, unit_A=unit, situation=Situation())


def test_metrics_are_the_formulas_they_name() -> None:
    z, goal, actions = tensors()
    last, target = z[:, :, -1], goal[:, None]
    expected = {
        "l2": ((last - target) ** 2).mean((-2, -1)) / 2,
        "l1": (last - target).abs().mean((-2, -1)) * math.sqrt(math.pi) / 2,
        "cosine": (1 - (last * target).sum(-1) / (last.norm(dim=-1) * target.norm(dim=-1))).mean(-1),
    }
    for metric, cost in expected.items():
        assert torch.allclose(LatentDistance(metric=metric).cost(outcome(z, goal, actions, UNIT)), cost, atol=1e-6), metric


@pytest.mark.parametrize(
    ("weights", "normalised"),
    [
        ("last", [0, 0, 1]),
        ("uniform", [1 / 3] * 3),
        ("linear", [1 / 6, 2 / 6, 3 / 6]),
        ("quartic", [1 / 98, 16 / 98, 81 / 98]),
        ((0.0, 3.0, 1.0), [0, 0.75, 0.25]),
    ],
)
def test_path_costs_are_weighted_means_over_the_steps(weights, normalised) -> None:
    z, goal, actions = tensors()
    by_step = latent_distance(z, goal[:, None, None]) / 2
    expected = (by_step * torch.tensor(normalised, dtype=torch.float32)).sum(-1)
    assert torch.allclose(LatentDistance(step_weights=weights).cost(outcome(z, goal, actions, UNIT)), expected, atol=1e-6)


def test_steps_of_no_weight_cannot_spoil_the_cost() -> None:
    z, goal, actions = tensors()
    z[:, :, 0] = float("nan")
    assert bool(torch.isfinite(Objective(terms=(LatentDistance(),))(outcome(z, goal, actions, UNIT))).all())


@given(metric=st.sampled_from(["l1", "l2", "cosine"]), repeat=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_weights_mean_the_same_for_every_number_of_tokens(metric, repeat: int) -> None:
    z, goal, _ = tensors()
    more = latent_distance(z.repeat(1, 1, 1, repeat, 1), goal[:, None, None].repeat(1, 1, 1, repeat, 1), metric)
    assert torch.allclose(more, latent_distance(z, goal[:, None, None], metric), atol=1e-5)


def test_effort_is_measured_in_half_ranges() -> None:
    z, goal, _ = tensors()
    at_bound = UNIT.expand(2, 5, 3, 2)
    effort = ActionEffort(weight=2.0)
    assert torch.allclose(effort.cost(outcome(z, goal, at_bound, UNIT)), torch.ones(2, 5))
    assert torch.allclose(effort.cost(outcome(z, goal, at_bound, torch.tensor([0.05, 0.0]))), torch.full((2, 5), 0.5)), (
        "frozen entries count nothing"
    )


def test_terms_add_up_with_their_weights() -> None:
    z, goal, actions = tensors()
    terms = (LatentDistance(weight=0.5), LatentDistance(metric="l1", step_weights="linear"), ActionEffort(weight=3.0))
    total = Objective(terms=terms)(outcome(z, goal, actions, UNIT))
    assert torch.allclose(total, sum(term.weight * term.cost(outcome(z, goal, actions, UNIT)) for term in terms))
    assert total.shape == (2, 5)


def test_costs_are_float32_even_for_bfloat16_latents() -> None:
    z, goal, actions = tensors()
    assert Objective(terms=(LatentDistance(),))(outcome(z.bfloat16(), goal.bfloat16(), actions)).dtype == torch.float32


@pytest.mark.parametrize("metric", ["l1", "l2", "cosine"])
def test_gradients_equal_finite_differences(metric) -> None:
    z, goal, actions = tensors(dtype=torch.float64)
    objective = Objective(terms=(LatentDistance(metric=metric, step_weights="uniform"), ActionEffort(weight=0.3)))
    unit = UNIT.double()
    assert torch.autograd.gradcheck(
        lambda z, a: objective(outcome(z, goal, a, unit)), (z.requires_grad_(), actions.requires_grad_()), rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: LatentDistance(metric="l3"), "metric: 'l3'"),
        (lambda: LatentDistance(step_weights="first"), "step_weights: 'first'"),
        (lambda: LatentDistance(step_weights=()), "step_weights"),
        (lambda: LatentDistance(step_weights=(0.0, 0.0)), "not all 0"),
        (lambda: LatentDistance(step_weights=(1.0, -1.0)), "at least 0"),
        (lambda: LatentDistance(weight=float("nan")), "weight: nan"),
        (lambda: ActionEffort(weight=-1.0), "weight: -1.0"),
        (lambda: Objective(terms=()), "no terms"),
        (lambda: LatentDistance(step_weights=(1.0,)).cost(outcome(*tensors())), "one per step"),
    ],
)
def test_meaningless_objectives_are_refused(make, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make()
