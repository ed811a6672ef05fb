"""The terms of objectives beyond the plain latent distance: several goals, regions, units, positions, guardrails, smoothness."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from goalward import UserError
from goalward.planners.actions import Situation
from goalward.planners.objectives import (
    ActionEffort,
    ActionSmoothness,
    Guardrail,
    LatentDistance,
    Objective,
    Outcome,
    PositionGoal,
    latent_distance,
    region_weights,
)
from goalward.planners.objectives.latent import in_order
from goalward.wm.statistics import latent_statistics

START = torch.tensor([[0.4, 0.0, 0.3], [0.0, 0.2, 0.5]], dtype=torch.float64)


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def outcome(seed: int = 0, *, num_goals: int = 1, width: int = 6, horizon: int = 4, last: bool = True, known: bool = True) -> Outcome:
    return Outcome(
        z_BSHND=draw(seed, 2, 5, horizon, 8, width),
        z_goal_BGND=draw(seed + 1, 2, num_goals, 8, width),
        actions_BSHA=draw(seed + 2, 2, 5, horizon, 3) * 0.05,
        unit_A=torch.tensor([0.05, 0.05, 0.1], dtype=torch.float64),
        situation=Situation(position_BE=START if known else None, last_action_BA=draw(seed + 3, 2, 3) * 0.02 if last else None),
    )


TERMS: dict[str, Any] = {
    "l2": LatentDistance(step_weights="uniform"),
    "l1": LatentDistance(metric="l1", step_weights="linear"),
    "cosine": LatentDistance(metric="cosine"),
    "one view": LatentDistance(token_weights=region_weights(8, 2, view_weights=(1.0, 0.0)), step_weights="uniform"),
    "region": LatentDistance(token_weights=region_weights(8, 2, view=1, rows=(0, 1)), metric="l1"),
    "sequence": LatentDistance(goals="sequence"),
    "effort": ActionEffort(),
    "smoothness": ActionSmoothness(),
    "position": PositionGoal(position_m=(0.5, 0.1, 0.2), step_weights="uniform"),
    "stay inside": Guardrail(low_m=(0.3, -0.1, 0.25), high_m=(0.42, 0.1, 0.35)),
    "keep out": Guardrail(low_m=(-0.2, -0.1, 0.2), high_m=(0.5, 0.4, 0.6), keep="outside"),
}
every_term = pytest.mark.parametrize("term", TERMS.values(), ids=TERMS)


@every_term
@pytest.mark.parametrize("num_goals", [1, 3])
def test_gradients_equal_finite_differences(term: Any, num_goals: int) -> None:
    everything = outcome(num_goals=num_goals, width=3, horizon=3)
    seen = replace(everything, z_BSHND=everything.z_BSHND[:, :2].clone(), actions_BSHA=everything.actions_BSHA[:, :2].clone())

    def cost(z: Tensor, actions: Tensor) -> Tensor:
        return term.cost(replace(seen, z_BSHND=z, actions_BSHA=actions)) + 0 * (z.sum() + actions.sum())

    assert torch.autograd.gradcheck(cost, (seen.z_BSHND.requires_grad_(), seen.actions_BSHA.requires_grad_()), rtol=1e-3, atol=1e-6)


@every_term
def test_every_candidate_is_priced_by_itself(term: Any) -> None:
    seen = outcome(num_goals=2)
    together = term.cost(seen)
    assert together.shape == (2, 5)
    order = [3, 0, 4, 1, 2]
    shuffled = term.cost(replace(seen, z_BSHND=seen.z_BSHND[:, order], actions_BSHA=seen.actions_BSHA[:, order]))
    assert torch.allclose(shuffled, together[:, order])
    assert bool((together >= 0).all())


def at(seen: Outcome, problems: slice, candidates: slice) -> Outcome:
    now = seen.situation
    assert now.position_BE is not None
    assert now.last_action_BA is not None
    return replace(
        seen,
        z_BSHND=seen.z_BSHND[problems, candidates],
        z_goal_BGND=seen.z_goal_BGND[problems],
        actions_BSHA=seen.actions_BSHA[problems, candidates],
        situation=Situation(position_BE=now.position_BE[problems], last_action_BA=now.last_action_BA[problems]),
    )


@every_term
def test_costs_are_the_same_to_the_bit_in_any_company(term: Any) -> None:
    wide = outcome(num_goals=2, width=64)
    seen = replace(
        wide, z_BSHND=wide.z_BSHND.float(), z_goal_BGND=wide.z_goal_BGND.float(), actions_BSHA=wide.actions_BSHA.float(),
        unit_A=wide.unit_A.float(),
    )  # fmt: skip
    together = term.cost(seen)
    for b in range(2):
        assert torch.equal(term.cost(at(seen, slice(b, b + 1), slice(None))), together[b : b + 1])
        assert torch.equal(term.cost(at(seen, slice(b, b + 1), slice(3, 4))), together[b : b + 1, 3:4])


@every_term
def test_costs_are_at_least_float32(term: Any) -> None:
    seen = outcome()
    half = replace(
        seen, z_BSHND=seen.z_BSHND.bfloat16(), z_goal_BGND=seen.z_goal_BGND.bfloat16(), actions_BSHA=seen.actions_BSHA.float(),
        unit_A=seen.unit_A.float(),
    )  # fmt: skip
    assert term.cost(half).dtype == torch.float32


@pytest.mark.parametrize("metric", ["l2", "l1", "cosine"])
def test_two_unrelated_frames_cost_one(metric: Any) -> None:
    z, goal = draw(0, 1, 200, 1, 8, 512), draw(1, 1, 1, 8, 512)
    seen = replace(outcome(), z_BSHND=z, z_goal_BGND=goal)
    assert float(LatentDistance(metric=metric).cost(seen).mean()) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("metric", ["l2", "l1", "cosine"])
@given(scale=st.floats(0.01, 100), offset=st.floats(-10, 10))
@settings(max_examples=20, deadline=None)
def test_the_scale_of_an_encoder_does_not_matter_once_normalised(metric: Any, scale: float, offset: float) -> None:
    frames, offset_ND = draw(3, 40, 8, 16).cumsum(-1), offset * draw(5, 8, 16)
    costs = []
    for raw in (frames, scale * (frames + offset_ND)):
        z = latent_statistics(raw).normalise(raw)
        seen = replace(outcome(), z_BSHND=z[:39].reshape(1, 13, 3, 8, 16), z_goal_BGND=z[39:][None])
        costs.append(LatentDistance(metric=metric).cost(seen))
    assert torch.allclose(costs[0], costs[1], rtol=1e-4)


def test_the_squared_distance_of_unrelated_frames_is_one_whatever_their_distribution() -> None:
    raw = draw(0, 400, 8, 16).exp().cumsum(-1)  # skewed and correlated: nothing like independent Gaussians
    z = latent_statistics(raw).normalise(raw)
    pairs = latent_distance(z[:, None], z[None])
    assert float(pairs.sum()) / (400 * 399) / 2 == pytest.approx(1.0, rel=1e-2)


def test_any_of_several_goals_is_the_nearest_at_every_step() -> None:
    seen = outcome(num_goals=3)
    by_goal = torch.stack([latent_distance(seen.z_BSHND, seen.z_goal_BGND[:, g, None, None]) / 2 for g in range(3)])
    assert torch.allclose(LatentDistance(step_weights="uniform").cost(seen), by_goal.amin(0).mean(-1))


@given(seed=st.integers(0, 10**6), num_goals=st.integers(1, 4), horizon=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_goals_in_order_are_the_best_of_all_assignments(seed: int, num_goals: int, horizon: int) -> None:
    distance = draw(seed, 1, 3, num_goals, horizon).abs()
    best = torch.full((1, 3), float("inf"), dtype=torch.float64)
    for times in itertools.combinations_with_replacement(range(horizon), num_goals - 1):
        when = (*times, horizon - 1)
        total = torch.stack([distance[:, :, g, t] for g, t in enumerate(when)]).mean(0)
        best = torch.minimum(best, total)
    assert torch.allclose(in_order(distance), best)


def test_the_gradient_of_goals_in_order_is_that_of_the_best_assignment() -> None:
    distance = torch.tensor([[[[5.0, 1.0, 3.0], [9.0, 2.0, 4.0], [7.0, 8.0, 6.0]]]], requires_grad=True)
    in_order(distance).sum().backward()
    assert distance.grad is not None
    assert torch.equal(distance.grad[0, 0], torch.tensor([[0.0, 1, 0], [0, 1, 0], [0, 0, 1]]) / 3)


@given(seed=st.integers(0, 10**6), num_goals=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_goals_in_order_cost_no_less_than_without_order_and_one_goal_is_due_at_the_end(seed: int, num_goals: int) -> None:
    distance = draw(seed, 2, 3, num_goals, 4).abs()
    cost = in_order(distance)
    freely = (distance[:, :, :-1].amin(-1).sum(-1) + distance[:, :, -1, -1]) / num_goals
    assert bool((cost >= freely - 1e-12).all())
    assert torch.equal(in_order(distance[:, :, :1]), distance[:, :, 0, -1])


def test_passing_the_goals_in_order_costs_nothing_and_backwards_much() -> None:
    path = draw(0, 1, 1, 4, 8, 6)
    seen = replace(outcome(), z_BSHND=path, z_goal_BGND=path[:, 0, [1, 3]])
    term = LatentDistance(goals="sequence")
    assert float(term.cost(seen)) == pytest.approx(0.0)
    assert float(term.cost(replace(seen, z_goal_BGND=path[:, 0, [3, 1]]))) > 0.4


def test_tokens_without_weight_are_not_looked_at() -> None:
    seen = outcome()
    spoiled = seen.z_BSHND.clone()
    spoiled[..., 4:, :] = float("nan")
    term = LatentDistance(token_weights=region_weights(8, 2, view_weights=(1.0, 0.0)))
    plain = latent_distance(seen.z_BSHND[:, :, -1, :4], seen.z_goal_BGND[:, :1, :4]) / 2
    assert torch.allclose(term.cost(replace(seen, z_BSHND=spoiled)), plain)
    assert torch.allclose(LatentDistance(token_weights=(2.0,) * 8).cost(seen), LatentDistance().cost(seen))


def test_not_even_the_gradient_sees_tokens_without_weight() -> None:
    seen = outcome()
    z = seen.z_BSHND.clone()
    z[..., 1::2, :] = float("inf")
    z.requires_grad_()
    LatentDistance(token_weights=(1.0, 0.0) * 4, step_weights="uniform").cost(replace(seen, z_BSHND=z)).sum().backward()
    assert z.grad is not None
    assert bool(torch.isfinite(z.grad).all())
    assert bool((z.grad[..., 1::2, :] == 0).all())


@pytest.mark.parametrize("metric", ["l2", "l1", "cosine"])
@given(seed=st.integers(0, 10**6), power=st.integers(-300, 300))
@settings(max_examples=20, deadline=None)
def test_token_weights_are_a_mean_whatever_their_scale_and_order(metric: Any, seed: int, power: int) -> None:
    seen, rng = outcome(seed), torch.Generator().manual_seed(seed)
    weights, order = torch.rand(8, generator=rng, dtype=torch.float64), torch.randperm(8, generator=rng)
    cost = LatentDistance(metric=metric, token_weights=tuple(weights.tolist())).cost(seen)
    by_token = [LatentDistance(metric=metric, token_weights=tuple(float(n == m) for m in range(8))).cost(seen) for n in range(8)]
    assert torch.allclose(cost, sum(share * part for share, part in zip(weights / weights.sum(), by_token, strict=True)))
    scaled = LatentDistance(metric=metric, token_weights=tuple(w * 10.0**power for w in weights.tolist()))
    assert torch.allclose(scaled.cost(seen), cost)
    shuffled = replace(seen, z_BSHND=seen.z_BSHND[..., order, :], z_goal_BGND=seen.z_goal_BGND[..., order, :])
    assert torch.allclose(LatentDistance(metric=metric, token_weights=tuple(weights[order].tolist())).cost(shuffled), cost)


def test_view_weights_average_the_views() -> None:
    seen = outcome()
    front, side, both = (
        LatentDistance(token_weights=region_weights(8, 2, view_weights=given)).cost(seen) for given in ((1.0, 0.0), (0.0, 1.0), (1.0, 3.0))
    )
    assert torch.allclose(both, (front + 3 * side) / 4)


def test_region_weights() -> None:
    assert region_weights(8, 2) == (1.0,) * 8
    assert region_weights(8, 2, view_weights=(1.0, 3.0)) == (1.0,) * 4 + (3.0,) * 4
    assert region_weights(8, 2, rows=(0, 1)) == (1.0, 1.0, 0.0, 0.0) * 2
    assert region_weights(8, 2, view=0, columns=(1, 2)) == (0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0)


def test_positions_are_the_measured_one_and_the_displacements_so_far() -> None:
    seen = outcome()
    reached = START[:, None, None] + seen.actions_BSHA.cumsum(2)
    goal = (0.5, 0.1, 0.2)
    expected = ((reached[:, :, -1] - torch.tensor(goal, dtype=torch.float64)) / 0.1).square().sum(-1)
    assert torch.allclose(PositionGoal(position_m=goal).cost(seen), expected)


@given(seed=st.integers(0, 10**6), shift=st.floats(-5, 5))
@settings(max_examples=20, deadline=None)
def test_positions_do_not_care_where_the_origin_is(seed: int, shift: float) -> None:
    seen = outcome(seed)
    moved = replace(seen, situation=Situation(position_BE=START + shift))
    goal, low, high = (0.5, 0.1, 0.2), (0.3, -0.1, 0.25), (0.42, 0.1, 0.35)

    def there(corner: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(value + shift for value in corner)

    assert torch.allclose(PositionGoal(position_m=there(goal)).cost(moved), PositionGoal(position_m=goal).cost(seen))
    for keep in ("inside", "outside"):
        here = Guardrail(low_m=low, high_m=high, keep=keep).cost(seen)
        assert torch.allclose(Guardrail(low_m=there(low), high_m=there(high), keep=keep).cost(moved), here, atol=1e-9)


def test_steps_of_no_weight_cannot_spoil_the_position() -> None:
    seen = outcome(horizon=2)
    seen.actions_BSHA[:, :, 1] = float("inf")
    first = PositionGoal(position_m=(0.5, 0.1, 0.2), step_weights=(1.0, 0.0)).cost(seen)
    assert bool(torch.isfinite(first).all())


def test_guardrails_pull_back_to_safety_and_leave_the_safe_alone() -> None:
    actions = torch.zeros(2, 1, 1, 3, dtype=torch.float64, requires_grad=True)
    seen = replace(outcome(), actions_BSHA=actions)
    Guardrail(low_m=(-1.0, -1.0, -1.0), high_m=(0.38, 1.0, 1.0)).cost(seen).sum().backward()
    assert actions.grad is not None
    assert actions.grad[0, 0, 0, 0] > 0, "further out costs more"
    assert bool((actions.grad[1] == 0).all())
    assert bool((actions.grad[..., 1:] == 0).all())


def test_guardrails_cost_the_depth_and_nothing_outside_the_zone() -> None:
    still = replace(outcome(horizon=2), actions_BSHA=torch.zeros(2, 5, 2, 3, dtype=torch.float64))
    wide = Guardrail(low_m=(-1.0, -1.0, -1.0), high_m=(1.0, 1.0, 1.0))
    assert float(wide.cost(still).abs().max()) == 0.0
    tight = Guardrail(low_m=(-1.0, -1.0, -1.0), high_m=(0.38, 1.0, 1.0), softness_m=0.01)
    assert tight.cost(still)[0].tolist() == pytest.approx([4.0] * 5), "2 cm beyond, in units of 1 cm, squared"
    assert tight.cost(still)[1].tolist() == [0.0] * 5
    out = Guardrail(low_m=(0.37, -1.0, -1.0), high_m=(1.0, 1.0, 1.0), keep="outside", softness_m=0.01)
    assert out.cost(still)[0].tolist() == pytest.approx([9.0] * 5)
    assert out.cost(still)[1].tolist() == [0.0] * 5


def test_smoothness_begins_with_the_action_executed_last() -> None:
    seen = outcome(horizon=1)
    assert seen.situation.last_action_BA is not None
    change = (seen.actions_BSHA[:, :, 0] - seen.situation.last_action_BA[:, None]) / seen.unit_A
    assert torch.allclose(ActionSmoothness().cost(seen), change.square().mean(-1))
    assert ActionSmoothness().cost(outcome(horizon=1, last=False)).abs().max() == 0.0


def test_terms_of_weight_zero_are_not_asked() -> None:
    seen = outcome(known=False)
    silent = (PositionGoal(position_m=(0.0,) * 3, weight=0.0), LatentDistance(weight=0.0))
    spoiled = replace(seen, z_BSHND=seen.z_BSHND * float("nan"))
    assert torch.equal(Objective(terms=(ActionEffort(weight=1.0), *silent))(spoiled), ActionEffort().cost(seen))
    with pytest.raises(UserError, match="no terms of a weight above 0"):
        Objective(terms=silent)


@every_term
@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_every_weight_is_checked(term: Any, weight: float) -> None:
    with pytest.raises(UserError, match=f"weight: {weight}"):
        replace(term, weight=weight)


def test_terms_compose() -> None:
    seen = outcome(num_goals=2)
    total = Objective(terms=tuple(TERMS.values()))(seen)
    assert torch.allclose(total, sum(term.weight * term.cost(seen) for term in TERMS.values()))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: LatentDistance(goals="all"), "goals: 'all'"),
        (lambda: LatentDistance(token_weights=(0.0,)), "token_weights"),
        (lambda: LatentDistance(token_weights=(1.0,)).cost(outcome()), "1 weights for 8 tokens"),
        (lambda: region_weights(7, 2), "7 tokens do not divide"),
        (lambda: region_weights(8, 2, view_weights=(1.0,)), "one per view"),
        (lambda: region_weights(8, 2, rows=(1, 3)), "no region"),
        (lambda: region_weights(8, 2, view=2), "view: 2"),
        (lambda: region_weights(6, 2, rows=(0, 1)), "no square grid"),
        (lambda: PositionGoal(position_m=(0.0, 0.0)), "3 finite numbers"),
        (lambda: PositionGoal(position_m=(0.0, 0.0, 0.0)).cost(outcome(known=False)), "position: the end effector's"),
        (lambda: PositionGoal(position_m=(0.0, 0.0), action_dims=(0, 1)).cost(outcome()), "one entry per axis"),
        (lambda: Guardrail(low_m=(0.0,) * 3, high_m=(0.0,) * 3), "below high"),
        (lambda: Guardrail(low_m=(0.0,) * 3, high_m=(1.0,) * 3, keep="near"), "keep: 'near'"),
        (lambda: Guardrail(low_m=(0.0,) * 3, high_m=(1.0,) * 3, softness_m=0.0), "softness_m: 0.0"),
        (lambda: LatentDistance(goals="sequence", step_weights="uniform"), "step_weights: 'uniform' cannot be combined"),
        (lambda: region_weights(8, 2, view_weights=()), "one per view"),
        (lambda: region_weights(8, 2, view=0), "without rows or columns"),
        (lambda: PositionGoal(position_m=(0.0,) * 3, action_dims=(0, 0, 1)), "different entries"),
        (lambda: PositionGoal(position_m=(0.0,) * 3, action_dims=(0, 1, -1)), "different entries"),
        (lambda: Guardrail(low_m=(), high_m=(), action_dims=()), "different entries"),
        (lambda: Guardrail(low_m=(0.0,) * 3, high_m=(1.0,) * 3, action_dims=(0, 1, 3)).cost(outcome()), "entries 0 .. 2"),
    ],
)
def test_meaningless_terms_are_refused(make: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make()
