"""What `Goalward/Reacher-v0` promises beyond the conformance suite."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import mujoco
import numpy as np
import pytest
from dm_control import suite
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goalward.envs.base import GoalSpec
from goalward.envs.goals import load_manifest
from goalward.envs.reacher import STEPS_PER_ACTION, ReacherEnv
from goalward.envs.reacher_scene import CAMERA, GEAR_NM, LINK_M, build_reacher_model
from goalward.envs.registry import make_env

HOLD = np.zeros(2, dtype=np.float32)


@pytest.fixture(scope="module")
def env() -> Iterator[Any]:
    env = make_env("reacher", image_size_px=64).unwrapped
    yield env
    env.close()


def _tip(shoulder: float, wrist: float) -> np.ndarray:
    """Forward kinematics of two links of equal length."""
    return LINK_M * np.array([math.cos(shoulder) + math.cos(shoulder + wrist), math.sin(shoulder) + math.sin(shoulder + wrist)])


def _begin(env: Any, start: tuple[float, float], goal: tuple[float, float]) -> None:
    spec = GoalSpec(id="chosen", start_qpos=start, goal_qpos=goal, start_position_m=(*_tip(*start), 0.01),
                    goal_position_m=(*_tip(*goal), 0.01))  # fmt: skip
    env.reset(seed=0, options={"goal": spec})


def test_the_arm_is_the_suites_and_the_target_is_gone() -> None:
    ours, theirs = build_reacher_model(), suite.load("reacher", "easy").physics.model.ptr
    for name in ("dof_damping", "dof_armature", "body_mass", "body_inertia", "body_ipos", "body_pos", "jnt_range", "jnt_axis",
                 "actuator_gear", "actuator_ctrlrange"):  # fmt: skip
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    assert ours.opt.timestep == theirs.opt.timestep
    assert ours.opt.integrator == theirs.opt.integrator
    assert ours.geom("finger").size[0] == theirs.geom("finger").size[0]
    names = {ours.geom(i).name for i in range(ours.ngeom)}
    assert {theirs.geom(i).name for i in range(theirs.ngeom)} - names == {"target"}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(st.floats(-3, 3), st.floats(-2.5, 2.5)), st.lists(st.tuples(*[st.floats(-1, 1)] * 2), min_size=1, max_size=5))
def test_an_action_is_five_steps_of_the_suite(env: Any, start: tuple[float, float], controls: list[tuple[float, float]]) -> None:
    """Differential: the suite's own environment, given the same controls, goes through the same states."""
    _begin(env, start, (1.0, 1.0))
    theirs = suite.load("reacher", "easy")
    theirs.reset()
    with theirs.physics.reset_context():
        theirs.physics.data.qpos[:] = start
        theirs.physics.data.qvel[:] = 0.0
    for control in controls:
        env.step(GEAR_NM * np.array(control, dtype=np.float32))
        for _ in range(STEPS_PER_ACTION):
            theirs.step(np.array(control, dtype=np.float32).astype(np.float64))
        np.testing.assert_allclose(env._data.qpos, theirs.physics.data.qpos, atol=1e-6)
        np.testing.assert_allclose(env._data.qvel, theirs.physics.data.qvel, atol=1e-5)


def test_tip_is_where_the_links_end(env: Any) -> None:
    for start in ((0.0, 0.0), (1.0, -2.0), (-2.5, 2.6)):
        _begin(env, start, (1.5, 1.5))
        np.testing.assert_allclose(env._observation()["proprio"][:2], _tip(*start), atol=1e-6)


def test_without_torque_the_arm_stays_and_a_moving_arm_comes_to_rest(env: Any) -> None:
    _begin(env, (0.4, 1.0), (-2.0, 1.0))
    for _ in range(5):
        env.step(HOLD)
    np.testing.assert_allclose(env._data.qpos, (0.4, 1.0), atol=1e-9)
    env.step(np.full(2, GEAR_NM, dtype=np.float32))
    assert env._data.qvel[1] > 1.0
    for _ in range(20):
        env.step(HOLD)
    assert np.abs(env._data.qvel).max() < 0.01


def test_waiting_lets_the_arm_coast(env: Any) -> None:
    _begin(env, (0.4, 1.0), (-2.0, 1.0))
    env.step(np.array([GEAR_NM, 0.0], dtype=np.float32))
    angle, speed = env._data.qpos[0], env._data.qvel[0]
    assert env.wait(0.1) is None
    assert angle < env._data.qpos[0] < angle + 0.1 * speed
    assert 0.0 < env._data.qvel[0] < speed


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.lists(st.tuples(*[st.floats(-1e3, 1e3)] * 2), min_size=1, max_size=10))
def test_no_action_breaks_the_physics(env: Any, seed: int, actions: list[tuple[float, float]]) -> None:
    env.reset(seed=seed, options={"collect": True})
    low, high = env._wrist_range
    for action in actions:
        observation, *_, info = env.step(np.array(action, dtype=np.float32))
        assert info["failure"] is None
        assert low - 0.3 <= env._data.qpos[1] <= high + 0.3  # the suite's stop is soft
        assert env.observation_space.contains(observation)


def test_both_elbows_put_the_tip_at_the_goal(env: Any) -> None:
    """Success is the tip's, as in the strict protocol of CLEAR-LeWM: the mirrored arm counts though it looks different."""
    goal = (0.5, 1.2)
    mirrored = (goal[0] + goal[1], -goal[1])
    np.testing.assert_allclose(_tip(*mirrored), _tip(*goal), atol=1e-12)
    _begin(env, mirrored, goal)
    env.step(HOLD)
    *_, terminated, _, info = env.step(HOLD)
    assert info["strict_success"]
    assert terminated


def test_strict_success_needs_two_consecutive_steps(env: Any) -> None:
    goal = (0.5, 1.2)
    _begin(env, goal, goal)
    *_, first = env.step(HOLD)
    away = np.array([GEAR_NM, 0.0], dtype=np.float32)
    *_, out = env.step(away)
    assert not first["strict_success"]
    assert out["distance_m"] > env.strict_tolerance_m
    assert out["moderate_success"]


def test_a_whole_turn_of_the_shoulder_is_the_same_goal(env: Any) -> None:
    _begin(env, (2.9, 0.8), (-2.9, 0.8))
    torque = env.oracle_action()
    assert torque[0] > 0  # forwards over the half turn, not all the way back


def test_goal_states_are_at_rest(env: Any) -> None:
    for goal in load_manifest("reacher", "test").goals[::50]:
        env.reset(seed=0, options={"goal": replace(goal, start_qpos=goal.goal_qpos)})
        np.testing.assert_allclose(env._tracked_m(env._data), goal.goal_position_m, atol=1e-6)
        for _ in range(5):
            env._advance(env._data, np.zeros(2))
        np.testing.assert_allclose(env._tracked_m(env._data), goal.goal_position_m, atol=1e-3)


def test_goals_are_disjoint_and_far_from_their_starts() -> None:
    test, validation = load_manifest("reacher", "test"), load_manifest("reacher", "validation")
    assert (len(test.goals), len(validation.goals)) == (400, 200)
    assert not {goal.goal_qpos for goal in test.goals} & {goal.goal_qpos for goal in validation.goals}
    for goal in (*test.goals, *validation.goals):
        assert math.dist(goal.start_position_m, goal.goal_position_m) >= ReacherEnv.min_distance_m > ReacherEnv.moderate_tolerance_m


def test_manifest_goal_is_reproduced_by_its_seed(env: Any) -> None:
    manifest = load_manifest("reacher", "test")
    again = env.make_goal(index=3, split="test", seed=manifest.seed)
    np.testing.assert_allclose(again.goal_qpos, manifest.goals[3].goal_qpos, atol=1e-6)


def _run_oracle(env: Any, index: int, split: str) -> bool:
    env.reset(seed=index, options={"goal_index": index, "split": split})
    terminated = truncated = False
    while not (terminated or truncated):
        *_, terminated, truncated, info = env.step(env.oracle_action())
    return bool(info["strict_success"])


def test_oracle_reaches_held_out_goals_strictly() -> None:
    env = make_env("reacher", image_size_px=32).unwrapped
    reached = [_run_oracle(env, index, "test") for index in range(40)]
    env.close()  # type: ignore[no-untyped-call]
    assert all(reached)


@pytest.mark.slow
def test_oracle_reaches_nearly_all_goals_strictly() -> None:
    env = make_env("reacher", image_size_px=32).unwrapped
    goals = [(index, split) for split in ("test", "validation") for index in range(len(load_manifest("reacher", split).goals))]
    reached = [_run_oracle(env, index, split) for index, split in goals]
    env.close()  # type: ignore[no-untyped-call]
    assert np.mean(reached) >= 0.99


def test_foreseeing_tells_what_stepping_does_and_changes_nothing(env: Any) -> None:
    _begin(env, (0.4, 1.0), (-2.0, 1.0))
    env.step(np.array([GEAR_NM, -GEAR_NM], dtype=np.float32))  # in motion
    actions = GEAR_NM * np.array([[1.0, 0.0], [0.3, 1.0], [-1.0, -1.0], [0.0, 0.0]], dtype=np.float32)
    before = env._data.qpos.copy(), env._data.qvel.copy(), env._data.time
    foreseen, imagined = env.foresee(actions), env.imagine(actions)
    for now, then in zip((env._data.qpos, env._data.qvel, env._data.time), before, strict=True):
        np.testing.assert_array_equal(now, then)
    stepped = [env.step(action) for action in actions]
    np.testing.assert_allclose(foreseen, [info["distance_m"] for *_, info in stepped], atol=1e-9)
    np.testing.assert_array_equal(imagined[-1], stepped[-1][0]["pixels"])
    assert np.ptp(foreseen) > 0.01


def test_the_camera_sees_all_that_the_arm_can_reach() -> None:
    model = build_reacher_model()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = model.cam(CAMERA)
    plane = data.geom("finger").xpos[2]
    half = (camera.pos[2] - plane) * np.tan(np.radians(camera.fovy[0]) / 2)
    assert half > 2 * LINK_M + model.geom("finger").size[0]


def test_the_arm_is_seen_wherever_it_is(env: Any) -> None:
    rng = np.random.default_rng(0)
    for _ in range(6):
        known = load_manifest("reacher", "validation").goals[0]
        goals = [replace(known, start_qpos=tuple(float(v) for v in env.random_place(rng))) for _ in range(2)]
        frames = [env.reset(seed=0, options={"goal": goal})[0]["pixels"].astype(int) for goal in goals]
        assert (np.abs(frames[0] - frames[1]).max(axis=-1) > 40).sum() > 20  # of 64 x 64 pixels
