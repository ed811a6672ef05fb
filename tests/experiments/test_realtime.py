"""In real time the world goes on while the planner thinks: exactly as long as it thought, and not at all if it took no time."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from goalward import UserError
from goalward.envs.registry import make_env
from goalward.experiments import plan_eval, planning
from goalward.experiments.evaluation import Method, hold_method, run_episode
from goalward.experiments.plan_eval import PlanEvalCommand, evaluate_and_report
from goalward.experiments.replay import replay


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def waiting_env(point_env: Any) -> Any:
    """The small world with a drift while nobody acts."""

    class WaitingEnv(point_env):  # type: ignore[misc]
        fails_after_s = float("inf")

        def reset(self, **options: Any) -> Any:
            self.waits: list[float] = []
            return super().reset(**options)

        def wait(self, duration_s: float) -> str | None:
            self.waits.append(duration_s)
            self.position = self.position + 0.1 * duration_s
            return "the simulation diverged while waiting" if sum(self.waits) > self.fails_after_s else None

    return WaitingEnv()


def thinker(clock: Clock, *times_s: float) -> Method:
    """Walks to the right; thinks for the times given, in turn."""

    def begin(_: Any) -> Any:
        left = list(times_s) * 20

        def act(_: Any) -> np.ndarray:
            clock.now_s += left.pop(0)
            return np.array([0.03, 0.01], dtype=np.float32)

        return act

    return Method(name="cem", role="planner", begin=begin, timed=True)


def test_the_world_goes_on_for_as_long_as_every_decision_took(waiting_env: Any) -> None:
    clock = Clock()
    method = thinker(clock, 0.5, 0.0, 0.125)
    record = run_episode(waiting_env, method, index=9, seed=0, split="test", warm_up=True, realtime=True, clock=clock)
    assert waiting_env.waits[:4] == [0.5, 0.0, 0.125, 0.5]
    assert list(record.waits_s) == waiting_env.waits
    assert record.plan_ms == tuple(1e3 * wait for wait in record.waits_s)
    still = run_episode(waiting_env, method, index=9, seed=0, split="test", clock=clock)
    assert still.waits_s == ()
    assert still.distances_m != record.distances_m
    assert replay(waiting_env, record, split="test").deviation_m == 0, "replays wait too"


def test_methods_that_do_not_think_do_not_wait(waiting_env: Any) -> None:
    record = run_episode(waiting_env, hold_method(), index=0, seed=0, split="test", realtime=True)
    assert (record.waits_s, waiting_env.waits) == ((), [])


def test_physics_that_fail_while_waiting_end_the_episode(waiting_env: Any) -> None:
    waiting_env.fails_after_s = 0.6
    clock = Clock()
    record = run_episode(waiting_env, thinker(clock, 0.25), index=9, seed=0, split="test", realtime=True, clock=clock)
    assert (record.outcome, record.failure) == ("failed", "the simulation diverged while waiting")
    assert len(record.actions) == len(record.waits_s) == len(record.plan_ms) == 2
    assert len(record.distances_m) == 3


@pytest.fixture(scope="module")
def reach() -> Any:
    env = make_env("reach", image_size_px=32)
    yield env
    env.close()


def test_thinking_for_no_time_is_the_normal_mode_bitwise(reach: Any) -> None:
    clock = Clock()

    def begin(_: Any) -> Any:
        return lambda _: reach.unwrapped.oracle_action()

    method = Method(name="cem", role="planner", begin=begin, timed=True)
    options: dict[str, Any] = {"index": 1, "seed": 3, "split": "validation", "clock": clock}
    normal = run_episode(reach, method, **options)
    instant = run_episode(reach, method, **options, realtime=True)
    assert set(instant.waits_s) == {0.0}
    assert dataclasses.replace(instant, waits_s=()) == normal


def test_on_the_clock_of_the_observations_time_has_passed(reach: Any) -> None:
    clock, seen = Clock(), []

    def begin(_: Any) -> Any:
        def act(observation: Any) -> Any:
            seen.append(float(observation["time_s"]))
            clock.now_s += 0.08
            return reach.unwrapped.oracle_action()

        return act

    method = Method(name="cem", role="planner", begin=begin, timed=True)
    record = run_episode(reach, method, index=1, seed=3, split="validation", realtime=True, clock=clock)
    assert record.outcome == "strict"
    assert np.diff(seen) == pytest.approx(0.25 + 0.08)
    assert replay(reach, record, split="validation").deviation_m == 0


def test_an_environment_that_cannot_wait_is_named(point_env: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from goalward.envs import goals

    env = point_env()
    monkeypatch.setattr(plan_eval, "open_env_and_model", lambda config, name, **_: (env, object()))
    monkeypatch.setattr(planning, "planner_method", lambda *_, **__: pytest.fail("nothing may begin"))
    monkeypatch.setattr(goals, "load_manifest", lambda name, split: SimpleNamespace(goals=range(10), sha256="cd" * 32))
    with pytest.raises(UserError, match="realtime: environment 'reach' cannot go on while the planner thinks"):
        evaluate_and_report(PlanEvalCommand(episodes=2, realtime=True, report=tmp_path / "out"))
    assert env.closed
    assert not (tmp_path / "out").exists()
