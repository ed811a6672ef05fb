"""Commands that act late: the controller finds out by how much, plans from where those on their way lead, and is not fooled."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from goalward import UserError
from goalward.planners.control import delay
from goalward.planners.control.controller import make_controller
from goalward.planners.control.delay import Delay
from goalward.planners.methods.cem import CEMConfig
from goalward.planners.objectives import LatentDistance, Objective

START, GOAL = np.array([0.2, 0.7, 0.5]), np.array([0.55, 0.4, 0.45])
CEM_CONFIG = CEMConfig(num_samples=64, num_iterations=5, num_elites=10)
PATH = Objective(terms=(LatentDistance(step_weights="uniform"),))


def controller_of(world: Any, goal: Any = GOAL, **options: Any) -> Any:
    options = {"objective": PATH, "planner": "cem", "planner_config": CEM_CONFIG, "horizon": 4, **options}
    return make_controller(world, world.image(goal), **options)


def drive_late(world: Any, controller: Any, late: int, steps: int = 24, start: Any = START) -> tuple[np.ndarray, list[int]]:
    """Executes every command `late` steps after it was given; returns positions and what was believed."""
    positions, believed = [np.array(start, dtype=np.float64)], []
    pending = [np.zeros(3)] * late
    for step in range(steps):
        pending.append(controller.act(world.observation(positions[-1], step * world.dt_s)))
        positions.append(positions[-1] + pending.pop(0))
        believed.append(controller.last_delay_steps)
    return np.array(positions), believed


@pytest.mark.parametrize("late", [0, 1, 2, 3])
def test_the_delay_is_found_and_the_goal_kept(worlds: SimpleNamespace, late: int) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, max_delay_steps=3)
    positions, believed = drive_late(world, controller, late)
    assert believed[late + 2 :] == [late] * (len(believed) - late - 2)
    away = np.linalg.norm(positions - GOAL, axis=1)
    assert away[12 + late :].max() < 0.01, "it stays, once there"


def test_without_looking_for_it_a_delay_makes_the_arm_swing(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    swinging, believed = drive_late(world, controller_of(world, max_delay_steps=0), 2)
    assert set(believed) == {0}
    assert np.linalg.norm(swinging - GOAL, axis=1)[12:].max() > 0.05


def test_a_delay_that_ends_is_noticed(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world)
    positions, believed = drive_late(world, controller, 1, steps=6)
    assert believed[-1] == 1
    controller.set_goal(world.image([0.1, 0.9, 0.9]))
    later, believed = drive_late(world, controller, 0, steps=8, start=positions[-1])
    assert believed[-1] == 0
    assert np.linalg.norm(later[-1] - [0.1, 0.9, 0.9]) < 0.05


def test_holding_tells_nothing(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, goal=START)
    for step in range(6):
        controller.act(world.observation(START, step * world.dt_s))
    assert controller.last_delay_steps == 0


def test_an_arm_that_is_stuck_is_a_surprise_and_not_a_delay(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    calibration = SimpleNamespace(typical_error_H=(1e-6,) * 4, surprise_limit_H=(10.0,) * 4, success_energy=1e-5, success_steps=2)
    controller = controller_of(world, calibration=calibration)
    surprised = []
    for step in range(10):
        controller.act(world.observation(START, step * world.dt_s))
        surprised.append(controller.state.surprised)
    assert all(surprised[4:])


def test_a_new_episode_begins_without_belief(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world)
    drive_late(world, controller, 1, steps=6)
    controller.reset(world.image(GOAL))
    assert controller.last_delay_steps == 0
    assert not controller.state.delay.sent_KA.any()


def test_a_frame_that_is_missing_is_not_compared_across(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world)
    drive_late(world, controller, 0, steps=4)
    before = controller.state.delay.errors
    broken = world.observation(START, 1.0) | {"time_s": np.float64("nan")}
    controller.act(broken)
    assert controller.state.delay.errors == before
    assert controller.last_hold_reason is not None


def test_arms_with_different_delays_do_not_disturb_one_another(worlds: SimpleNamespace) -> None:
    def run(lates: list[int]) -> np.ndarray:
        world = worlds.PointWorld()
        policy = controller_of(world).policy
        states = [policy.start(world.image(GOAL), seed=late) for late in lates]
        positions = [START.copy() for _ in lates]
        pending = [[np.zeros(3)] * late for late in lates]
        for step in range(10):
            seen = [world.observation(position, step * world.dt_s) for position in positions]
            actions, states = policy.act_batch(states, seen)
            for b, action in enumerate(actions):
                pending[b].append(action)
                positions[b] = positions[b] + pending[b].pop(0)
        return np.array(positions)

    together = run([0, 1, 2])
    for b, late in enumerate([0, 1, 2]):
        assert np.array_equal(together[b], run([late])[0])


@pytest.mark.parametrize("wrongly", [0, 1, 2])
def test_a_wrong_belief_never_leads_out_of_the_workspace(worlds: SimpleNamespace, wrongly: int) -> None:
    world = worlds.PointWorld()
    low, high = [0.15, 0.35, 0.4], [0.6, 0.75, 0.6]
    controller = controller_of(world, goal=[0.95, 0.05, 0.5], workspace=(low, high))
    position = START.copy()
    for step in range(20):
        state = controller.state
        controller.state = state.__class__(**{f: getattr(state, f) for f in state.__slots__} | {"delay": believing(state.delay, wrongly)})
        position = position + controller.act(world.observation(position, step * world.dt_s))
        assert (position >= np.array(low) - 1e-6).all()
        assert (position <= np.array(high) + 1e-6).all()


def believing(known: Delay, steps: int) -> Delay:
    """A belief that no evidence will change soon."""
    errors = [1e6] * len(known.errors)
    errors[steps] = 0.0
    return Delay(sent_KA=known.sent_KA, errors=tuple(errors), steps=steps)


@given(errors=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=3, max_size=3))
def test_errors_that_are_not_finite_say_nothing(errors: list[float]) -> None:
    known = delay.begin(np.zeros(2, np.float32), 2)
    judged = known.judged(tuple(errors))
    if not np.isfinite(errors).all():
        assert (judged.errors, judged.steps, judged.newest) == (known.errors, known.steps, ())
    assert 0 <= judged.steps <= 2


@given(
    commands=st.lists(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=2), min_size=1, max_size=8),
    steps=st.integers(0, 2),
)
def test_which_commands_are_on_their_way(commands: list[list[float]], steps: int) -> None:
    known = delay.begin(np.zeros(2, np.float32), 2)
    for command in commands:
        known = known.after(np.array(command, np.float32))
    sent = [[0.0, 0.0]] * 3 + commands
    assert known.hypotheses_KA.tolist() == [sent[-1], sent[-2], sent[-3]]
    assert Delay(sent_KA=known.sent_KA, errors=known.errors, steps=steps).on_their_way_KA.tolist() == sent[len(sent) - steps :]


def test_frames_are_rolled_on_by_what_is_on_its_way(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    ring = torch.tensor([[[[0.1, 0.2, 0.3]], [[0.2, 0.2, 0.3]]]])
    known = Delay(sent_KA=np.array([[9, 9, 9], [0.1, 0, 0], [0, 0.1, 0]], np.float32), errors=(0.0, 0.0, 0.0), steps=2)
    rolled = delay.rolled_forward(world, ring, known)
    assert rolled[0, :, 0].tolist() == [pytest.approx([0.3, 0.2, 0.3]), pytest.approx([0.3, 0.3, 0.3])]
    assert delay.rolled_forward(world, ring, delay.begin(np.zeros(3, np.float32), 2)) is ring


def test_a_wrong_number_is_named(worlds: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="max_delay_steps"):
        controller_of(worlds.PointWorld(), max_delay_steps=-1)
    with pytest.raises(UserError, match="max_delay_steps"):
        controller_of(worlds.PointWorld(), max_delay_steps=17)
