"""What `Goalward/Wall-v0` promises beyond the conformance suite."""

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
from goalward.envs.registry import ENVS, make_env
from goalward.envs.wall import MAX_DISPLACEMENT_M, MOVE_S, WallEnv
from goalward.envs.wall_scene import (
    AGENT_RADIUS_M,
    CAMERA,
    DOOR_HALF_M,
    DOOR_Y_M,
    FACE_M,
    FRAME_M,
    PIXEL_M,
    REACH_M,
    ROOM_HALF_M,
    WALL_HALF_M,
    build_wall_model,
)  # fmt: skip

HOLD = np.zeros(2, dtype=np.float32)
FULL = MAX_DISPLACEMENT_M
LANE_M = DOOR_HALF_M - AGENT_RADIUS_M  # the agent's centre is never further from the middle of the door while it is in it
SLACK_M = 0.002  # how deep a contact may give


@pytest.fixture(scope="module")
def env() -> Iterator[Any]:
    env = make_env("wall", image_size_px=64).unwrapped
    yield env
    env.close()


def _goal(start_m: tuple[float, float], goal_m: tuple[float, float] = (0.4, -0.4)) -> GoalSpec:
    """An episode between chosen places."""
    return GoalSpec(id="chosen", start_qpos=start_m, goal_qpos=goal_m, start_position_m=(*start_m, AGENT_RADIUS_M),
                    goal_position_m=(*goal_m, AGENT_RADIUS_M))  # fmt: skip


def _begin(env: Any, start_m: tuple[float, float], goal_m: tuple[float, float] = (0.4, -0.4)) -> None:
    env.reset(seed=0, options={"goal": _goal(start_m, goal_m)})


def _is_legal(position: np.ndarray) -> bool:
    """Whether the agent's disc overlaps no wall, corners of the door included."""
    beside = max(abs(position[1] - DOOR_Y_M) - DOOR_HALF_M, 0.0)  # 0: at the height of the opening
    x, y = abs(position[0]), abs(position[1] - DOOR_Y_M)
    if x >= FACE_M - SLACK_M:
        clear = True
    elif beside > 0:  # nearest point of the wall: its face
        clear = False
    else:
        corner = np.array([WALL_HALF_M, DOOR_HALF_M])
        to_corner = np.array([max(x - corner[0], 0.0), corner[1] - y])
        clear = float(np.linalg.norm(to_corner)) >= AGENT_RADIUS_M - SLACK_M
    return clear and bool((np.abs(position) <= REACH_M + SLACK_M).all())


places = st.tuples(st.sampled_from([-1.0, 1.0]), st.floats(FACE_M, REACH_M), st.floats(-REACH_M, REACH_M)).map(
    lambda place: (place[0] * place[1], place[2])
)
anything = st.tuples(*[st.floats(-1.0, 1.0)] * 2)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places, st.floats(0.0, 2 * np.pi), st.integers(1, 4))
def test_nobody_passes_the_wall_but_through_the_door_at_full_speed(env: Any, start: tuple[float, float], angle: float, times: int) -> None:
    """Every physics step of a straight run at the largest speed, from any place, in any direction, and longer than any action."""
    _begin(env, start)
    data = env._data
    direction = np.array([np.cos(angle), np.sin(angle)])
    data.ctrl[:] = direction / np.abs(direction).max() * FULL / MOVE_S
    for _ in range(times * 100):
        mujoco.mj_step(env._model, data)
        assert _is_legal(data.qpos)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places, st.lists(anything, min_size=1, max_size=10))
def test_every_crossing_goes_through_the_door(env: Any, start: tuple[float, float], actions: list[tuple[float, float]]) -> None:
    _begin(env, start)
    for action in actions:
        *_, info = env.step(np.array(action, dtype=np.float32))
        assert info["failure"] is None
        assert _is_legal(env._data.qpos)


@pytest.mark.parametrize("y", [-0.45, -0.2, 0.0, DOOR_Y_M - LANE_M - 0.01, DOOR_Y_M + LANE_M + 0.01, 0.44])
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_the_wall_stops_the_agent_beside_the_door(env: Any, y: float, side: float) -> None:
    start = (side * (FACE_M + 0.05), y)
    _begin(env, start, (-side * 0.3, 0.0))
    straight = np.array([-side * FULL, 0.0], dtype=np.float32)
    for _ in range(2):
        env.step(straight)
    x, y_now = env._data.qpos
    if abs(y - DOOR_Y_M) > DOOR_HALF_M:  # beyond the corner's rounding
        assert abs(x - side * FACE_M) < SLACK_M
        assert abs(y_now - y) < 1e-3
    assert _is_legal(env._data.qpos)


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_the_door_lets_the_agent_through(env: Any, side: float) -> None:
    for off in (-0.9, 0.0, 0.9):
        _begin(env, (side * 0.15, DOOR_Y_M + off * LANE_M), (-side * 0.3, 0.0))
        for _ in range(3):
            env.step(np.array([-side * FULL, 0.0], dtype=np.float32))
        np.testing.assert_allclose(env._data.qpos, [side * (0.15 - 3 * FULL), DOOR_Y_M + off * LANE_M], atol=2e-3)


def test_an_agent_pushed_against_the_wall_slides_along_it(env: Any) -> None:
    _begin(env, (-FACE_M, -0.3))
    env.step(np.array([FULL, 0.08], dtype=np.float32))
    np.testing.assert_allclose(env._data.qpos, [-FACE_M, -0.22], atol=2e-3)


def test_corners_hold_the_agent(env: Any) -> None:
    for corner in ((-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0)):
        _begin(env, (0.3 * corner[0], 0.3 * corner[1]), (-0.3 * corner[0], 0.0))
        for _ in range(4):
            env.step(np.array(corner, dtype=np.float32))
        np.testing.assert_allclose(env._data.qpos, REACH_M * np.array(corner), atol=SLACK_M)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(*[st.floats(-0.05, 0.05)] * 2), st.tuples(*[st.floats(-FULL, FULL)] * 2))
def test_a_free_action_is_carried_out_exactly_and_ends_at_rest(env: Any, at: tuple[float, float], action: tuple[float, float]) -> None:
    start = (at[0] + 0.26, at[1] - 0.1)
    _begin(env, start, (-0.4, 0.0))
    env.step(np.array(action, dtype=np.float32))
    np.testing.assert_allclose(env._data.qpos, np.add(start, action), atol=1e-3)
    assert np.abs(env._data.qvel).max() < 0.01
    before = env._data.qpos.copy()
    for _ in range(3):
        env.step(HOLD)
    np.testing.assert_allclose(env._data.qpos, before, atol=2e-4)


def test_waiting_moves_nothing_but_the_clock(env: Any) -> None:
    _begin(env, (-0.3, 0.1))
    env.step(np.array([FULL, -FULL], dtype=np.float32))
    before = env._data.qpos.copy()
    assert env.wait(0.4) is None
    np.testing.assert_allclose(env._data.qpos, before, atol=2e-4)
    assert env.step(HOLD)[0]["time_s"] == pytest.approx(0.9)


def test_lengths_are_those_of_the_peers(env: Any) -> None:
    assert env.strict_tolerance_m / FRAME_M * 224 == pytest.approx(8)
    assert env.moderate_tolerance_m / FRAME_M * 224 == pytest.approx(16)
    assert pytest.approx(5 * 5.0) == MAX_DISPLACEMENT_M / PIXEL_M
    assert pytest.approx(7) == AGENT_RADIUS_M / PIXEL_M
    # Nearness across the wall is no success: centres on two sides are further apart than the moderate tolerance.
    assert env.moderate_tolerance_m < 2 * FACE_M


def test_a_frame_shows_the_length_that_tolerances_are_stated_in() -> None:
    """Places on the floor are drawn where an even scale of FRAME_M to the frame puts them."""
    model = build_wall_model()
    camera = model.cam(CAMERA)
    seen = 2 * camera.pos[2] * np.tan(np.radians(camera.fovy[0]) / 2)
    assert seen == pytest.approx(FRAME_M, rel=1e-6)
    assert FRAME_M > 2 * ROOM_HALF_M


def test_success_needs_two_consecutive_steps(env: Any) -> None:
    _begin(env, (0.3, 0.0), (0.3, 0.0))
    away = np.array([0.06, 0.0], dtype=np.float32)
    flags = []
    for action in (HOLD, away, -away):  # one inside, out, then back: the count starts anew
        *_, terminated, _, info = env.step(action)
        flags.append((info["strict_success"], info["moderate_success"], terminated))
    assert flags == [(False, True, False)] * 3
    *_, terminated, _, info = env.step(HOLD)
    assert info["strict_success"]
    assert terminated


@pytest.mark.parametrize("split", ["test", "validation"])
def test_every_goal_lies_in_the_other_room(split: str) -> None:
    manifest = load_manifest("wall", split)
    assert len(manifest.goals) == {"test": 400, "validation": 200}[split]
    for goal in manifest.goals:
        start, end = np.array(goal.start_position_m), np.array(goal.goal_position_m)
        assert start[0] * end[0] < 0
        assert np.linalg.norm(end - start) >= WallEnv.min_distance_m
        for place in (start, end):
            assert abs(place[0]) >= FACE_M - SLACK_M
            assert (np.abs(place[:2]) <= REACH_M + SLACK_M).all()


def test_splits_share_no_goal() -> None:
    test, validation = load_manifest("wall", "test"), load_manifest("wall", "validation")
    assert not {goal.goal_qpos for goal in test.goals} & {goal.goal_qpos for goal in validation.goals}


def test_manifest_goal_is_reproduced_by_its_seed(env: Any) -> None:
    manifest = load_manifest("wall", "test")
    again = env.make_goal(index=3, split="test", seed=manifest.seed)
    np.testing.assert_allclose(again.goal_qpos, manifest.goals[3].goal_qpos, atol=1e-6)


def test_goal_states_are_at_rest(env: Any) -> None:
    for goal in load_manifest("wall", "test").goals[::50]:
        env.reset(seed=0, options={"goal": replace(goal, start_qpos=goal.goal_qpos)})
        np.testing.assert_allclose(env._tracked_m(env._data), goal.goal_position_m, atol=1e-6)
        for _ in range(3):
            env._advance(env._data, np.zeros(2))
        np.testing.assert_allclose(env._tracked_m(env._data), goal.goal_position_m, atol=1e-3)


def _run_oracle(env: Any, index: int, split: str) -> tuple[bool, int]:
    env.reset(seed=index, options={"goal_index": index, "split": split})
    terminated = truncated = False
    num_steps = 0
    while not (terminated or truncated):
        *_, terminated, truncated, info = env.step(env.oracle_action())
        assert _is_legal(env._data.qpos)
        num_steps += 1
    return bool(info["strict_success"]), num_steps


def test_oracle_reaches_held_out_goals_in_half_an_episode() -> None:
    env = make_env("wall", image_size_px=32).unwrapped
    reached, steps = zip(*(_run_oracle(env, index, "test") for index in range(40)), strict=True)
    env.close()  # type: ignore[no-untyped-call]
    assert all(reached)
    assert max(steps) <= WallEnv.max_episode_steps / 2


@pytest.mark.slow
def test_oracle_reaches_nearly_all_goals_strictly() -> None:
    env = make_env("wall", image_size_px=32).unwrapped
    goals = [(index, split) for split in ("test", "validation") for index in range(len(load_manifest("wall", split).goals))]
    reached = [_run_oracle(env, index, split)[0] for index, split in goals]
    env.close()  # type: ignore[no-untyped-call]
    assert np.mean(reached) >= 0.99


def test_foreseeing_tells_what_stepping_does_and_changes_nothing(env: Any) -> None:
    _begin(env, (-0.1, 0.2), (0.2, 0.3))
    env.step(np.array([0.1, 0.05], dtype=np.float32))  # against the wall
    actions = np.array([[0.125, 0.1], [0.125, 0.0], [0.1, -0.1], [0.0, 0.125]], dtype=np.float32)
    before = env._data.qpos.copy(), env._data.qvel.copy(), env._data.time
    foreseen, imagined = env.foresee(actions), env.imagine(actions)
    for now, then in zip((env._data.qpos, env._data.qvel, env._data.time), before, strict=True):
        np.testing.assert_array_equal(now, then)
    stepped = [env.step(action) for action in actions]
    np.testing.assert_allclose(foreseen, [info["distance_m"] for *_, info in stepped], atol=1e-9)
    np.testing.assert_array_equal(imagined[-1], stepped[-1][0]["pixels"])
    assert np.ptp(foreseen) > 0.05


def test_the_agent_is_seen_wherever_it_is(env: Any) -> None:
    rng = np.random.default_rng(0)
    for _ in range(6):
        goals = [_goal((float(place[0]), float(place[1]))) for place in (env.random_place(rng), env.random_place(rng))]
        frames = [env.reset(seed=0, options={"goal": goal})[0]["pixels"].astype(int) for goal in goals]
        assert (np.abs(frames[0] - frames[1]).max(axis=-1) > 40).sum() > 12  # of 64 x 64 pixels


def test_collected_episodes_cross_the_wall_often(env: Any) -> None:
    rng = np.random.default_rng(0)
    names, weights = zip(*ENVS["wall"].behaviours.items(), strict=True)
    crossed = []
    for seed in range(24):
        env.reset(seed=seed, options={"collect": True})
        behaviour = make_behaviour(rng, str(rng.choice(names, p=weights)))
        sides = [np.sign(env._data.qpos[0])]
        for _ in range(32):
            env._advance(env._data, np.asarray(behaviour(env, {}), dtype=np.float64))  # without drawing
            sides.append(np.sign(env._data.qpos[0]))
        crossed.append(len(set(sides)) > 1)
    assert np.mean(crossed) > 0.3
