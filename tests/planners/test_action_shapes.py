"""Balls, grippers and whatever is composed of them: inside, idempotent, the identity on what is feasible, nearest for one step."""

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

NUM = 4
LOW, HIGH = [-1.0, -0.5, -2.0, -0.75], [0.7, 0.5, 2.0, 0.75]
EXTREMES = torch.tensor([0.0, -0.0, 1e-42, -1e-42, 1e30, -1e30, 0.5, -0.5, 0.75, 0.25, 1.0, 3.4e38, -3.4e38])


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def adversarial(seed: int, num: int, horizon: int) -> Tensor:
    """Candidates of every size, some of their entries extreme."""
    rng = torch.Generator().manual_seed(seed)
    actions = torch.randn(1, num, horizon, NUM, generator=rng) * 10.0 ** torch.randint(-3, 4, (1, num, 1, 1), generator=rng)
    extreme = EXTREMES[torch.randint(0, len(EXTREMES), actions.shape, generator=rng)]
    return torch.where(torch.rand(actions.shape, generator=rng) < 0.1, extreme, actions)


norms = st.sampled_from(["l1", "l2", "linf"])
radii = st.sampled_from([1e-3, 0.05, 0.3, 0.9, 5.0])


@st.composite
def compositions(draw: Any) -> tuple[Intersection, Situation, bool]:
    """Any of the limits, in any order; says whether none of them can contradict another."""
    limits: list[Any] = []
    rate, wall = draw(st.booleans()), draw(st.booleans())
    if rate:
        limits.append(RateLimit.of([draw(st.sampled_from([0.05, 0.4, 3.0]))] * NUM))
    if wall:
        limits.append(Workspace.of([-1.0] * 3, [1.0] * 3))
    if draw(st.booleans()):
        limits.reverse()
    shapes: list[Any] = []
    if draw(st.booleans()):
        shapes.append(Ball(draw(norms), draw(radii), draw(st.sampled_from([(0, 1, 2), (0,), (2, 1)]))))
    if draw(st.booleans()):
        shapes.append(Gripper(3, **draw(st.sampled_from([{"dead_zone": 0.25}, {"levels": (-0.75, 0.0, 0.75)}, {"dead_zone": 5.0}]))))
    box = Box.of(LOW, HIGH)
    if draw(st.booleans()):
        box = box.frozen({1: 0.0})
    inside = draw(st.booleans())
    position = normal(draw(st.integers(0, 99)), 1, 3).clamp(-0.9, 0.9) + (0.0 if inside else 5.0)
    last = normal(draw(st.integers(0, 99)), 1, NUM) * 0.1
    return Intersection(box, tuple(limits), tuple(shapes)), Situation(position_BE=position, last_action_BA=last), not rate and inside


@given(made=compositions(), seed=st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_projection_is_inside_idempotent_and_the_identity_on_feasible_actions(made: Any, seed: int) -> None:
    bounds, situation, agree = made
    actions = adversarial(seed, 64, 3)
    once = bounds.project(actions, situation)
    assert bool(torch.isfinite(once).all())
    assert torch.equal(bounds.project(once, situation), once), "idempotent, hence the identity on what is feasible"
    exact = once.double()
    assert bool(((exact >= bounds.low_A.double()) & (exact <= bounds.high_A.double())).all())
    for shape in bounds.shapes:
        if isinstance(shape, Ball):
            assert bool((shape.length(once[0][..., list(shape.action_dims)]) <= shape.radius).all())
        elif not bounds.limits:
            value = once[..., 3].abs()
            allowed = (value == 0) | (value == 0.75) if shape.levels else (value == 0) | (value >= min(shape.dead_zone, 0.75))
            assert bool(allowed.all())
    if agree:
        for limit in bounds.limits:
            assert isinstance(limit, Workspace)
            reached = situation.position_BE.double()[:, None, None] + exact[..., :3].cumsum(2)
            assert bool(((reached >= -1) & (reached <= 1)).all())


@given(made=compositions(), seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_a_candidate_is_projected_alike_alone_and_in_a_batch(made: Any, seed: int) -> None:
    bounds, situation, _ = made
    actions = adversarial(seed, 16, 2)
    together = bounds.project(actions, situation)
    for index in (0, 7, 15):
        assert torch.equal(bounds.project(actions[:, index : index + 1], situation), together[:, index : index + 1])


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
    slow = Intersection(box, (RateLimit.of([0.5]),), (Gripper(0, levels=(-0.75, 0.75)),))
    situation = Situation(last_action_BA=torch.tensor([[0.75]]))
    first, second, third = slow.project(torch.full((1, 1, 3, 1), -0.75), situation).flatten().tolist()
    assert (first, second, third) == (0.75, 0.75, 0.75), "within the rate it can only stay: binary grippers need a rate above their stroke"
    assert float(slow.project(torch.full((1, 1, 1, 1), -0.75), Situation(last_action_BA=torch.tensor([[0.0]])))) == pytest.approx(-0.5)


def test_frozen_entries() -> None:
    box = Box.of(LOW, HIGH).frozen({3: 0.25, 0: 0.0})
    assert box.low_A.tolist() == box.low_A.tolist()
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


def test_many_adversarial_candidates_stay_inside() -> None:
    ball = Ball("l1", 0.3)
    bounds = Intersection(Box.of(LOW, HIGH), (Workspace.of([-1.0] * 3, [1.0] * 3),), (ball, Gripper(3, dead_zone=0.25)))
    situation = Situation(position_BE=torch.tensor([[0.2, -0.4, 0.9]]))
    actions = bounds.project(adversarial(0, 100_000, 2), situation)
    reached = situation.position_BE.double()[:, None, None] + actions[..., :3].double().cumsum(2)  # type: ignore[union-attr]
    assert bool(((actions >= bounds.low_A) & (actions <= bounds.high_A)).all())
    assert bool(((reached >= -1) & (reached <= 1)).all())
    assert bool((ball.length(actions[0, ..., :3]) <= ball.radius).all())
    assert bool(((actions[..., 3] == 0) | (actions[..., 3].abs() >= 0.25)).all())
