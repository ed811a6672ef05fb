"""What `Goalward/Reach-v0` promises beyond the conformance suite."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goalward import UserError
from goalward.envs import reach
from goalward.envs.goals import load_manifest
from goalward.envs.reach import ReachEnv
from goalward.envs.registry import make_env


@pytest.fixture(scope="module")
def env() -> Iterator[Any]:
    env = make_env("reach", image_size_px=32).unwrapped
    yield env
    env.close()


def _inside_workspace(position_m: np.ndarray, slack_m: float) -> bool:
    low, high = np.array(reach.WORKSPACE_LOW_M), np.array(reach.WORKSPACE_HIGH_M)
    return bool((position_m >= low - slack_m).all() and (position_m <= high + slack_m).all())


def test_small_displacements_are_executed_within_millimetres(env: Any) -> None:
    env.reset(seed=0, options={"goal_index": 0})
    env._servo.solve(env._data, (np.array(reach.WORKSPACE_LOW_M) + reach.WORKSPACE_HIGH_M) / 2)
    for axis in range(3):
        for sign in (1, -1):
            before = env._hand_m(env._data)
            action = np.zeros(3, dtype=np.float32)
            action[axis] = sign * 0.03
            env.step(action)
            env.step(np.zeros(3, dtype=np.float32))  # the arm's own inertia settles
            np.testing.assert_allclose(env._hand_m(env._data) - before, action, atol=0.01)


def test_zero_action_holds_position_and_orientation(env: Any) -> None:
    env.reset(seed=1, options={"goal_index": 1})
    before = env._hand_m(env._data)
    for _ in range(20):
        env.step(np.zeros(3, dtype=np.float32))
    np.testing.assert_allclose(env._hand_m(env._data), before, atol=5e-4)
    assert np.abs(env._servo._rotation_error(env._data)).max() < 0.01


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.lists(st.tuples(*[st.floats(-1e3, 1e3)] * 3), min_size=1, max_size=8))
def test_no_action_leaves_the_workspace_or_the_joint_limits(env: Any, seed: int, actions: list[tuple[float, ...]]) -> None:
    env.reset(seed=seed, options={"collect": True})
    for action in actions:
        *_, info = env.step(np.array(action, dtype=np.float32))
        assert info["failure"] is None
        assert _inside_workspace(env._hand_m(env._data), slack_m=0.03)  # the target is clamped; the sluggish arm swings past
        for joint in ("jaco_arm/joint_2", "jaco_arm/joint_3"):
            low, high = env._model.joint(joint).range
            assert low <= env._data.joint(joint).qpos[0] <= high


def test_speed_limits_of_the_arm_are_respected(env: Any) -> None:
    env.reset(seed=3, options={"collect": True})
    for _ in range(10):
        env.step(np.array([0.05, 0.05, -0.05], dtype=np.float32))
        speed = np.abs(env._data.qvel[env._arm_dof])
        assert (speed <= env._servo._max_speed * 1.1).all()


def test_strict_success_needs_three_consecutive_steps(env: Any) -> None:
    from dataclasses import replace

    goal = load_manifest("reach", "validation").goals[0]
    env.reset(seed=0, options={"goal": replace(goal, start_qpos=goal.goal_qpos)})
    hold, away = np.zeros(3, np.float32), np.array([0.05, 0, 0], np.float32)
    if env._hand_m(env._data)[0] > 0:
        away = -away
    flags = []
    for action in (hold, hold, away, -away, hold):  # two inside, out, then back: the count starts anew
        *_, terminated, _, info = env.step(action)
        flags.append((info["strict_success"], terminated))
    assert flags == [(False, False)] * 5
    *_, terminated, _, info = env.step(hold)
    assert info["strict_success"]
    assert terminated


def test_collection_never_ends_on_success(env: Any) -> None:
    env.reset(seed=0, options={"collect": True})
    for _ in range(40):
        _, _, terminated, truncated, _ = env.step(env.oracle_action())
        assert not terminated
        assert not truncated


def test_proprioception_is_named_and_in_si_units(env: Any) -> None:
    observation, _ = env.reset(seed=0)
    entries = dict(zip(env.spec_info.proprio_names, observation["proprio"], strict=True))
    position = env._hand_m(env._data).astype(np.float32)
    assert [entries[f"ee_{axis}_m"] for axis in "xyz"] == list(position)
    assert entries["joint_2_rad"] == np.float32(env._data.joint("jaco_arm/joint_2").qpos[0])


def test_goals_of_the_splits_are_disjoint_and_far_from_their_starts() -> None:
    test, validation = load_manifest("reach", "test"), load_manifest("reach", "validation")
    assert len(test.goals) >= 200
    seen = {goal.goal_position_m for goal in validation.goals}
    assert not any(goal.goal_position_m in seen for goal in test.goals)
    for goal in (*test.goals, *validation.goals):
        distance = np.linalg.norm(np.subtract(goal.goal_position_m, goal.start_position_m))
        assert distance >= ReachEnv.min_distance_m
        assert _inside_workspace(np.array(goal.goal_position_m), slack_m=0.002)


def test_manifest_goal_is_reproduced_by_its_seed(env: Any) -> None:
    manifest = load_manifest("reach", "test")
    again = env.make_goal(index=3, split="test", seed=manifest.seed)
    np.testing.assert_allclose(again.goal_qpos, manifest.goals[3].goal_qpos, atol=1e-6)


def test_varied_appearance_changes_the_look_but_not_the_physics() -> None:
    fixed, varied = make_env("reach", image_size_px=32), make_env("reach", image_size_px=32, appearance="varied")
    action = np.array([0.02, -0.03, 0.01], dtype=np.float32)
    goal = load_manifest("reach", "test").goals[0]
    looks = []
    for seed in (0, 1):
        a, _ = fixed.reset(seed=seed, options={"goal": goal})
        b, _ = varied.reset(seed=seed, options={"goal": goal})
        assert np.abs(a["pixels"].astype(int) - b["pixels"]).mean() > 3
        np.testing.assert_array_equal(fixed.step(action)[0]["proprio"], varied.step(action)[0]["proprio"])
        looks.append(b["pixels"])
    assert (looks[0] != looks[1]).any()
    fixed.close()
    varied.close()


def test_report_picture_is_large_and_does_not_disturb_the_observation(env: Any) -> None:
    before = env.reset(seed=0, options={"goal_index": 0})[0]["pixels"]
    picture = env.render_report(96)
    assert picture.shape == (96, 96, 3)
    assert env.render_report(64).shape == (64, 64, 3)
    np.testing.assert_array_equal(env.reset(seed=0, options={"goal_index": 0})[0]["pixels"], before)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"cameras": ("front", "top")}, "front, side"),
        ({"cameras": ()}, "front, side"),
        ({"cameras": ("front", "front")}, "different"),
        ({"image_size_px": 8}, r"32\.\.512"),
        ({"appearance": "dark"}, "fixed or varied"),
    ],
)
def test_bad_settings_name_the_field_and_the_fix(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_env("reach", **kwargs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goal_index": 100_000}, "out of range"),
        ({"goal_index": -1}, "out of range"),
        ({"split": "train"}, "test, validation"),
        ({"gaol": 3}, "gaol"),
        ({"goal": 3}, "GoalSpec"),
        ({"goal_index": "first"}, "whole number in 0..399"),
        (["goal"], "dictionary"),
    ],
)
def test_bad_reset_options_are_refused(env: Any, options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        env.reset(seed=0, options=options)


@pytest.mark.parametrize("shape", [(), (2,), (4,), (1, 3)])
def test_action_of_another_shape_is_refused(env: Any, shape: tuple[int, ...]) -> None:
    env.reset(seed=0)
    with pytest.raises(UserError, match="must be"):
        env.step(np.zeros(shape, dtype=np.float32))


def test_foreseeing_tells_what_stepping_does_and_changes_nothing(env: Any) -> None:
    env.reset(seed=3, options={"goal_index": 3})
    env.step(np.array([0.02, -0.01, 0.0], dtype=np.float32))  # with some momentum
    actions = np.array([[0.05, 0.0, -0.02], [0.0, 0.03, 0.0], [-0.2, 0.0, 0.05]], dtype=np.float32)
    before = env._data.qpos.copy(), env._data.qvel.copy(), env._data.time
    foreseen = env.foresee(actions)
    assert np.array_equal(env._data.qpos, before[0])
    assert np.array_equal(env._data.qvel, before[1])
    assert env._data.time == before[2]
    assert np.array_equal(env.foresee(actions), foreseen)
    stepped = [env.step(action)[4]["distance_m"] for action in actions]
    np.testing.assert_allclose(foreseen, stepped, atol=1e-9)
