"""What must be true of every registered environment; a new registry line is picked up without an edit here."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from goalward.envs.behaviours import BEHAVIOURS, make_behaviour
from goalward.envs.goals import load_manifest
from goalward.envs.registry import ENVS, make_env

NAMES = sorted(ENVS)
WITH_GOALS = sorted(name for name, entry in ENVS.items() if entry.goal_splits)

ROLLOUT_HASH = """
import hashlib, sys
import numpy as np
from goalward.envs.registry import make_env
env = make_env(sys.argv[1], image_size_px=64)
rng = np.random.default_rng(0)
digest = hashlib.sha256()
for episode in range(2):
    observation, info = env.reset(seed=episode, options={"collect": True})
    for _ in range(int(sys.argv[2])):
        for key in sorted(observation):
            digest.update(np.ascontiguousarray(observation[key]).tobytes())
        space = env.action_space
        observation, reward, *_ = env.step(rng.uniform(space.low, space.high).astype(np.float32))
        digest.update(np.float64(reward).tobytes())
print(digest.hexdigest())
"""


@pytest.fixture(scope="module", params=NAMES)
def env(request: pytest.FixtureRequest) -> Iterator[gym.Env[Any, Any]]:
    env = make_env(request.param, image_size_px=64)
    yield env
    env.close()


def _collect(env: gym.Env[Any, Any], *, num_episodes: int, num_steps: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    observations = []
    for seed in range(num_episodes):
        observation, _ = env.reset(seed=seed, options={"collect": True})
        observations.append(observation)
        for _ in range(num_steps):
            action = rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32)  # type: ignore[attr-defined]
            observation, _, _, _, info = env.step(action)
            assert info["failure"] is None
            observations.append(observation)
    return observations


def test_gymnasium_checker_passes(env: gym.Env[Any, Any]) -> None:
    check_env(env.unwrapped, skip_render_check=True)


def test_made_by_gymnasium_by_its_versioned_id(env: gym.Env[Any, Any]) -> None:
    info = env.unwrapped.spec_info  # type: ignore[attr-defined]
    assert info.version == ENVS[info.name].id
    other = gym.make(info.version)
    assert type(other.unwrapped) is type(env.unwrapped)
    other.close()


def test_info_describes_the_spaces(env: gym.Env[Any, Any]) -> None:
    info = env.unwrapped.spec_info  # type: ignore[attr-defined]
    pixels, proprio = env.observation_space["pixels"], env.observation_space["proprio"]  # type: ignore[index]
    assert pixels.shape == (len(info.cameras), info.image_size_px, info.image_size_px, 3)
    assert proprio.shape == (len(info.proprio_names),)
    assert env.action_space.shape == (len(info.action_names),)
    np.testing.assert_array_equal(env.action_space.low, info.action_low)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(env.action_space.high, info.action_high)  # type: ignore[attr-defined]
    assert all(info.cameras)
    assert len(set(info.cameras)) == len(info.cameras)
    assert len(set(info.proprio_names)) == len(info.proprio_names)
    assert info.dt_s > 0


def test_observations_stay_in_their_space_and_are_finite(env: gym.Env[Any, Any]) -> None:
    for observation in _collect(env, num_episodes=2, num_steps=15):
        assert env.observation_space.contains(observation)
        assert np.isfinite(observation["proprio"]).all()


def test_every_camera_is_alive_and_every_channel_moves(env: gym.Env[Any, Any]) -> None:
    observations = _collect(env, num_episodes=3, num_steps=30)
    pixels = np.stack([o["pixels"] for o in observations]).astype(np.float32)
    assert (pixels.std(axis=0).max(axis=(1, 2)) > 1).all(), "a camera, or one of its colour channels, never changes"
    assert (pixels.mean(axis=(0, 2, 3, 4)) > 10).all(), "a camera shows black"
    if ENVS[env.unwrapped.spec_info.name].goal_splits:  # type: ignore[attr-defined]
        proprio = np.stack([o["proprio"] for o in observations])
        assert (proprio.std(axis=0) > 0).all(), "a proprioception entry is constant"


def test_returned_arrays_are_never_reused(env: gym.Env[Any, Any]) -> None:
    first, second, *_ = _collect(env, num_episodes=1, num_steps=2)
    assert not np.shares_memory(first["pixels"], second["pixels"])
    assert not np.shares_memory(first["proprio"], second["proprio"])


def test_same_seed_same_episode_and_another_seed_another(env: gym.Env[Any, Any]) -> None:
    def run(seed: int) -> tuple[Any, ...]:
        observation, _ = env.reset(seed=seed, options={"collect": True})
        action = np.asarray(env.action_space.high)  # type: ignore[attr-defined]
        return (observation["pixels"], env.step(action)[0]["pixels"])

    first, again, other = run(5), run(5), run(6)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_agree_bitwise(name: str) -> None:
    hashes = {
        subprocess.run([sys.executable, "-c", ROLLOUT_HASH, name, "20"], check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    }
    assert len(hashes) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_agree_bitwise_over_two_hundred_steps(name: str) -> None:
    hashes = {
        subprocess.run([sys.executable, "-c", ROLLOUT_HASH, name, "200"], check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    }
    assert len(hashes) == 1


def test_closing_one_environment_leaves_the_other_frames_intact(env: gym.Env[Any, Any]) -> None:
    name = env.unwrapped.spec_info.name  # type: ignore[attr-defined]
    before = env.reset(seed=3)[0]["pixels"]
    other = make_env(name, image_size_px=96)
    other.reset(seed=4)
    other.close()
    after = env.reset(seed=3)[0]["pixels"]
    np.testing.assert_array_equal(before, after)
    third = make_env(name, image_size_px=64)
    np.testing.assert_array_equal(third.reset(seed=3)[0]["pixels"], before)
    third.close()
    np.testing.assert_array_equal(env.reset(seed=3)[0]["pixels"], before)


def test_close_twice_is_harmless() -> None:
    for name in NAMES:
        env = make_env(name, image_size_px=64)
        env.reset(seed=0)
        env.close()
        env.close()


def test_behaviours_stay_in_the_action_space(env: gym.Env[Any, Any]) -> None:
    entry = ENVS[env.unwrapped.spec_info.name]  # type: ignore[attr-defined]
    assert set(entry.behaviours) <= set(BEHAVIOURS)
    assert sum(entry.behaviours.values()) == pytest.approx(1.0)
    for name in entry.behaviours:
        observation, _ = env.reset(seed=0, options={"collect": True})
        behaviour = make_behaviour(np.random.default_rng(0), name)
        for _ in range(8):
            action = behaviour(env, observation)
            assert env.action_space.contains(action)
            observation, *_ = env.step(action)


# -- environments with goals ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=WITH_GOALS)
def task(request: pytest.FixtureRequest) -> Iterator[gym.Env[Any, Any]]:
    env = make_env(request.param, image_size_px=64)
    yield env
    env.close()


def test_goal_image_matches_the_observation_space(task: gym.Env[Any, Any]) -> None:
    observation, info = task.reset(seed=0)
    assert info["goal_pixels"].shape == observation["pixels"].shape
    assert info["goal_pixels"].dtype == observation["pixels"].dtype
    assert (info["goal_pixels"] != observation["pixels"]).any()


def test_goal_image_is_what_the_cameras_see_in_the_goal_state(task: gym.Env[Any, Any]) -> None:
    from dataclasses import replace

    name = task.unwrapped.spec_info.name  # type: ignore[attr-defined]
    goal = load_manifest(name, "validation").goals[0]
    _, info = task.reset(seed=0, options={"goal": goal})
    there, info_there = task.reset(seed=0, options={"goal": replace(goal, start_qpos=goal.goal_qpos)})
    np.testing.assert_array_equal(info["goal_pixels"], there["pixels"])
    assert info_there["distance_m"] == pytest.approx(0.0, abs=1e-6)


def test_oracle_reaches_held_out_goals_strictly(task: gym.Env[Any, Any]) -> None:
    for index in range(6):
        _, info = task.reset(seed=index, options={"goal_index": index, "split": "validation"})
        terminated = truncated = False
        while not (terminated or truncated):
            _, _, terminated, truncated, info = task.step(task.unwrapped.oracle_action())  # type: ignore[attr-defined]
        assert info["strict_success"]
        assert info["failure"] is None


def test_standing_still_never_succeeds(task: gym.Env[Any, Any]) -> None:
    for index in range(3):
        task.reset(seed=index, options={"goal_index": index})
        terminated = truncated = False
        num_steps = 0
        while not (terminated or truncated):
            zero = np.zeros(task.action_space.shape, dtype=np.float32)  # type: ignore[arg-type]
            _, _, terminated, truncated, info = task.step(zero)
            num_steps += 1
        assert not info["moderate_success"]
        assert num_steps == task.unwrapped.spec_info.max_episode_steps  # type: ignore[attr-defined]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_action_ends_the_episode_as_failed(task: gym.Env[Any, Any], bad: float) -> None:
    task.reset(seed=0)
    action = np.zeros(task.action_space.shape, dtype=np.float32)  # type: ignore[arg-type]
    action[0] = bad
    observation, reward, terminated, _, info = task.step(action)
    assert terminated
    assert "not finite" in info["failure"]
    assert not info["strict_success"]
    assert not info["moderate_success"]
    assert np.isfinite(reward)
    assert np.isfinite(observation["proprio"]).all()


def test_diverged_physics_ends_the_episode_as_failed(task: gym.Env[Any, Any]) -> None:
    task.reset(seed=0)
    task.unwrapped._data.qvel[0] = np.nan  # type: ignore[attr-defined]  # fault injection
    _, _, terminated, _, info = task.step(np.zeros(task.action_space.shape, dtype=np.float32))  # type: ignore[arg-type]
    assert terminated
    assert info["failure"] is not None
    assert not info["moderate_success"]
    task.reset(seed=0)
    assert task.step(np.zeros(task.action_space.shape, dtype=np.float32))[4]["failure"] is None  # type: ignore[arg-type]
