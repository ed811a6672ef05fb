"""Knowing from latents that a goal is reached, and several goal images: any of them, or one after the other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goalward import UserError
from goalward.planners.control.controller import make_controller
from goalward.planners.methods.cem import CEMConfig
from goalward.planners.objectives import LatentDistance, Objective

START = np.array([0.3, 0.6, 0.5])
GOALS = [np.array(goal) for goal in ([0.5, 0.5, 0.5], [0.3, 0.4, 0.6], [0.4, 0.65, 0.4])]
QUICK = CEMConfig(num_samples=48, num_iterations=4, num_elites=8)
PATH = Objective(terms=(LatentDistance(step_weights="uniform"),))
CALIBRATION = SimpleNamespace(typical_error_H=(1e-6,) * 3, surprise_limit_H=(10.0,) * 3, success_energy=1e-4, success_steps=3)


def controller_of(world: Any, goals: Any, **options: Any) -> Any:
    pixels = np.stack([world.image(goal) for goal in goals])
    defaults = {"planner_config": QUICK, "objective": PATH, "calibration": CALIBRATION, "max_delay_steps": 0}
    return make_controller(world, pixels, **(defaults | options))


def drive(world: Any, controller: Any, steps: int, start: np.ndarray = START) -> tuple[np.ndarray, list[Any]]:
    positions, told = [start.copy()], []
    for step in range(steps):
        positions.append(positions[-1] + controller.act(world.observation(positions[-1], step * 0.25)))
        told.append((controller.goal_index, controller.last_success, controller.last_energy))
    return np.array(positions), told


# --- success ---------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moments=st.lists(st.sampled_from(["near", "far", "blind", "numb"]), min_size=1, max_size=12), steps=st.integers(1, 4))
def test_success_is_so_many_detections_running(moments: list[str], steps: int, worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    rule = SimpleNamespace(**(vars(CALIBRATION) | {"success_steps": steps}))
    tiny = CEMConfig(num_samples=4, num_iterations=1, num_elites=1, num_kept_elites=0)
    controller = controller_of(world, GOALS[:1], calibration=rule, planner_config=tiny)
    assert controller.last_success is None, "nothing was looked at yet"
    encode, running = world.encode, 0
    for step, moment in enumerate(moments):
        observation = world.observation(GOALS[0] + (0.2 if moment == "far" else 0.002), step * 0.25)
        if moment == "numb":
            observation["proprio"][0] = np.nan
        world.encode = (lambda pixels: encode(pixels) * float("nan")) if moment == "blind" else encode
        controller.act(observation)
        running = running + 1 if moment == "near" else 0
        assert controller.last_success is (running >= steps)


def test_success_is_claimed_where_the_goal_is_reached(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    positions, told = drive(world, controller_of(world, GOALS[:1]), 12)
    near = (positions[:-1] - GOALS[0]) ** 2
    near = near.mean(axis=1) <= 1e-4
    first = next(step for step in range(2, 12) if near[step - 2 : step + 1].all())
    assert [success for _, success, _ in told] == [step >= first for step in range(12)]


# --- any of several ----------------------------------------------------------------------------------------------------------------------


def test_one_goal_in_a_row_of_one_is_that_goal(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    single = make_controller(world, world.image(GOALS[0]), planner_config=QUICK, objective=PATH, calibration=CALIBRATION)
    expected, told = drive(world, single, 5)
    found, also = drive(world, controller_of(world, GOALS[:1]), 5)
    assert np.array_equal(expected, found)
    assert told == also


def test_of_any_goals_the_nearest_is_reached_and_counts(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    positions, told = drive(world, controller_of(world, [GOALS[0], START + np.array([0.0, 0.3, 0.0]), GOALS[2]]), 10)
    assert np.linalg.norm(positions[-1] - GOALS[2]) < 0.01
    assert told[0][2] == pytest.approx(((START - GOALS[2]) ** 2).mean(), rel=0.02)
    assert told[-1][1] is True
    assert {index for index, _, _ in told} == {0}


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(3)), again=st.integers(0, 2))
def test_neither_the_order_of_any_goals_nor_repeating_one_matters(order: list[int], again: int, worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    expected, _ = drive(world, controller_of(world, GOALS), 3)
    found, _ = drive(world, controller_of(world, [GOALS[g] for g in [*order, again]]), 3)
    assert np.array_equal(expected, found)


# --- one after the other --------------------------------------------------------------------------------------------------------


def test_a_sequence_is_worked_off_in_order(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, GOALS, goal_mode="sequence", execute_steps=2)
    positions, told = drive(world, controller, 30)
    indices = [index for index, _, _ in told]
    assert indices == sorted(indices)
    assert set(indices) == {0, 1, 2}
    for goal in (1, 2):
        arrived = indices.index(goal)
        assert (((positions[arrived - 2 : arrived + 1] - GOALS[goal - 1]) ** 2).mean(axis=1) <= 1e-4).all(), "three sightings before"
        assert told[arrived][2] == pytest.approx(((positions[arrived] - GOALS[goal]) ** 2).mean(), rel=0.05), "the energy is the next one's"
    successes = [success for _, success, _ in told]
    assert successes.index(True) > indices.index(2)
    assert successes[-1] is True
    assert np.linalg.norm(positions[-1] - GOALS[2]) < 0.01


def test_the_next_goal_is_planned_for_at_once_and_from_a_cold_start(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, [START, GOALS[0]], goal_mode="sequence", execute_steps=3)
    for step in range(2):
        controller.act(world.observation(START, step * 0.25))
    world.seen.clear()
    action = controller.act(world.observation(START, 0.5))
    assert controller.goal_index == 1
    assert torch.equal(world.seen[0][0, 0], torch.zeros(3, 3)), "cold"
    assert action[0] > 0.03


def test_a_goal_that_is_the_same_twice_is_seen_twice(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, [START, START], goal_mode="sequence")
    told = []
    for step in range(7):
        controller.act(world.observation(START, step * 0.25))
        told.append((controller.goal_index, controller.last_success))
    assert told == [(0, False), (0, False), (1, False), (1, False), (1, False), (1, True), (1, True)]


def test_new_goals_begin_at_the_first(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, [START, GOALS[0]], goal_mode="sequence")
    for step in range(4):
        controller.act(world.observation(START, step * 0.25))
    assert controller.goal_index == 1
    controller.set_goal(np.stack([world.image(goal) for goal in GOALS]))
    assert (controller.goal_index, controller.last_success) == (0, None)
    controller.act(world.observation(GOALS[0], 1.0))
    assert (controller.goal_index, controller.last_success, controller.state.num_near) == (0, False, 1)


def test_a_sequence_needs_to_know_when_a_goal_is_reached(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    with pytest.raises(UserError, match=r"^goal_mode: .*not calibrated; run goalward calibrate$"):
        controller_of(world, GOALS, goal_mode="sequence", calibration=None)


# --- mistakes ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda goals: goals[:0], r"goal_pixels: uint8 of shape \(0, 1, 8, 8, 3\) holds no goal; give at least one"),
        (lambda goals: goals.astype(np.float32) / 255, r"^goal_pixels\[0\]: float32 .*convert with"),
        (lambda goals: goals[..., :1], r"^goal_pixels\[0\]: .*give RGB"),
        (lambda goals: goals[None], r"^goal_pixels: .*shape \(1, 3, 1, 8, 8, 3\)"),
    ],
)
def test_goals_that_do_not_fit_are_explained(spoil: Any, says: str, worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    with pytest.raises(UserError, match=says):
        make_controller(world, spoil(np.stack([world.image(goal) for goal in GOALS])))


def test_an_unknown_mode_is_named(worlds: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="goal_mode: 'all' is unknown; choose any or sequence"):
        controller_of(worlds.PointWorld(), GOALS, goal_mode="all")
