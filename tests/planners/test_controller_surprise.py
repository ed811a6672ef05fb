"""Plans are gone on with while the world does what they predicted, and dropped at once when it does not."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goalward import UserError
from goalward.planners.control.controller import make_controller
from goalward.planners.control.receding_horizon import RecedingHorizon
from goalward.planners.control.state import ControllerConfig
from goalward.planners.methods.cem import CEM, CEMConfig
from goalward.planners.objectives import LatentDistance, Objective

START, GOAL = np.array([0.2, 0.7, 0.5]), np.array([0.75, 0.3, 0.45])
QUICK = CEMConfig(num_samples=32, num_iterations=3, num_elites=8)
PATH = Objective(terms=(LatentDistance(step_weights="uniform"),))
TYPICAL, LIMIT = 1e-6, 10.0


def calibration(**changes: Any) -> SimpleNamespace:
    base = {"typical_error_H": (TYPICAL,) * 4, "surprise_limit_H": (LIMIT,) * 4, "success_energy": 1e-4, "success_steps": 3}
    return SimpleNamespace(**(base | changes))


def controller_of(world: Any, **options: Any) -> Any:
    # The arms here do as they like; test_delay.py lets the controller look for delays.
    defaults = {"planner_config": QUICK, "objective": PATH, "horizon": 4, "calibration": calibration(), "max_delay_steps": 0}
    return make_controller(world, world.image(GOAL), **(defaults | options))


def test_a_plan_is_reused_while_the_world_follows_it(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, execute_steps=3)
    position, surprises, plans = START.copy(), [], []
    for step in range(6):
        position = position + controller.act(world.observation(position, step * 0.25))
        surprises.append(controller.last_surprise)
        plans.append(controller.last_plan)
    assert len(world.contexts) == 2, "the planner was called at steps 0 and 3 alone"
    assert plans[0] is plans[1] is plans[2]
    assert plans[3] is plans[4] is plans[5]
    assert surprises[0] is None, "nothing was predicted yet"
    assert all(surprise is not None and 0 <= surprise < 1 for surprise in surprises[1:])


def test_a_surprise_replans_at_once_from_a_cold_start(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, execute_steps=4)
    position = START + controller.act(world.observation(START, 0.0))
    old = controller.last_plan
    world.seen.clear()
    pushed = position + np.array([0.0, 0.05, 0.0])
    controller.act(world.observation(pushed, 0.25))
    assert controller.last_surprise == pytest.approx(0.05**2 / 3 / TYPICAL, rel=0.05)
    assert controller.state.surprised
    assert controller.last_plan is not old
    assert controller.last_hold_reason is None
    assert torch.equal(world.seen[0][0, 0], torch.zeros(4, 3)), "cold"
    controller.act(world.observation(pushed + controller.state.last_action_A, 0.5))
    assert not controller.state.surprised
    assert len(world.contexts) == 2, "and trusts the new plan"


def test_a_surprise_drops_the_warm_start_even_if_every_step_replans(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    for push, cold in ((0.0, False), (0.05, True)):
        controller = controller_of(world)
        position = START + controller.act(world.observation(START, 0.0))
        world.seen.clear()
        controller.act(world.observation(position + push, 0.25))
        assert torch.equal(world.seen[0][0, 0], torch.zeros(4, 3)) == cold


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    push=st.tuples(*[st.floats(-0.15, 0.15)] * 3),
    step=st.integers(1, 3),
    typical=st.floats(1e-7, 1e-2),
    threshold=st.none() | st.floats(0.01, 100.0),
)
def test_a_plan_is_dropped_exactly_when_the_error_is_beyond_the_limit(
    push: tuple[float, float, float], step: int, typical: float, threshold: float | None, worlds: SimpleNamespace
) -> None:
    world = worlds.PointWorld()
    # The typical error grows along the horizon, as it does for every model.
    growing = calibration(typical_error_H=tuple(typical * h for h in (1, 2, 3, 4)))
    tiny = CEMConfig(num_samples=8, num_iterations=1, num_elites=2, num_kept_elites=0)
    controller = controller_of(world, execute_steps=4, calibration=growing, surprise_threshold=threshold, planner_config=tiny)
    position = START.copy()
    # In between the arm goes where the plan says, whatever the resolution of the image.
    for earlier in range(step):
        controller.act(world.observation(position, earlier * 0.25))
        position = controller.last_plan.z_BHND[0, controller.state.next_action - 1, 0].double().numpy()
        if controller.state.surprised:
            return
    plan = controller.last_plan
    seen = world.observation((position + push).clip(0.01, 0.99), step * 0.25)
    controller.act(seen)
    z_1ND = world.encode(torch.from_numpy(seen["pixels"][None]))
    surprise = float((z_1ND - plan.z_BHND[:, step - 1]).square().mean()) / (typical * step)
    assert controller.last_surprise == pytest.approx(surprise, rel=1e-4)
    limit = LIMIT if threshold is None else threshold
    if abs(surprise / limit - 1) > 1e-3:
        assert controller.state.surprised == (surprise > limit)
        assert (controller.last_plan is plan) == (surprise <= limit)


def test_a_threshold_of_nothing_always_replans_and_a_huge_one_never_before_its_time(worlds: SimpleNamespace) -> None:
    for threshold, plans in ((0.0, 4), (1e12, 1)):
        world = worlds.PointWorld()
        controller = controller_of(world, execute_steps=4, surprise_threshold=threshold)
        for step in range(4):
            controller.act(world.observation(START + 0.01 * step, step * 0.25))
        assert len(world.contexts) == plans


def test_without_a_calibration_nothing_surprises_and_nothing_is_claimed(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, execute_steps=2, calibration=None)
    for step in range(4):
        controller.act(world.observation(START + 0.1 * step, step * 0.25))
        assert controller.last_surprise is None
        assert controller.last_success is None
        assert not controller.state.surprised
    assert len(world.contexts) == 2


def test_the_model_s_own_calibration_is_found(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    world.calibration = calibration()
    controller = controller_of(world, calibration=None)
    controller.act(world.observation(GOAL))
    assert controller.last_success is False


def test_beyond_the_calibrated_horizon_the_last_error_counts(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    short = calibration(typical_error_H=(TYPICAL,), surprise_limit_H=(1e9,))
    controller = controller_of(world, execute_steps=4, calibration=short)
    for step in range(3):
        controller.act(world.observation(START, step * 0.25))
    expected = float((controller.last_plan.z_BHND[0, 1] - torch.tensor(START).float()).square().mean()) / TYPICAL
    assert controller.last_surprise == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("fault", [{"time_s": float("nan")}, {"proprio": np.full(3, np.nan, np.float32)}])
def test_after_a_fault_there_is_nothing_to_compare_with(fault: dict[str, Any], worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, execute_steps=4)
    controller.act(world.observation(START, 0.0))
    controller.act({**world.observation(START + 0.3, 0.25), **fault})
    assert (controller.last_surprise, controller.state.surprised, controller.last_success) == (None, False, False)
    controller.act(world.observation(START, 0.5))
    assert controller.last_surprise is None
    assert controller.last_hold_reason is None


def test_a_failed_plan_predicts_nothing(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, execute_steps=4)
    world.corrupt = lambda z, a: z * float("nan")
    for step in range(2):
        controller.act(world.observation(START, step * 0.25))
        assert controller.last_surprise is None
        assert "finite" in controller.last_hold_reason


def test_a_new_goal_makes_no_surprise(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, execute_steps=4)
    controller.act(world.observation(START, 0.0))
    controller.set_goal(world.image([0.1, 0.9, 0.5]))
    controller.act(world.observation(START + 0.3, 0.25))
    assert controller.last_surprise is None


def test_a_model_that_is_wrong_is_found_out_at_every_step_and_the_goal_reached_all_the_same(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld(gain=1.6)
    controller = controller_of(world, execute_steps=4)
    position, surprised = START.copy(), 0
    for step in range(20):
        position = position + controller.act(world.observation(position, step * 0.25))
        surprised += controller.state.surprised
    assert surprised >= 4
    assert np.linalg.norm(position - GOAL) < 0.05


def test_states_are_values_and_a_batch_acts_as_each_arm_alone(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    config = ControllerConfig(horizon=4, execute_steps=3)
    policy = RecedingHorizon(world, CEM(QUICK), objective=PATH, config=config, calibration=calibration())
    goals = [[GOAL], [GOAL, START + 0.1], [START], [START - 0.15, GOAL, START + 0.2]]
    pushes = np.random.default_rng(3).choice([0.0, 0.0, 0.08], size=(6, 4, 3))

    def begin() -> list[Any]:
        return [policy.start(np.stack([world.image(g) for g in goal]), seed=b) for b, goal in enumerate(goals)]

    def run(groups: list[list[int]]) -> list[list[tuple[Any, ...]]]:
        states, positions, told = begin(), [START.copy() for _ in goals], [[] for _ in goals]
        for step in range(6):
            for group in groups:
                before = [states[b] for b in group]
                kept = [{f.name: getattr(s, f.name) for f in fields(s)} for s in before]
                observations = [world.observation(positions[b], step * 0.25) for b in group]
                actions, after = policy.act_batch(before, observations)
                assert all(getattr(s, name) is value for s, held in zip(before, kept, strict=True) for name, value in held.items())
                for row, b in enumerate(group):
                    states[b] = after[row]
                    positions[b] = (positions[b] + actions[row] + pushes[step, b]).clip(0.05, 0.95)
                    s = after[row]
                    told[b].append((actions[row].tobytes(), s.surprise, s.surprised, s.success, s.energy, s.next_action))
        return told

    together, alone = run([[0, 1, 2, 3]]), run([[0], [1], [2], [3]])
    assert together == alone
    assert any(entry[2] for told in together for entry in told), "some were surprised"
    assert any(entry[5] > 1 for told in together for entry in told), "some plans were reused"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"typical_error_H": ()}, "0 typical errors"),
        ({"typical_error_H": (1.0,)}, "1 typical errors and 4 surprise limits"),
        ({"typical_error_H": (1.0, 1.0, 0.0, 1.0)}, "typical_error_H holds 0.0"),
        ({"surprise_limit_H": (1.0, float("nan"), 1.0, 1.0)}, "surprise_limit_H holds nan"),
        ({"success_energy": float("inf")}, "success_energy holds inf"),
        ({"success_steps": 0}, "success_steps is 0"),
    ],
)
def test_a_calibration_that_judges_nothing_is_refused(changes: dict[str, Any], says: str, worlds: SimpleNamespace) -> None:
    with pytest.raises(UserError, match=says):
        controller_of(worlds.PointWorld(), calibration=calibration(**changes))


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_threshold_must_be_a_number(value: float, worlds: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="surprise_threshold"):
        controller_of(worlds.PointWorld(), surprise_threshold=value)
