"""Every method meets the same goals from the same seeds, and a planner is told nothing that it must not know."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from goalward import UserError
from goalward.experiments.evaluation import (
    EpisodeFailed,
    EpisodeStart,
    Method,
    evaluate,
    hold_method,
    oracle_method,
    random_method,
    run_episode,
)
from goalward.experiments.journal import Journal
from goalward.experiments.replay import replay
from goalward.experiments.results import EpisodeRecord


def everything(env: Any, planner: Method, folder: Path, num_episodes: int = 4, key: str = "k" * 64) -> dict[str, list[EpisodeRecord]]:
    methods = [planner, hold_method(), random_method(), oracle_method(env)]
    with Journal(folder, key) as journal:
        return evaluate(env, methods, num_episodes=num_episodes, seed=7, split="test", journal=journal)


def untimed(record: EpisodeRecord) -> EpisodeRecord:
    return dataclasses.replace(record, plan_ms=())


def test_methods_are_paired_by_goal_and_seed(point_env: Any, make_planner: Any, tmp_path: Path) -> None:
    env = point_env()
    found = everything(env, make_planner(env), tmp_path)
    assert list(found) == ["cem", "hold", "random", "oracle"]
    assert env.resets == [(7 + k, k, "test") for k in range(4) for _ in found]
    for episodes in found.values():
        assert [(e.index, e.seed, e.goal_id) for e in episodes] == [(k, 7 + k, f"goal-{k}") for k in range(4)]
        assert {e.distances_m[0] for e in episodes} == {e.distances_m[0] for e in found["hold"]}


def test_references_do_what_they_are_called(point_env: Any, make_planner: Any, tmp_path: Path) -> None:
    env = point_env()
    found = everything(env, make_planner(env), tmp_path)
    assert all(e.strict and e.moderate for e in found["oracle"])
    for episode in found["hold"]:
        assert not np.any(episode.actions)
        assert len(set(episode.distances_m)) == 1
    actions = np.array([a for e in found["random"] for a in e.actions])
    assert np.abs(actions).max() <= 0.05
    assert actions.std() > 0.02
    assert [e.strict for e in found["cem"]] == [True, True, True, False]


def test_random_actions_depend_on_the_seed_alone(point_env: Any) -> None:
    env = point_env()
    first = run_episode(env, random_method(), index=1, seed=3, split="test")
    run_episode(env, random_method(), index=2, seed=9, split="test")
    assert run_episode(env, random_method(), index=1, seed=3, split="test") == first
    assert run_episode(env, random_method(), index=1, seed=4, split="test").actions != first.actions


def test_record_has_one_value_per_instant(point_env: Any, make_planner: Any) -> None:
    env = point_env()
    episode = run_episode(env, make_planner(env), index=2, seed=0, split="validation")
    assert len(episode.distances_m) == episode.steps + 1
    assert episode.energies is not None
    assert len(episode.energies) == episode.steps + 1
    assert len(episode.actions) == len(episode.plan_ms) == episode.steps
    assert min(episode.plan_ms) >= 0
    assert env.resets == [(0, 2, "validation")]


def test_an_untimed_method_has_no_times_and_no_energies(point_env: Any) -> None:
    episode = run_episode(point_env(), hold_method(), index=0, seed=0, split="test")
    assert episode.plan_ms == ()
    assert episode.energies is None


def test_an_episode_ends_at_its_step_limit(point_env: Any) -> None:
    assert run_episode(point_env(max_steps=5), hold_method(), index=0, seed=0, split="test").steps == 5


def test_an_environment_that_never_ends_is_cut_off(point_env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    env = point_env(max_steps=6)
    step = env.step
    monkeypatch.setattr(env, "step", lambda action: (*step(action)[:2], False, False, step(action)[4]))
    assert run_episode(env, hold_method(), index=0, seed=0, split="test").steps == 6


def test_a_broken_off_episode_is_no_success(point_env: Any, make_planner: Any) -> None:
    env = point_env(fail_at_goal=1)
    episode = run_episode(env, make_planner(env), index=1, seed=0, split="test")
    assert episode.outcome == "failed"
    assert not episode.strict
    assert not episode.moderate
    assert episode.distances_m[-1] is None
    assert episode.failure is not None
    assert "diverged" in episode.failure


def test_an_action_that_is_not_finite_ends_the_episode_and_is_recorded(point_env: Any) -> None:
    method = Method(name="nan", role="planner", begin=lambda _: lambda _: np.array([np.nan, 0.0], dtype=np.float32))
    episode = run_episode(point_env(), method, index=0, seed=0, split="test")
    assert (episode.outcome, episode.steps) == ("failed", 1)
    assert episode.actions == ((None, 0.0),)
    assert replay(point_env(), episode, split="test").deviation_m == 0


def test_a_planner_that_cannot_act_fails_its_episode_with_its_reason(point_env: Any) -> None:
    def begin(_: EpisodeStart) -> Any:
        def act(_: Any) -> Any:
            raise EpisodeFailed("no candidate had a finite cost")

        return act

    episode = run_episode(
        point_env(), Method(name="cem", role="planner", begin=begin, timed=True), index=0, seed=0, split="test", warm_up=True
    )
    assert (episode.outcome, episode.steps, episode.failure) == ("failed", 0, "no candidate had a finite cost")


def test_a_method_is_told_pixels_and_public_facts_only(point_env: Any) -> None:
    env, seen = point_env(), []

    def begin(start: EpisodeStart) -> Any:
        seen.append(start)
        return lambda observation: (seen.append(observation), np.zeros(2, np.float32))[1]

    run_episode(env, Method(name="spy", role="planner", begin=begin), index=0, seed=5, split="test")
    start, *observations = seen
    assert {field.name for field in dataclasses.fields(start)} == {"goal_pixels", "seed", "info"}
    assert start.goal_pixels.dtype == np.uint8
    assert not start.goal_pixels.flags.writeable
    assert all(set(observation) == {"pixels", "proprio", "time_s"} for observation in observations)


def test_the_first_decision_of_a_timed_method_is_made_twice_and_timed_once(point_env: Any, tmp_path: Path) -> None:
    env, begun, acts = point_env(), [], []

    def begin(start: EpisodeStart) -> Any:
        begun.append(start.seed)
        return lambda _: (acts.append(start.seed), np.zeros(2, np.float32))[1]

    with Journal(tmp_path, "k" * 64) as journal:
        method = Method(name="cem", role="planner", begin=begin, timed=True)
        found = evaluate(env, [method], num_episodes=2, seed=0, split="test", journal=journal)
    assert begun == [0, 0, 1]
    assert len(acts) == sum(e.steps for e in found["cem"]) + 1
    assert [len(e.plan_ms) for e in found["cem"]] == [e.steps for e in found["cem"]]


def test_journalled_episodes_are_not_run_again_and_change_nothing(point_env: Any, make_planner: Any, tmp_path: Path) -> None:
    whole_env = point_env()
    whole = everything(whole_env, make_planner(whole_env), tmp_path / "whole")
    env = point_env()
    first = everything(env, make_planner(env), tmp_path / "cut", num_episodes=2)
    again = point_env()
    resumed = everything(again, make_planner(again), tmp_path / "cut", num_episodes=4)
    assert {index for _, index, _ in again.resets} == {2, 3}
    assert resumed["cem"][:2] == first["cem"]
    assert {k: list(map(untimed, v)) for k, v in resumed.items()} == {k: list(map(untimed, v)) for k, v in whole.items()}


def test_every_episode_is_reported_once(point_env: Any, make_planner: Any, tmp_path: Path) -> None:
    env, seen = point_env(), []
    with Journal(tmp_path, "k" * 64) as journal:
        for _ in range(2):
            evaluate(env, [make_planner(env)], num_episodes=3, seed=0, split="test", journal=journal, on_episode=seen.append)
    assert [(e.method, e.index) for e in seen] == 2 * [("cem", 0), ("cem", 1), ("cem", 2)]


def test_methods_of_one_name_are_refused(point_env: Any, tmp_path: Path) -> None:
    with Journal(tmp_path, "k" * 64) as journal, pytest.raises(UserError, match="share a name"):
        evaluate(point_env(), [hold_method(), hold_method()], num_episodes=1, seed=0, split="test", journal=journal)


def test_a_replay_shows_what_happened(point_env: Any, make_planner: Any) -> None:
    env = point_env()
    record = run_episode(env, make_planner(env), index=4, seed=1, split="test")
    seen = replay(env, record, split="test", scene_px=20)
    assert seen.live_TVhw3.shape == (record.steps + 1, 2, 16, 16, 3)
    assert seen.goal_Vhw3.shape == (2, 16, 16, 3)
    assert seen.scene_Thw3 is not None
    assert seen.scene_Thw3.shape == (record.steps + 1, 20, 20, 3)
    assert seen.deviation_m == 0
    assert replay(env, record, split="test").scene_Thw3 is None


def test_a_replay_notices_physics_that_differ(point_env: Any, make_planner: Any) -> None:
    env = point_env()
    record = run_episode(env, make_planner(env), index=4, seed=1, split="test")
    moved = dataclasses.replace(record, distances_m=(*record.distances_m[:-1], (record.distances_m[-1] or 0) + 0.01))
    assert replay(env, moved, split="test").deviation_m == pytest.approx(0.01)
