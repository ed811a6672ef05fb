"""What `Goalward/Push-v0` promises beyond the conformance suite."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import mujoco
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goalward.envs.base import GoalSpec
from goalward.envs.behaviours import make_behaviour
from goalward.envs.goals import load_manifest
from goalward.envs.jaco_scene import build_model
from goalward.envs.push import WORKSPACE_HIGH_M, WORKSPACE_LOW_M, PushEnv
from goalward.envs.push_scene import CONTACT_M, HAND_HEIGHT_M, POST_CLEARANCE_M, PUCK_HEIGHT_M, TRAY_HIGH_M, TRAY_LOW_M
from goalward.envs.registry import ENVS, make_env

HOLD = np.zeros(2, dtype=np.float32)


@pytest.fixture(scope="module")
def env() -> Iterator[Any]:
    env = make_env("push", image_size_px=32).unwrapped
    yield env
    env.close()


def _goal(env: Any, hand_m: tuple[float, float], puck_m: tuple[float, float]) -> GoalSpec:
    """An episode that starts with hand and puck at chosen places."""
    goal = load_manifest("push", "validation").goals[0]
    start = env._placed(np.array(hand_m), np.array(puck_m))
    assert start is not None
    return replace(goal, start_qpos=start, start_position_m=(*puck_m, PUCK_HEIGHT_M / 2))


def _is_sound(env: Any) -> None:
    """The puck stands upright on the table, inside the tray; the hand is in its plane, inside its box."""
    puck = env._tracked_m(env._data)
    assert abs(puck[2] - PUCK_HEIGHT_M / 2) < 0.003  # squeezed hard, it rides up the tilted post by a millimetre or two
    assert (puck[:2] >= np.array(TRAY_LOW_M) - 0.002).all()
    assert (puck[:2] <= np.array(TRAY_HIGH_M) + 0.002).all()
    assert env._data.xmat[env._puck][8] > 0.999  # cosine of the tilt
    hand = env._hand_m(env._data)
    assert -POST_CLEARANCE_M < hand[2] - HAND_HEIGHT_M < 0.016  # the sluggish arm swings; the post stays above the table
    assert (hand[:2] >= np.array(WORKSPACE_LOW_M[:2]) - 0.03).all()
    assert (hand[:2] <= np.array(WORKSPACE_HIGH_M[:2]) + 0.03).all()
    assert all(contact.dist > -0.001 for contact in env._data.contact)  # nothing is driven into anything


def test_pushing_moves_the_puck_and_touching_nothing_does_not(env: Any) -> None:
    env.reset(seed=0, options={"goal": _goal(env, (-0.12, -0.46), (0.0, -0.46))})
    before = env.puck_m()
    for _ in range(6):
        env.step(HOLD)
    np.testing.assert_allclose(env.puck_m(), before, atol=1e-4)
    for _ in range(4):
        env.step(np.array([0.0, 0.05], dtype=np.float32))  # past it
    np.testing.assert_allclose(env.puck_m(), before, atol=1e-4)
    env.reset(seed=0, options={"goal": _goal(env, (-0.12, -0.46), (0.0, -0.46))})
    for _ in range(4):
        env.step(np.array([0.05, 0.0], dtype=np.float32))
    moved = env.puck_m() - before
    assert moved[0] > 0.08
    assert abs(moved[1]) < 0.02
    _is_sound(env)


def test_a_pushed_puck_comes_to_rest_at_once(env: Any) -> None:
    env.reset(seed=0, options={"goal": _goal(env, (-0.10, -0.46), (0.0, -0.46))})
    for _ in range(3):
        env.step(np.array([0.05, 0.0], dtype=np.float32))
    for _ in range(4):
        env.step(HOLD)
    before = env.puck_m()
    for _ in range(8):
        env.step(HOLD)
    np.testing.assert_allclose(env.puck_m(), before, atol=3e-4)


def test_a_puck_pushed_beside_its_middle_slips_off_sideways(env: Any) -> None:
    env.reset(seed=0, options={"goal": _goal(env, (-0.10, -0.48), (0.0, -0.46))})
    before = env.puck_m()
    for _ in range(4):
        env.step(np.array([0.05, 0.0], dtype=np.float32))
    assert env.puck_m()[1] - before[1] > 0.01


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.lists(st.tuples(*[st.floats(-0.2, 0.2)] * 2), min_size=4, max_size=12))
def test_no_action_tips_the_puck_or_drives_it_off(env: Any, seed: int, actions: list[tuple[float, ...]]) -> None:
    env.reset(seed=seed, options={"collect": True})
    for action in actions:
        towards = env.action_towards(np.array(action) * 2) if action[0] > 0 else np.array(action, dtype=np.float32)  # many in contact
        assert env.step(towards)[4]["failure"] is None
        _is_sound(env)


@pytest.mark.parametrize("push", [(0.05, 0.0), (-0.05, 0.0), (0.0, 0.05), (0.0, -0.05), (0.05, 0.05), (-0.05, 0.05)])
def test_squeezing_the_puck_against_the_rim_is_harmless(env: Any, push: tuple[float, float]) -> None:
    middle = (np.array(TRAY_LOW_M) + TRAY_HIGH_M) / 2
    towards = np.array(push)
    hand = middle - (CONTACT_M + 0.01) * towards / np.linalg.norm(towards)
    env.reset(seed=0, options={"goal": _goal(env, tuple(hand), tuple(middle))})
    for _ in range(12):
        assert env.step(towards.astype(np.float32))[4]["failure"] is None
        _is_sound(env)


def test_a_puck_at_the_rim_can_be_brought_back(env: Any) -> None:
    for puck in (TRAY_LOW_M, TRAY_HIGH_M, (TRAY_LOW_M[0], TRAY_HIGH_M[1]), (TRAY_HIGH_M[0], TRAY_LOW_M[1])):
        middle = (np.array(TRAY_LOW_M) + TRAY_HIGH_M) / 2
        env.reset(seed=0, options={"goal": _goal(env, tuple(middle), puck)})
        for _ in range(40):
            env._advance(env._data, env.action_towards(middle).astype(np.float64))
        assert np.linalg.norm(env.puck_m() - middle) < 0.03


def test_nothing_but_the_post_is_low_enough_to_touch_the_puck(env: Any) -> None:
    model, data = env._model, env._data
    rng = np.random.default_rng(0)
    for _ in range(20):
        hand = rng.uniform(WORKSPACE_LOW_M[:2], WORKSPACE_HIGH_M[:2])
        env._placed(hand, np.array([0.0, -0.46]))
        mujoco.mj_kinematics(model, data)
        for geom in range(model.ngeom):
            body = model.body(model.geom_bodyid[geom]).name
            if body.startswith("jaco_arm/") and not model.geom(geom).name.endswith("post") and "b_base" not in body and "b_1" not in body:
                half, centre = model.geom_aabb[geom, 3:], model.geom_aabb[geom, :3]
                corners = centre + half * np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T
                lowest = (corners @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom])[:, 2].min()
                assert lowest > PUCK_HEIGHT_M + 0.005, model.geom(geom).name


def test_oracle_reaches_held_out_goals_strictly(env: Any) -> None:
    for index in range(4):
        env.reset(seed=index, options={"goal_index": index, "split": "test"})
        terminated = truncated = False
        while not (terminated or truncated):
            *_, terminated, truncated, info = env.step(env.oracle_action())
            _is_sound(env)
        assert info["strict_success"]


@pytest.mark.slow
def test_oracle_reaches_nearly_all_goals_strictly(env: Any) -> None:
    reached = []
    for index in range(len(load_manifest("push", "test").goals)):
        env.reset(seed=index, options={"goal_index": index, "split": "test"})
        terminated = truncated = False
        while not (terminated or truncated):
            *_, terminated, truncated, info = env.step(env.oracle_action())
        reached.append(info["strict_success"])
    assert np.mean(reached) >= 0.99


def test_goal_states_are_at_rest(env: Any) -> None:
    for goal in load_manifest("push", "test").goals[::80]:
        env.reset(seed=0, options={"goal": replace(goal, start_qpos=goal.goal_qpos)})
        hand, puck = env._hand_m(env._data), env.puck_m()
        np.testing.assert_allclose(puck, goal.goal_position_m[:2], atol=1e-6)
        for _ in range(4):
            env.step(HOLD)
        np.testing.assert_allclose(env.puck_m(), puck, atol=1e-3)
        np.testing.assert_allclose(env._hand_m(env._data), hand, atol=3e-3)


def test_goals_are_disjoint_far_from_their_starts_and_inside_the_tray() -> None:
    test, validation = load_manifest("push", "test"), load_manifest("push", "validation")
    assert (len(test.goals), len(validation.goals)) == (400, 200)
    seen = {goal.goal_position_m for goal in validation.goals}
    assert not any(goal.goal_position_m in seen for goal in test.goals)
    for goal in (*test.goals, *validation.goals):
        assert np.linalg.norm(np.subtract(goal.goal_position_m, goal.start_position_m)) >= PushEnv.min_distance_m
        for place in (goal.start_position_m, goal.goal_position_m):
            assert (np.array(place[:2]) >= TRAY_LOW_M).all()
            assert (np.array(place[:2]) <= TRAY_HIGH_M).all()


def test_manifest_goal_is_reproduced_by_its_seed(env: Any) -> None:
    manifest = load_manifest("push", "test")
    again = env.make_goal(index=3, split="test", seed=manifest.seed)
    np.testing.assert_allclose(again.goal_qpos, manifest.goals[3].goal_qpos, atol=1e-6)


def test_foreseeing_tells_what_stepping_does_and_changes_nothing(env: Any) -> None:
    env.reset(seed=0, options={"goal": _goal(env, (-0.09, -0.47), (0.0, -0.46))})
    env.step(np.array([0.03, 0.0], dtype=np.float32))  # in contact
    actions = np.array([[0.05, 0.0], [0.05, 0.02], [-0.05, 0.0], [0.05, -0.05]], dtype=np.float32)
    before = env._data.qpos.copy(), env._data.qvel.copy(), env._data.time
    foreseen = env.foresee(actions)
    for now, then in zip((env._data.qpos, env._data.qvel, env._data.time), before, strict=True):
        np.testing.assert_array_equal(now, then)
    stepped = [env.step(action)[4]["distance_m"] for action in actions]
    np.testing.assert_allclose(foreseen, stepped, atol=1e-9)
    assert np.ptp(stepped) > 0.01


def test_both_cameras_see_the_puck(env: Any) -> None:
    rng = np.random.default_rng(0)
    for _ in range(6):
        hand = rng.uniform(WORKSPACE_LOW_M[:2], WORKSPACE_HIGH_M[:2])
        goals = [_goal(env, tuple(hand), tuple(env.random_place(rng))) for _ in range(2)]
        first, second = (env.reset(seed=0, options={"goal": goal})[0]["pixels"].astype(int) for goal in goals)
        changed = (np.abs(first - second).max(axis=-1) > 30).sum(axis=(1, 2))
        assert (changed > 6).all()  # of 32 x 32 pixels


def test_proprioception_says_nothing_about_the_puck(env: Any) -> None:
    readings = [env.reset(seed=0, options={"goal": _goal(env, (-0.2, -0.5), puck)})[0]["proprio"] for puck in ((0.0, -0.4), (0.15, -0.5))]
    np.testing.assert_array_equal(*readings)


def test_collected_data_is_rich_in_contact(env: Any) -> None:
    moving = []
    for seed in range(3):
        env.reset(seed=seed, options={"collect": True})
        behaviour = make_behaviour(np.random.default_rng(seed), "push_explore")
        places = [env.puck_m()]
        for _ in range(32):
            _, _, terminated, truncated, _ = env.step(behaviour(env, {}))
            assert not terminated
            assert not truncated
            places.append(env.puck_m())
        moving.append((np.linalg.norm(np.diff(places, axis=0), axis=1) > 0.002).mean())
    assert ENVS["push"].behaviours["push_explore"] >= 0.5
    assert np.mean(moving) > 0.35


def test_the_scene_of_reach_has_no_puck_and_the_same_arm() -> None:
    reach, push = build_model(), make_env("push", image_size_px=32).unwrapped
    assert reach.nq == 9
    assert push._model.nq == 16
    np.testing.assert_array_equal(reach.jnt_range, push._model.jnt_range[:9])
    assert all("puck" not in reach.geom(i).name for i in range(reach.ngeom))
    push.close()
