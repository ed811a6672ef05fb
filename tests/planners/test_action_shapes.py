"""Balls, grippers and frozen entries: where one step goes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from goalward import UserError
from goalward.planners.actions import Ball, Box, Gripper, Intersection, RateLimit, Situation, Workspace

LOW, HIGH = [-1.0, -0.5, -2.0, -0.75], [0.7, 0.5, 2.0, 0.75]


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


norms = st.sampled_from(["l1", "l2", "linf"])


def onto_ball(norm: str, radius: float, point: np.ndarray) -> np.ndarray:
    """Textbook projections of one point: rescaling, and the sorted soft threshold (Duchi et al. 2008, ICML, figure 1)."""
    if norm == "linf":
        return np.clip(point, -radius, radius)
    if norm == "l2":
        return point * min(1.0, radius / max(np.linalg.norm(point), 1e-300))
    if np.abs(point).sum() <= radius:
        return point
    sizes = np.sort(np.abs(point))[::-1]
    excess = (np.cumsum(sizes) - radius) / np.arange(1, len(point) + 1)
    threshold = excess[np.nonzero(sizes > excess)[0][-1]]
    return np.sign(point) * np.maximum(np.abs(point) - threshold, 0.0)


def dykstra(norm: str, radius: float, low: np.ndarray, high: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Nearest point of box and ball by alternating projections with memory (Dykstra 1983): slow and sure."""
    x, p, q = point.copy(), np.zeros_like(point), np.zeros_like(point)
    for _ in range(20000):
        y = np.clip(x + p, low, high)
        p = x + p - y
        x, before = onto_ball(norm, radius, y + q), x
        q = y + q - x
        if np.abs(x - before).max() < 1e-13 and np.abs(x - y).max() < 1e-10:
            break
    return x


@given(norm=norms, radius=st.floats(0.05, 2.0), seed=st.integers(0, 10**6), size=st.sampled_from([0.3, 1.0, 4.0]))
@settings(max_examples=60, deadline=None)
def test_one_step_goes_to_the_nearest_feasible_action(norm: Any, radius: float, seed: int, size: float) -> None:
    point = normal(seed, 3) * size
    low, high = np.array(LOW[:3]), np.array(HIGH[:3])
    bounds = Intersection(Box.of(LOW[:3], HIGH[:3]), shapes=(Ball(norm, radius),))
    ours = bounds.project(point.reshape(1, 1, 1, 3), Situation()).flatten()
    assert ours.tolist() == pytest.approx(dykstra(norm, radius, low, high, point.double().numpy()).tolist(), abs=2e-5)


@given(norm=norms, num=st.integers(2, 7), seed=st.integers(0, 10**6), size=st.sampled_from([0.1, 1.0, 1e3, 1e8]))
@settings(max_examples=120, deadline=None)
def test_no_point_of_interval_and_ball_is_nearer(norm: Any, num: int, seed: int, size: float) -> None:
    """The variational inequality of projections: from the nearest point, no feasible direction leads toward what was wanted."""
    rng = torch.Generator().manual_seed(seed)
    wanted = torch.randn(40, num, generator=rng) * size
    ends = torch.randn(2, 40, num, generator=rng) * 0.4
    low, high = ends.amin(0), ends.amax(0)
    inside = torch.clamp(wanted, low, high)
    ball = Ball(norm, 0.1 + float(torch.rand((), generator=rng)) * 2, tuple(range(num)))
    pulled = ball.pull(inside[None], wanted[None], lambda: (low[None], high[None]))[0]
    order = {"l1": 1.0, "l2": 2.0, "linf": torch.inf}[norm]
    moved = ball.length(inside) > ball.radius
    assert bool((torch.linalg.vector_norm(pulled, order, dim=-1) <= ball.radius)[moved].all()), "in float32 arithmetic as well"
    assert torch.equal(pulled[~moved], inside[~moved])
    nearest = pulled.double()
    least = torch.clamp(torch.zeros_like(low), low, high).double()
    meet = ball.length(least) < ball.radius * 0.999
    assert bool((ball.length(nearest) <= ball.radius).all())
    assert bool(((nearest >= low) & (nearest <= high)).all(-1)[meet].all())
    others = low + (high - low) * torch.rand(500, 1, num, generator=rng)
    share = torch.rand(500, 1, 1, generator=rng)
    others = torch.cat([others, least + share * (others - least), nearest[None] + share * 1e-3 * (others - nearest)]).double()
    feasible = (ball.length(others) <= ball.radius) & meet & ((others >= low) & (others <= high)).all(-1)
    away = wanted.double() - nearest
    gain = (away * (others - nearest)).sum(-1) / away.norm(dim=-1).clamp(min=1e-6)
    assert float(torch.where(feasible, gain, -1.0).max()) <= 2e-6


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("wanted", [1e6, 1e12, 3e38, float("inf")])
def test_of_huge_wishes_the_direction_still_counts(norm: Any, wanted: float) -> None:
    bounds = Intersection(Box.of([-1.0, -0.1, -1.0], [1.0, 0.1, 1.0]), shapes=(Ball(norm, 0.3),))
    action = bounds.project(torch.tensor([wanted, wanted, -wanted]).reshape(1, 1, 1, 3), Situation()).flatten()
    rest = 0.1 if norm == "l1" else 0.2
    assert action.tolist() == pytest.approx([rest, 0.1, -rest], rel=1e-5)


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_limits_that_touch_the_ball_from_outside_give_one_stable_answer(norm: Any) -> None:
    """Radii around the least size that a rate limit leaves: within a rounding error of contradicting it, on either side."""
    box, rate, wanted = Box.of([-1.0] * 3, [1.0] * 3), RateLimit.of([0.05, 0.5, 0.5]), torch.tensor([0.3, 0.2, 0.1])
    situation = Situation(last_action_BA=torch.tensor([[0.1, 0.0, 0.0]]))
    least = float(Intersection(box, (rate,)).project(torch.full((1, 1, 1, 3), -9.0), situation)[0, 0, 0, 0])
    for step in range(-40, 400, 3):
        ball = Ball(norm, least * (1 + step * 2.0**-30))
        bounds = Intersection(box, (rate,), (ball,))
        once = bounds.project(wanted.reshape(1, 1, 1, 3), situation)
        assert float(ball.length(once.flatten()[None])) <= ball.radius
        assert torch.equal(bounds.project(once, situation), once)
        assert step < 0 or float(once[0, 0, 0, 0]) >= least, "the rate limit can hold, so it does"


def test_the_ball_that_reproduces_v_jepa_2_ac_is_a_clip_per_axis() -> None:
    box, corner = Box.of([-1.0] * 3, [1.0] * 3), torch.full((1, 1, 1, 3), 0.5)
    reach = {
        norm: float(Intersection(box, shapes=(Ball(norm, 0.075),)).project(corner, Situation()).norm()) for norm in ("l1", "l2", "linf")
    }
    assert reach["linf"] == pytest.approx(0.130, abs=1e-3), "the 13 cm of its paper"
    assert reach["l2"] == pytest.approx(0.075, rel=1e-5)
    assert reach["l1"] == pytest.approx(0.0433, rel=1e-3)


def test_outside_the_workspace_the_arm_returns_as_fast_as_the_ball_permits() -> None:
    bounds = Intersection(Box.of([-0.1] * 3, [0.1] * 3), (Workspace.of([0.0] * 3, [1.0] * 3),), (Ball("l2", 0.05),))
    situation = Situation(position_BE=torch.tensor([[-0.3, 0.5, 0.5]]))
    action = bounds.project(torch.tensor([0.0, 0.1, 0.0]).reshape(1, 1, 1, 3), situation).flatten()
    assert action.tolist() == pytest.approx([0.05, 0.0, 0.0], abs=1e-6)


def test_a_gripper_snaps_to_what_it_knows_but_a_rate_limit_comes_first() -> None:
    box = Box.of([-0.75], [0.75])
    values = torch.tensor([-2.0, -0.3, -0.2, 0.0, 0.1, 0.25, 0.4]).reshape(1, -1, 1, 1)
    dead = Intersection(box, shapes=(Gripper(0, dead_zone=0.25),))
    assert dead.project(values, Situation()).flatten().tolist() == pytest.approx([-0.75, -0.3, 0, 0, 0, 0.25, 0.4])
    binary = Intersection(box, shapes=(Gripper(0, levels=(-0.75, 0.75)),))
    assert binary.project(values, Situation()).abs().flatten().tolist() == [0.75] * 7
    uneven = Intersection(box, shapes=(Gripper(0, levels=(0.5, 0.0, -0.1)),))
    assert uneven.project(values, Situation()).flatten().tolist() == pytest.approx([-0.1, -0.1, -0.1, 0.0, 0.0, 0.0, 0.5])


@pytest.mark.parametrize("dead_zone", [0.3, 0.7])  # the nearest float32 of the one is larger, of the other smaller
def test_a_dead_zone_holds_in_exact_arithmetic(dead_zone: float) -> None:
    bounds = Intersection(Box.of([-1.0], [1.0]), shapes=(Gripper(0, dead_zone=dead_zone),))
    near = torch.tensor(dead_zone).repeat(1, 3, 1, 1)
    for index, toward in ((0, 0.0), (2, 1.0)):
        near[:, index] = torch.nextafter(near[:, index], torch.tensor(toward))
    value = bounds.project(near, Situation()).flatten().double()
    assert value.tolist() == [size if size >= dead_zone else 0.0 for size in near.flatten().double().tolist()]


def test_under_a_rate_limit_a_gripper_passes_through_what_it_knows() -> None:
    box, wanted = Box.of([-0.75], [0.75]), torch.full((1, 1, 6, 1), -0.75)
    closed = Situation(last_action_BA=torch.tensor([[0.75]]))
    dead = Intersection(box, (RateLimit.of([0.3]),), (Gripper(0, dead_zone=0.25),))
    assert dead.project(wanted, closed).flatten().tolist() == pytest.approx([0.45, 0.25, 0.0, -0.3, -0.6, -0.75], abs=1e-5)
    levels = Intersection(box, (RateLimit.of([0.8]),), (Gripper(0, levels=(-0.75, 0.0, 0.75)),))
    assert levels.project(wanted, closed).flatten().tolist() == [0.0] + [-0.75] * 5
    far = Intersection(box, (RateLimit.of([0.1]), Workspace.of([0.0], [1.0], action_dims=(0,))), (Gripper(0, levels=(-0.75,)),))
    situation = Situation(last_action_BA=torch.zeros(1, 1), position_BE=torch.zeros(1, 1))
    assert 0 <= float(far.project(wanted[:, :, :1], situation)) < 1e-6, "limits come first"


@pytest.mark.parametrize("gripper", [Gripper(0, dead_zone=0.25), Gripper(0, levels=(-0.75, -0.5, 0.75)), Gripper(0, levels=(0.5, 0.75))])
def test_a_rate_limit_that_would_keep_a_gripper_from_ever_moving_is_refused(gripper: Gripper) -> None:
    for change in (0.1, 0.2499999):
        with pytest.raises(UserError, match="never move"):
            Intersection(Box.of([-0.75], [0.75]), (RateLimit.of([change]),), (gripper,))
    Intersection(Box.of([0.1], [0.1]), (RateLimit.of([0.1]),), (gripper,))  # frozen, it need not
    Intersection(Box.of([-0.75], [0.75]), (RateLimit.of([1.5]),), (gripper,))


def test_frozen_entries() -> None:
    box = Box.of(LOW, HIGH).frozen({3: 0.25, 0: 0.0})
    assert torch.equal(box.low_A[[1, 2]], torch.tensor(LOW)[[1, 2]])
    assert box.low_A[[0, 3]].tolist() == box.high_A[[0, 3]].tolist() == [0.0, 0.25]
    with pytest.raises(UserError, match="entry 4"):
        box.frozen({4: 0.0})
    with pytest.raises(UserError, match="finite"):
        box.frozen({0: float("nan")})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Ball("l3", 1.0), "norm 'l3'"),  # type: ignore[arg-type]
        (lambda: Ball("l2", 0.0), "radius 0.0"),
        (lambda: Ball("l2", 1e10), "1e-9 to 1e9"),
        (lambda: Intersection(Box.of([-0.5], [0.5]), shapes=(Gripper(0, levels=(-1.0, 1.0)),)), "one level must lie inside"),
        (lambda: Intersection(Box.of([-0.5] * 2, [0.5] * 2), (RateLimit.of([1.0]),)), "1 numbers for 2"),
        (lambda: Intersection(Box.of([-0.5], [0.5]), (Workspace.of([0.0] * 2, [1.0] * 2, action_dims=(0, 1)),)), "entries 0 .. 0"),
        (lambda: Ball("l2", float("nan")), "radius nan"),
        (lambda: Ball("l2", 1.0, ()), "at least one"),
        (lambda: Ball("l2", 1.0, (0, 0)), "none twice"),
        (lambda: Gripper(-1), "entry -1"),
        (lambda: Gripper(0, dead_zone=-1.0), "dead_zone -1.0"),
        (lambda: Gripper(0, levels=()), "levels"),
        (lambda: Gripper(0, dead_zone=0.1, levels=(1.0,)), "levels alone"),
        (lambda: Intersection(Box.of([0.1], [0.2]), shapes=(Ball("l2", 1.0, (0,)),)), "must contain 0"),
        (lambda: Intersection(Box.of([-1.0], [1.0]), shapes=(Ball("l2", 1.0, (0, 1)),)), "below 1"),
        (lambda: Intersection(Box.of([-1.0] * 2, [1.0] * 2), shapes=(Ball("l2", 1.0, (0, 1)), Gripper(1))), "its own"),
    ],
)
def test_meaningless_shapes_are_refused(make: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make()
