"""Variations: every task under every variation it has; one thing differs, the seed decides it, and the task itself stays what it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mujoco
import numpy as np
import pytest

from goalward import UserError
from goalward.envs.distractors import DistractorArea, draw_distractors
from goalward.envs.disturbance import CameraMount, Disturbance
from goalward.envs.registry import ENVS, make_env
from goalward.envs.variation import VARIATIONS, Variation, find_variation

TASKS = sorted(name for name, entry in ENVS.items() if entry.goal_splits)
SEEN_ONLY = ("look", "camera", "distractors")
ACTED = ("noise", "delay")


def has(task: str, variation: str) -> bool:
    return variation != "region" or "test-region" in ENVS[task].goal_splits


ALL = [(task, name) for task in TASKS for name in VARIATIONS if name != "none" and has(task, name)]
SMALL = {"image_size_px": 48}


@pytest.fixture(scope="module")
def plain() -> Iterator[dict[str, Any]]:
    envs = {task: make_env(task, **SMALL) for task in TASKS}
    yield envs
    for env in envs.values():
        env.close()


def episode(env: Any, *, seed: int, index: int = 3, num_steps: int = 4, split: str = "validation") -> dict[str, np.ndarray]:
    """Frames, goal image, states and distances of an episode of fixed random actions."""
    rng = np.random.default_rng(9)
    observation, info = env.reset(seed=seed, options={"goal_index": index, "split": split})
    frames, states, distances = [observation["pixels"]], [env.unwrapped._data.qpos.copy()], [info["distance_m"]]
    for _ in range(num_steps):
        action = rng.uniform(-1, 1, size=env.action_space.shape).astype(np.float32) * env.action_space.high
        observation, _, _, _, info = env.step(action)
        frames.append(observation["pixels"])
        states.append(env.unwrapped._data.qpos.copy())
        distances.append(info["distance_m"])
    arrays = {"frames": frames, "states": states, "distances": distances, "goal": info.get("goal_pixels", frames[0])}
    return {name: np.stack(values) if isinstance(values, list) else values for name, values in arrays.items()}


@pytest.mark.parametrize(("task", "name"), ALL)
def test_the_seed_decides_what_varies(task: str, name: str) -> None:
    split = "validation-region" if name == "region" else "validation"
    env, other = make_env(task, variation=name, **SMALL), make_env(task, variation=name, **SMALL)
    try:
        first, again, twin = episode(env, seed=1, split=split), episode(env, seed=1, split=split), episode(other, seed=1, split=split)
        for key in ("frames", "states"):
            np.testing.assert_array_equal(first[key], again[key])
            np.testing.assert_array_equal(first[key], twin[key])
        if name in (*SEEN_ONLY, "noise"):
            different = episode(env, seed=2, split=split)
            assert not np.array_equal(different["frames"], first["frames"])
    finally:
        env.close()
        other.close()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", SEEN_ONLY)
def test_what_is_only_seen_changes_no_physics(task: str, name: str, plain: dict[str, Any]) -> None:
    env = make_env(task, variation=name, **SMALL)
    try:
        varied, usual = episode(env, seed=1), episode(plain[task], seed=1)
        np.testing.assert_array_equal(varied["states"], usual["states"])
        np.testing.assert_array_equal(varied["distances"], usual["distances"])
        assert not np.array_equal(varied["frames"], usual["frames"])
        _, info = env.reset(seed=1, options={"goal_index": 3, "split": "validation"})
        _, expected = plain[task].reset(seed=1, options={"goal_index": 3, "split": "validation"})
        assert not np.array_equal(info["goal_pixels"], expected["goal_pixels"]), "a goal is a picture of the world that the robot finds"
    finally:
        env.close()


@pytest.mark.parametrize("task", TASKS)
def test_no_variation_is_the_plain_task(task: str, plain: dict[str, Any]) -> None:
    env = make_env(task, variation="none", **SMALL)
    try:
        for key, value in episode(env, seed=4).items():
            np.testing.assert_array_equal(value, episode(plain[task], seed=4)[key])
    finally:
        env.close()


@pytest.mark.parametrize("task", TASKS)
def test_a_delayed_robot_holds_and_then_does_what_was_said_one_step_ago(task: str, plain: dict[str, Any]) -> None:
    env, usual = make_env(task, variation="delay", **SMALL), plain[task]
    try:
        options = {"goal_index": 3, "split": "validation"}
        env.reset(seed=1, options=options)
        usual.reset(seed=1, options=options)
        sent = [np.full(env.action_space.shape, share, np.float32) * env.action_space.high for share in (0.5, -0.8, 0.3)]
        done = [np.zeros_like(sent[0]), *sent[:2]]
        for late, action in zip(sent, done, strict=True):
            env.step(late)
            usual.step(action)
            np.testing.assert_array_equal(env.unwrapped._data.qpos, usual.unwrapped._data.qpos)
    finally:
        env.close()


@pytest.mark.parametrize(("task", "name"), [(task, name) for task in TASKS for name in ("look", "camera", "distractors", "noise")])
def test_the_judge_and_the_report_see_the_varied_world(task: str, name: str) -> None:
    env = make_env(task, variation=name, **SMALL)
    try:
        observation, _ = env.reset(seed=1, options={"goal_index": 0, "split": "validation"})
        action = env.action_space.high * 0.5
        seen, ahead = env.unwrapped.imagine(action[None]), env.unwrapped.foresee(action[None])
        assert env.unwrapped.render_report(64).std() > 0
        assert np.abs(seen[0].astype(int) - observation["pixels"].astype(int)).mean() < 25, "the same look, one step on"
        observation, _, _, _, info = env.step(action)
        if name != "noise":  # the judge foresees what was meant
            np.testing.assert_array_equal(observation["pixels"], seen[0])
            assert info["distance_m"] == ahead[0]
    finally:
        env.close()


def model_and_cameras(task: str) -> tuple[Any, Any]:
    env = make_env(task, **SMALL)
    return env, env.unwrapped._model


def test_cameras_move_by_the_length_and_angle_that_were_asked_for() -> None:
    env, model = model_and_cameras("reach")
    try:
        names = env.unwrapped.spec_info.cameras
        ids = [model.camera(name).id for name in names]
        others = [i for i in range(model.ncam) if i not in ids]
        pos, quat = model.cam_pos.copy(), model.cam_quat.copy()
        mount = CameraMount(model, names)
        for seed in range(5):  # from the original pose each time
            mount.move(np.random.default_rng(seed), shift_m=0.03, turn_rad=0.04)
            np.testing.assert_allclose(np.linalg.norm(model.cam_pos[ids] - pos[ids], axis=1), 0.03)
            for i in ids:
                back, between = np.zeros(4), np.zeros(4)
                mujoco.mju_negQuat(back, quat[i])
                mujoco.mju_mulQuat(between, back, model.cam_quat[i])
                assert 2 * np.arccos(min(1.0, abs(between[0]) / np.linalg.norm(between))) == pytest.approx(0.04, abs=1e-6)
            np.testing.assert_array_equal(model.cam_pos[others], pos[others])
    finally:
        env.close()


def disturbance(variation: Variation, model: Any, limit: np.ndarray) -> Disturbance:
    return Disturbance(variation, model, ("front", "side"), None, limit)


def test_noise_has_the_spread_that_was_asked_for_and_stays_inside() -> None:
    env, model = model_and_cameras("reach")
    try:
        limit = np.array([0.05, 0.05, 0.02])
        disturbed = disturbance(Variation(name="mine", action_noise=0.1), model, limit)
        rng = np.random.default_rng(0)
        done = np.stack([disturbed.executed(np.zeros(3), rng) for _ in range(4000)])
        np.testing.assert_allclose(done.std(axis=0) / limit, 0.1, rtol=0.05)
        np.testing.assert_allclose(done.mean(axis=0) / limit, 0, atol=0.01)
        edge = np.stack([disturbed.executed(10 * limit, rng) for _ in range(200)])
        assert (np.abs(edge) <= limit).all()
    finally:
        env.close()


def test_objects_stand_inside_their_rectangles_apart_from_one_another() -> None:
    area = DistractorArea(rectangles=(((0, 0), (0.2, 0.2)), ((0.5, 0), (0.7, 0.3))), floor_m=0.1, half_size_m=(0.01, 0.03))
    for seed in range(50):
        found = draw_distractors(np.random.default_rng(seed), area, 2)
        places = set()
        for item in found:
            reach = np.hypot(item.size_m[0], item.size_m[1]) if item.shape != mujoco.mjtGeom.mjGEOM_CYLINDER else item.size_m[0]
            (number,) = [
                i for i, (low, high) in enumerate(area.rectangles)
                if (item.pos_m[:2] - reach >= np.array(low) - 1e-9).all() and (item.pos_m[:2] + reach <= np.array(high) + 1e-9).all()
            ]  # fmt: skip
            places.add(number)
            height = item.size_m[1] if item.shape == mujoco.mjtGeom.mjGEOM_CYLINDER else item.size_m[2]
            assert item.pos_m[2] - height == pytest.approx(area.floor_m)
        assert len(places) == 2


@pytest.mark.parametrize("task", [task for task in TASKS if ENVS[task].entry_point])
def test_the_robot_never_comes_where_objects_stand(task: str, plain: dict[str, Any]) -> None:
    env = plain[task].unwrapped
    area = env.distractor_area
    assert area is not None
    if task == "reacher":  # an arm sweeps a disc, not a box
        for low, high in area.rectangles:
            assert np.linalg.norm(np.clip((0, 0), low, high)) > 0.25
        return
    low, high = env.spec_info.workspace_low_m, env.spec_info.workspace_high_m
    for corner_low, corner_high in area.rectangles:
        overlap = all(corner_low[i] < high[i] and low[i] < corner_high[i] for i in (0, 1))
        assert not overlap or area.floor_m + 4 * area.half_size_m[1] < low[2], (task, corner_low, corner_high)


@pytest.mark.parametrize(
    ("given", "said"), [("loook", "did you mean look"), ("zzz", "choose one of none"), ("regio", "did you mean region")]
)
def test_unknown_names_are_answered(given: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        find_variation(given)
    with pytest.raises(UserError, match=said):
        make_env("reach", variation=given)


@pytest.mark.parametrize(
    "values",
    [{"action_noise": 1.5}, {"camera_shift_m": -0.1}, {"num_distractors": 99}, {"action_delay_steps": -1}, {"action_noise": float("nan")}],
)
def test_numbers_are_checked(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(values))):
        Variation(name="mine", **values)


def test_what_a_task_does_not_have_is_refused() -> None:
    for task in TASKS:
        if not has(task, "region"):
            with pytest.raises(UserError, match="region"):
                make_env(task, variation="region")
    with pytest.raises(UserError, match="leave one of them out"):
        make_env("reach", variation="look", appearance="varied")
