"""Time that passes while a planner thinks: the arm holds its last reference, and nothing is forgotten."""

from collections.abc import Iterator
from typing import Any

import mujoco
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goalward import UserError
from goalward.envs.reach import ReachEnv
from goalward.envs.registry import make_env

MOVE = np.array([0.04, 0.03, -0.02], dtype=np.float32)


@pytest.fixture(scope="module")
def env() -> Iterator[Any]:
    env = make_env("reach", image_size_px=32).unwrapped
    yield env
    env.close()


def begin(env: Any) -> dict[str, Any]:
    observation: dict[str, Any] = env.reset(seed=0, options={"goal_index": 0, "split": "validation"})[0]
    return observation


def test_waiting_for_nothing_changes_nothing(env: Any) -> None:
    runs = []
    for wait in (False, True):
        begin(env)
        seen = []
        for _ in range(4):
            if wait:
                assert env.wait(0.0) is None
            observation, *_ = env.step(MOVE)
            seen.append((observation["proprio"].tobytes(), float(observation["time_s"]), observation["pixels"].tobytes()))
        runs.append(seen)
    assert runs[0] == runs[1]


def test_time_passes_and_the_arm_comes_to_rest_at_its_last_reference(env: Any) -> None:
    begin(env)
    before = env._hand_m(env._data)
    env.step(MOVE)
    simulated_s = env._data.time
    assert env.wait(0.5) is None
    assert env._data.time - simulated_s == pytest.approx(0.5)
    assert np.linalg.norm(env._hand_m(env._data) - (before + MOVE)) < 0.002
    observation, *_ = env.step(np.zeros(3, dtype=np.float32))
    assert float(observation["time_s"]) == pytest.approx(2 * 0.25 + 0.5)


def test_before_the_first_step_the_start_is_held(env: Any) -> None:
    before = begin(env)["proprio"][:3]
    env.wait(1.0)
    assert np.linalg.norm(env._hand_m(env._data) - before) < 0.002


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(durations=st.lists(st.floats(0.0, 0.08), min_size=1, max_size=8))
def test_what_is_less_than_a_tick_is_not_lost(env: Any, durations: list[float]) -> None:
    begin(env)
    for duration in durations:
        env.wait(duration)
    ticks = env._data.time / ReachEnv.tick_s
    assert ticks == pytest.approx(round(ticks), abs=1e-6)
    assert -1e-6 <= sum(durations) / ReachEnv.tick_s - ticks <= 1 + 1e-6


def test_success_is_judged_at_steps_alone(env: Any) -> None:
    begin(env)
    for _ in range(12):
        *_, info = env.step(env.oracle_action())
        if info["distance_m"] <= env.strict_tolerance_m:
            break
    assert not info["strict_success"]
    env.wait(2.0)
    inside = 1
    while not info["strict_success"]:
        *_, info = env.step(env.oracle_action())
        inside += 1
    assert inside == 3


def test_a_physics_warning_while_waiting_is_a_failure(env: Any) -> None:
    begin(env)
    env.step(MOVE)
    env._data.qvel[0] = np.nan
    failure = env.wait(0.05)
    assert failure is not None
    assert "MuJoCo warning" in failure or "not finite" in failure
    begin(env)
    env.step(MOVE)
    env._data.warning[int(mujoco.mjtWarning.mjWARN_CNSTRFULL)].number += 1
    assert env.wait(0.05) is None, "a warning of before is not one of now"


@pytest.mark.parametrize("duration", [-0.1, float("nan"), float("inf")])
def test_a_duration_that_is_none_is_refused(env: Any, duration: float) -> None:
    begin(env)
    with pytest.raises(UserError, match="duration_s is"):
        env.wait(duration)


def test_waiting_needs_a_reset_first() -> None:
    fresh = make_env("reach", image_size_px=32).unwrapped
    try:
        with pytest.raises(RuntimeError, match="reset"):
            fresh.wait(0.1)
    finally:
        fresh.close()
