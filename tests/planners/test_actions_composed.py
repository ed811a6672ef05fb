"""Action sets composed of anything, against a checker that knows only what each limit means, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from goalward.planners.actions import Ball, Box, Gripper, Intersection, RateLimit, Situation, Workspace

NUM, NUM_PROBLEMS, HORIZON = 4, 2, 3
LOW, HIGH = (-1.0, -0.5, -2.0, -0.75), (0.7, 0.5, 2.0, 0.75)
EXTREMES = torch.tensor(
    [0.0, -0.0, 1e-42, -1e-42, 1.2e-38, 1e30, -1e30, 3.4e38, -3.4e38, torch.inf, -torch.inf, *LOW, *HIGH, 0.25, -0.25, 0.3, -0.3, 0.05, 0.4]
)
CLOSE = 1e-4
"""Limits that overlap by less than this, in one entry, count as a contradiction: their safety margins may fill the overlap."""


@dataclass(frozen=True)
class Made:
    bounds: Intersection
    situation: Situation


def adversarial(seed: int, num: int, *, num_problems: int = NUM_PROBLEMS, horizon: int = HORIZON) -> Tensor:
    """Candidates of every size, some of their entries extreme."""
    rng = torch.Generator().manual_seed(seed)
    shape = (num_problems, num, horizon, NUM)
    actions = torch.randn(shape, generator=rng) * 10.0 ** torch.randint(-3, 4, (num_problems, num, 1, 1), generator=rng)
    extreme = EXTREMES[torch.randint(0, len(EXTREMES), shape, generator=rng)]
    return torch.where(torch.rand(shape, generator=rng) < 0.15, extreme, actions)


@st.composite
def compositions(draw: Any, *, balls: tuple[str, ...] = ("l1", "l2", "linf")) -> Made:
    """Any subset of the limits in any order, any ball, any gripper, frozen axes; positions and last actions inside and outside."""
    limits: list[Any] = []
    if draw(st.booleans()):
        limits.append(RateLimit.of([*draw(st.sampled_from([(0.05, 0.05, 0.05), (0.4, 0.1, 1.0), (3.0, 3.0, 3.0)])), 1.0]))
    if draw(st.booleans()):
        dims = draw(st.sampled_from([(0, 1, 2), (2, 0), (1,)]))
        limits.append(Workspace.of([-1.0] * len(dims), [1.0] * len(dims), action_dims=dims))
    limits = draw(st.permutations(limits))
    shapes: list[Any] = []
    if draw(st.booleans()):
        radius = draw(st.one_of(st.sampled_from([1e-3, 0.05, 0.4, 5.0]), st.floats(0.01, 2.0)))
        shapes.append(Ball(draw(st.sampled_from(balls)), radius, draw(st.sampled_from([(0, 1, 2), (0,), (2, 1), (0, 2)]))))  # type: ignore[arg-type]
    if draw(st.booleans()):
        kinds = [{"dead_zone": 0.25}, {"levels": (-0.75, 0.0, 0.75)}, {"levels": (-0.7, 0.2)}, {"dead_zone": 5.0}, {}]
        shapes.append(Gripper(3, **draw(st.sampled_from(kinds))))
    shapes = draw(st.permutations(shapes))
    ruled = shapes and any(isinstance(shape, Ball) for shape in shapes)
    frozen = draw(st.sampled_from([{}, {1: 0.0}, {3: 0.2}, {0: 0.0, 2: 0.0}] + ([] if ruled else [{0: 0.3, 1: -0.1}])))
    seed = draw(st.integers(0, 10**6))
    rng = torch.Generator().manual_seed(seed)
    position = torch.rand(NUM_PROBLEMS, 3, generator=rng) * 1.98 - 0.99 + draw(st.sampled_from([0.0, 0.0, 1.0, 300.0]))
    last = torch.randn(NUM_PROBLEMS, NUM, generator=rng) * draw(st.sampled_from([0.0, 0.05, 1.0]))
    bounds = Intersection(Box.of(LOW, HIGH).frozen(frozen), tuple(limits), tuple(shapes))
    workspaces = [limit for limit in limits if isinstance(limit, Workspace)]
    position = position[:, list(workspaces[0].action_dims)] if workspaces else position
    return Made(bounds, Situation(position_BE=position, last_action_BA=last))


def interval(limit: Any, situation: Situation, before_BSHA: Tensor) -> tuple[Tensor, Tensor]:
    """What a limit alone allows after these actions, float64."""
    num_candidates = before_BSHA.shape[1]
    if isinstance(limit, RateLimit):
        assert situation.last_action_BA is not None
        first = situation.last_action_BA.double()[:, None].expand(-1, num_candidates, -1)
        last = before_BSHA[:, :, -1] if before_BSHA.shape[2] else first
        return last - limit.change_A.double(), last + limit.change_A.double()
    assert situation.position_BE is not None
    dims = list(limit.action_dims)
    here = situation.position_BE.double()[:, None] + before_BSHA[..., dims].sum(2)
    low = torch.full((before_BSHA.shape[0], num_candidates, NUM), -torch.inf, dtype=torch.float64)
    high = -low
    low[..., dims], high[..., dims] = limit.low_E - here, limit.high_E - here
    return low, high


def check(made: Made, actions_BSHA: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Returns which candidates break what, by name, and which meet every limit with room to spare; bool [B, S]."""
    bounds, exact = made.bounds, actions_BSHA.double()
    bad = {"box": ~((exact >= bounds.low_A.double()) & (exact <= bounds.high_A.double())).all((-1, -2))}
    roomy_BS = torch.ones(exact.shape[:2], dtype=torch.bool)

    def note(name: str, wrong_BS: Tensor) -> None:
        bad[name] = bad.get(name, torch.zeros_like(roomy_BS)) | wrong_BS

    for step in range(exact.shape[2]):
        action = exact[:, :, step]
        low, high = (bound.double().expand_as(action) for bound in (bounds.low_A, bounds.high_A))
        broken: list[tuple[str, Tensor]] = []
        for limit in reversed(bounds.limits):
            inner, outer = interval(limit, made.situation, exact[:, :, :step])
            roomy_BS &= ((action > inner + CLOSE) & (action < outer - CLOSE)).all(-1)
            agrees = (torch.maximum(low, inner) + CLOSE <= torch.minimum(high, outer)) | ((low == high) & (low > inner) & (low < outer))
            broken.append((type(limit).__name__, agrees & ~((action >= inner) & (action <= outer))))
            low, high = torch.clamp(inner, low, high), torch.clamp(outer, low, high)
        for shape in bounds.shapes:
            dims = list(shape.action_dims)
            if isinstance(shape, Ball):
                length = shape.length(action[..., dims])
                note("ball", length > shape.radius)
                roomy_BS &= length < shape.radius - CLOSE
                agrees = shape.length(torch.clamp(torch.zeros_like(low), low, high)[..., dims]) < shape.radius - CLOSE
                for _, wrong in broken:
                    wrong[..., dims] &= agrees[..., None]
            elif isinstance(shape, Gripper):
                value, floor, ceiling = (end[..., dims[0]] for end in (action, low, high))
                known = knows(shape, value)
                options = [0.0, shape.dead_zone, -shape.dead_zone] if shape.levels is None else torch.tensor(shape.levels).tolist()
                some = torch.stack([(floor + CLOSE < option) & (option + CLOSE < ceiling) for option in options]).any(0)
                note("gripper", ~known & some)
                roomy_BS &= known
        for name, wrong in broken:
            note(name, wrong.any(-1))
    return bad, roomy_BS


def broken_limits(made: Made, actions_BSHA: Tensor) -> list[str]:
    return [name for name, bad_BS in check(made, actions_BSHA)[0].items() if bool(bad_BS.any())]


def knows(gripper: Gripper, value: Tensor) -> Tensor:
    if gripper.levels is None:
        return (value == 0) | (value.abs() >= gripper.dead_zone)
    return torch.stack([value == level for level in torch.tensor(gripper.levels).double()]).any(0)


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Bit for bit, but for the sign of zeros."""
    return torch.equal((one + 0.0).view(torch.int32), (other + 0.0).view(torch.int32))


@given(made=compositions(), seed=st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_every_limit_holds_that_does_not_contradict_and_projecting_again_changes_no_bit(made: Made, seed: int) -> None:
    once = made.bounds.project(adversarial(seed, 40), made.situation)
    assert bool(torch.isfinite(once).all())
    assert broken_limits(made, once) == []
    assert same_bits(made.bounds.project(once, made.situation), once)


@given(made=compositions(), seed=st.integers(0, 10**6), size=st.sampled_from([1e-3, 0.03, 0.3]))
@settings(max_examples=150, deadline=None)
def test_sequences_that_meet_every_limit_keep_every_bit(made: Made, seed: int, size: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    actions = torch.randn(NUM_PROBLEMS, 30, HORIZON, NUM, generator=rng) * size
    actions[..., 3] = torch.tensor([0.0, -0.0, 0.5, -0.75, 0.2])[torch.randint(0, 5, actions.shape[:3], generator=rng)]
    actions = torch.where(made.bounds.low_A == made.bounds.high_A, made.bounds.low_A, actions)
    actions = torch.where((actions >= made.bounds.low_A) & (actions <= made.bounds.high_A), actions, made.bounds.low_A)
    bad, feasible_BS = check(made, actions)
    feasible_BS &= ~torch.stack(list(bad.values())).any(0)
    assert same_bits(made.bounds.project(actions, made.situation)[feasible_BS], actions[feasible_BS])


def alone(made: Made, problem: int) -> Made:
    position, last = made.situation.position_BE, made.situation.last_action_BA
    assert position is not None
    assert last is not None
    return Made(made.bounds, Situation(position_BE=position[problem : problem + 1], last_action_BA=last[problem : problem + 1]))


@given(made=compositions(), seed=st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_a_candidate_is_projected_alike_alone_and_in_any_batch(made: Made, seed: int) -> None:
    actions = adversarial(seed, 17)
    together = made.bounds.project(actions, made.situation)
    for problem, index in ((0, 0), (1, 7), (0, 16)):
        cut = (slice(problem, problem + 1), slice(index, index + 1))
        assert same_bits(made.bounds.project(actions[cut], alone(made, problem).situation), together[cut])
    assert same_bits(made.bounds.project(actions[:, 3:9], made.situation), together[:, 3:9])


@given(made=compositions(), seed=st.integers(0, 10**6), order=st.permutations(range(NUM)))
@settings(max_examples=80, deadline=None)
def test_the_order_of_the_entries_means_nothing(made: Made, seed: int, order: list[int]) -> None:
    place = [order.index(dim) for dim in range(NUM)]  # where each entry went

    def moved(member: Any) -> Any:
        if isinstance(member, RateLimit):
            return RateLimit.of(member.change_A[order])
        dims = tuple(place[dim] for dim in member.action_dims)
        if isinstance(member, Workspace):
            return Workspace(member.low_E, member.high_E, dims)
        return Ball(member.norm, member.radius, dims) if isinstance(member, Ball) else Gripper(dims[0], member.dead_zone, member.levels)

    bounds, last = made.bounds, made.situation.last_action_BA
    assert last is not None
    permuted = Intersection(
        Box(bounds.low_A[order], bounds.high_A[order]), tuple(map(moved, bounds.limits)), tuple(map(moved, bounds.shapes))
    )
    actions = adversarial(seed, 20)
    expected = bounds.project(actions, made.situation)[..., order]
    got = permuted.project(actions[..., order], Situation(position_BE=made.situation.position_BE, last_action_BA=last[:, order]))
    assert torch.allclose(got, expected, rtol=0, atol=2e-6)


WALLS = Workspace.of([-1.0] * 3, [1.0] * 3)
MILLION: dict[str, Intersection] = {
    "box": Intersection(Box.of(LOW, HIGH)),
    "frozen": Intersection(Box.of(LOW, HIGH).frozen({0: 0.1, 3: 0.0})),
    "rate": Intersection(Box.of(LOW, HIGH), (RateLimit.of([0.3] * NUM),)),
    "workspace": Intersection(Box.of(LOW, HIGH), (WALLS,)),
    "l1": Intersection(Box.of(LOW, HIGH), shapes=(Ball("l1", 0.3),)),
    "l2": Intersection(Box.of(LOW, HIGH), shapes=(Ball("l2", 0.3),)),
    "linf": Intersection(Box.of(LOW, HIGH), shapes=(Ball("linf", 0.3),)),
    "dead zone": Intersection(Box.of(LOW, HIGH), shapes=(Gripper(3, dead_zone=0.3),)),
    "levels": Intersection(Box.of(LOW, HIGH), shapes=(Gripper(3, levels=(-0.75, 0.0, 0.75)),)),
    "all": Intersection(Box.of(LOW, HIGH), (RateLimit.of([0.4] * 3 + [1.0]), WALLS), (Ball("l2", 0.3), Gripper(3, dead_zone=0.25))),
}


@pytest.mark.parametrize("name", list(MILLION))
def test_none_of_a_million_adversarial_candidates_violates_a_limit(name: str) -> None:
    position, last = torch.tensor([[0.2, -0.4, 0.9]]), torch.tensor([[0.1, 0.05, -0.1, 0.0]])
    made = Made(MILLION[name], Situation(position_BE=position, last_action_BA=last))
    horizon = 2 if made.bounds.limits else 1
    pool = adversarial(0, 10_000, num_problems=1, horizon=horizon)
    rng = torch.Generator().manual_seed(1)
    for _ in range(100):
        # New combinations of the same entries: drawing a million afresh would take longer than projecting them.
        actions = torch.stack([pool[..., dim][:, torch.randperm(10_000, generator=rng)] for dim in range(NUM)], dim=-1)
        assert broken_limits(made, made.bounds.project(actions, made.situation)) == []
