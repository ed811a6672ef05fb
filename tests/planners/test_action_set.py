"""Projection: inside to the last bit, idempotent, the identity on what is feasible."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from goalward import UserError
from goalward.planners.actions import Box, Intersection, RateLimit, Situation, Workspace, center_A, half_range_A, hold_A

seeds = st.integers(0, 2**31)
scales = st.sampled_from([1e-3, 0.05, 1.0, 700.0])


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def positions(actions_BSHA: Tensor, start_BE: Tensor, dims: tuple[int, ...]) -> Tensor:
    return start_BE.double()[:, None, None] + actions_BSHA[..., dims].double().cumsum(dim=2)


@given(seed=seeds, scale=scales)
@settings(max_examples=60, deadline=None)
def test_box_holds_exactly_and_leaves_feasible_actions_alone(seed: int, scale: float) -> None:
    low = normal(seed, 3) * scale - scale
    high = low + normal(seed + 1, 3).abs() * scale
    box = Box.of(low, high)
    wild = normal(seed + 2, 2, 5, 4, 3) * 10 * scale
    inside = box.project(wild, Situation())
    assert bool(((inside >= box.low_A) & (inside <= box.high_A)).all())
    assert torch.equal(box.project(inside, Situation()), inside)
    assert torch.equal(inside, torch.minimum(torch.maximum(wild, low), high))


@given(seed=seeds, scale=scales, dims=st.sampled_from([(0, 1, 2), (2, 0), (1,), (0, 1, 2, 3), (3, 1, 0)]), horizon=st.integers(1, 12))
@settings(max_examples=120, deadline=None)
def test_workspace_is_never_left_by_any_step(seed: int, scale: float, dims: tuple[int, ...], horizon: int) -> None:
    low = normal(seed, len(dims)).double() * scale
    high = low + scale * (0.1 + normal(seed + 1, len(dims)).double().abs())
    start = low + (high - low) * (0.02 + 0.96 * torch.rand(2, len(dims), generator=torch.Generator().manual_seed(seed)))
    box = Box.of([-0.5 * scale] * 4, [0.3 * scale] * 4)
    both = Intersection(box, (Workspace.of(low.tolist(), high.tolist(), action_dims=dims),))
    situation = Situation(position_BE=start)
    inside = both.project(normal(seed + 2, 2, 6, horizon, 4) * scale, situation)
    reached = positions(inside, start, dims)
    assert bool(((reached >= low) & (reached <= high)).all())
    assert bool(((inside >= box.low_A) & (inside <= box.high_A)).all())
    assert torch.equal(both.project(inside, situation), inside)
    free = [dim for dim in range(4) if dim not in dims]
    assert torch.equal(inside[..., free], box.project(normal(seed + 2, 2, 6, horizon, 4) * scale, Situation())[..., free])


@given(seed=seeds, scale=scales)
@settings(max_examples=60, deadline=None)
def test_rate_limit_bounds_every_change_from_the_action_executed_last(seed: int, scale: float) -> None:
    box = Box.of([-scale] * 3, [scale] * 3)
    rate = RateLimit.of([0.2 * scale, 0.5 * scale, 3.0 * scale])
    last = box.project(normal(seed, 2, 1, 1, 3) * scale, Situation())[:, 0, 0]
    both = Intersection(box, (rate,))
    situation = Situation(last_action_BA=last)
    inside = both.project(normal(seed + 1, 2, 6, 5, 3) * 2 * scale, situation)
    before = torch.cat([last[:, None, None].expand(-1, 6, 1, -1), inside[:, :, :-1]], dim=2)
    assert bool(((inside.double() - before.double()).abs() <= rate.change_A.double()).all())
    assert bool(((inside >= box.low_A) & (inside <= box.high_A)).all())
    assert torch.equal(both.project(inside, situation), inside)


@given(seed=seeds)
@settings(max_examples=60, deadline=None)
def test_contradicting_limits_still_give_one_stable_answer_inside_the_box(seed: int) -> None:
    """An arm outside its workspace, moving fast the wrong way."""
    box = Box.of([-0.05] * 3, [0.05] * 3)
    everything = Intersection(box, (RateLimit.of([0.01] * 3), Workspace.of([-0.2] * 3, [0.2] * 3)))
    situation = Situation(position_BE=normal(seed, 2, 3), last_action_BA=normal(seed + 1, 2, 3) * 0.05)
    inside = everything.project(normal(seed + 2, 2, 4, 6, 3) * 0.1, situation)
    assert bool(((inside >= box.low_A) & (inside <= box.high_A)).all())
    assert torch.equal(everything.project(inside, situation), inside)


def test_an_arm_outside_its_workspace_returns_as_fast_as_the_box_permits() -> None:
    both = Intersection(Box.of([-0.05], [0.05]), (Workspace.of([0.0], [0.2], action_dims=(0,)),))
    back = both.project(torch.full((1, 1, 4, 1), 0.05), Situation(position_BE=torch.tensor([[0.32]])))
    reached = 0.32 + back.double().cumsum(dim=2).flatten()
    assert torch.allclose(back.flatten()[:2], torch.tensor([-0.05, -0.05]))
    assert reached[2:].tolist() == pytest.approx([0.2, 0.2], abs=1e-6)


@pytest.mark.parametrize("distance", [3.0, 100.0, 1e4, 1e5])
def test_from_however_far_outside_the_exact_sum_ends_inside(distance: float) -> None:
    both = Intersection(Box.of([-2e6], [2e6]), (Workspace.of([0.0], [1.0], action_dims=(0,)),))
    position = normal(0, 500, 1).double() * distance
    back = both.project(torch.tensor([-9.0, 9.0]).reshape(1, 2, 1, 1).expand(500, 2, 1, 1), Situation(position_BE=position))
    reached = position + back.double().reshape(500, 2)
    assert bool(((reached >= 0) & (reached <= 1)).all())


def test_walls_stop_motion_along_one_axis_only() -> None:
    both = Intersection(Box.of([-0.1] * 2, [0.1] * 2), (Workspace.of([0.0, 0.0], [0.15, 9.0], action_dims=(0, 1)),))
    moved = both.project(torch.full((1, 1, 3, 2), 0.1), Situation(position_BE=torch.zeros(1, 2)))
    assert moved[0, 0, :, 0].tolist() == pytest.approx([0.1, 0.05, 0.0], abs=1e-5)
    assert moved[0, 0, :, 1].tolist() == pytest.approx([0.1] * 3)


def test_feasible_actions_pass_a_workspace_to_the_bit() -> None:
    both = Intersection(Box.of([-0.05] * 3, [0.05] * 3), (Workspace.of([-1] * 3, [1] * 3),))
    actions = (normal(0, 2, 8, 4, 3) * 0.02).clamp(-0.05, 0.05)
    assert torch.equal(both.project(actions, Situation(position_BE=torch.zeros(2, 3))), actions)


@given(low=st.floats(-1e6, 1e6, width=32), width=st.floats(0, 1e6, width=32))
@settings(max_examples=100, deadline=None)
def test_centre_and_hold_lie_inside_any_box(low: float, width: float) -> None:
    box = Box.of([low], [max(low, low + width)])
    for action in (center_A(box), hold_A(box)):
        assert bool(((action >= box.low_A) & (action <= box.high_A)).all())
    assert float(half_range_A(box)) >= 0


def test_hold_is_no_displacement_where_the_box_allows_it() -> None:
    assert hold_A(Box.of([-1.0, 0.5, -2.0], [1.0, 2.0, -1.0])).tolist() == [0.0, 0.5, -1.0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Box.of([0.0], [float("inf")]), "finite"),
        (lambda: Box.of([float("nan")], [1.0]), "finite"),
        (lambda: Box.of([1.0], [0.0]), "low <= high"),
        (lambda: Box.of([0.0, 0.0], [1.0]), "shapes"),
        (lambda: Box.of([], []), "shapes"),
        (lambda: Box.of([-1e12], [1.0]), "other units"),
        (lambda: Workspace.of([0.0] * 3, [0.0] * 3), "low < high"),
        (lambda: Workspace.of([0.0] * 2, [1.0] * 2), "corners"),
        (lambda: Workspace.of([0.0] * 2, [1.0] * 2, action_dims=(1, 1)), "corners"),
        (lambda: Workspace.of([0.0] * 3, [float("nan")] * 3), "finite"),
        (lambda: RateLimit.of([0.0]), "positive"),
    ],
)
def test_impossible_sets_are_refused(make, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make()


@pytest.mark.parametrize(
    ("limit", "says"), [(Workspace.of([0.0], [1.0], action_dims=(0,)), "end-effector position"), (RateLimit.of([1.0]), "last action")]
)
def test_a_limit_says_what_it_needs_to_know(limit, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Intersection(Box.of([0.0], [1.0]), (limit,)).project(torch.zeros(1, 1, 1, 1), Situation())
