"""Collection: the data depends on the recipe alone, whoever simulates it and however often it is interrupted."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from goalward import UserError
from goalward.datasets import collect as collect_module
from goalward.datasets.collect import Progress, collect, software_versions
from goalward.datasets.simulate import MAX_ATTEMPTS, Recipe, episode_seed, simulate_episode
from goalward.datasets.store import open_store

RECIPE = Recipe(base_seed=5, episode_steps=4, behaviours={"oracle": 0.3, "noisy": 0.3, "explore": 0.4})


def _tiny(**settings: Any) -> Callable[[], Any]:
    from tiny_env import TinyEnv  # type: ignore[import-not-found]

    return functools.partial(TinyEnv, **settings)


def _collect(
    path: Path, number: int, workers: int, recipe: Recipe = RECIPE, on_progress: Any = lambda p: None, **settings: Any
) -> Progress:
    return collect(
        path, make_env=_tiny(**settings), recipe=recipe, config={"look": "fixed"}, num_episodes=number, num_workers=workers,
        on_progress=on_progress,
    )  # fmt: skip


class _Stop(Exception):
    pass


def _stop_after(commits: int) -> Callable[[Progress], None]:
    def on_progress(progress: Progress) -> None:
        if progress.committed - progress.resumed >= commits:
            raise _Stop

    return on_progress


# -- one episode ---------------------------------------------------------------------------------------------------------------------


def test_seeds_are_distinct_and_fixed() -> None:
    seeds = [episode_seed(base, k, attempt) for base in range(3) for k in range(500) for attempt in range(3)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**53 for seed in seeds)
    assert episode_seed(0, 0, 0) == 6226052454864871  # stored data must stay reproducible


def test_an_episode_has_one_more_frame_than_actions_and_the_actions_that_were_sent() -> None:
    env = _tiny()()
    episode, discarded = simulate_episode(env, RECIPE, 0)
    assert episode.pixels.shape == (5, 2, 16, 16, 3)
    assert episode.proprio.shape == (5, 3)
    assert episode.actions.shape == (4, 2)
    assert discarded == 0
    assert episode.proprio[:, 2].tolist() == [0, 1, 2, 3, 4]
    moved = np.clip(episode.proprio[:-1, :2] + episode.actions, 0, 1)
    np.testing.assert_allclose(episode.proprio[1:, :2], moved, atol=1e-6)


def test_an_episode_does_not_depend_on_those_before_it() -> None:
    env = _tiny()()
    alone, _ = simulate_episode(_tiny()(), RECIPE, 7)
    for k in (3, 7, 1):
        episode, _ = simulate_episode(env, RECIPE, k)
        assert (episode.content_sha256() == alone.content_sha256()) == (k == 7)


def test_behaviours_follow_their_weights() -> None:
    recipe = replace(RECIPE, episode_steps=1)
    env = _tiny()()
    counts = Counter(simulate_episode(env, recipe, k)[0].behaviour for k in range(600))
    for name, weight in recipe.behaviours.items():
        assert abs(counts[name] / 600 - weight) < 4 * (weight * (1 - weight) / 600) ** 0.5


def test_failed_attempts_are_discarded_and_counted() -> None:
    env = _tiny(failure_rate=0.5)()
    results = [simulate_episode(env, RECIPE, k) for k in range(40)]
    discarded = [count for _, count in results]
    assert 15 < sum(discarded) < 90
    assert [e.seed for e, _ in results] == [episode_seed(5, k, count) for k, count in enumerate(discarded)]
    with pytest.raises(UserError, match=f"episode 0 failed {MAX_ATTEMPTS} times in a row, last: fell over"):
        simulate_episode(_tiny(failure_rate=1.0)(), RECIPE, 0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"base_seed": -1}, "seed=-1"),
        ({"base_seed": 2**32}, "seed="),
        ({"episode_steps": 0}, "episode_steps=0"),
        ({"behaviours": {}}, "behaviours"),
        ({"behaviours": {"oracle": -1.0, "noisy": 2.0}}, "behaviours"),
        ({"behaviours": {"oracle": 0.0}}, "behaviours"),
    ],
)
def test_a_bad_recipe_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        replace(RECIPE, **change)


# -- many episodes ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference_hash(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Content of nine episodes collected in one go in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        path = tmp_path_factory.mktemp("reference") / "s"
        _collect(path, 9, 0, failure_rate=0.3)
        return open_store(path).content_hash


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_does_not_matter(tmp_path: Path, reference_hash: str, workers: int) -> None:
    progress = _collect(tmp_path / "s", 9, workers, failure_rate=0.3)
    assert (progress.committed, progress.total, progress.resumed) == (9, 9, 0)
    store = open_store(tmp_path / "s")
    assert store.content_hash == reference_hash
    assert all(message is None for _, message in store.damage())
    assert sum(entry.discarded for entry in store.entries.values()) == progress.discarded > 0


def test_an_interrupted_collection_ends_the_same(tmp_path: Path, reference_hash: str) -> None:
    resumed = []
    for workers in (2, 0, 2):
        with pytest.raises(_Stop):
            _collect(tmp_path / "s", 9, workers, on_progress=_stop_after(2), failure_rate=0.3)
        resumed.append(open_store(tmp_path / "s").num_episodes)
    assert resumed == [2, 4, 6]
    assert _collect(tmp_path / "s", 9, 0, failure_rate=0.3).resumed == 6
    assert open_store(tmp_path / "s").content_hash == reference_hash


def test_a_finished_collection_is_left_alone_and_may_grow(tmp_path: Path, reference_hash: str) -> None:
    _collect(tmp_path / "s", 4, 0, failure_rate=0.3)
    before = (tmp_path / "s/manifest.json").read_bytes()
    assert _collect(tmp_path / "s", 4, 0, failure_rate=0.3).resumed == 4
    assert _collect(tmp_path / "s", 2, 0, failure_rate=0.3).committed == 2
    assert (tmp_path / "s/manifest.json").read_bytes() == before
    _collect(tmp_path / "s", 9, 0, failure_rate=0.3)
    assert open_store(tmp_path / "s").content_hash == reference_hash


@pytest.mark.parametrize(
    ("recipe", "settings", "named"),
    [
        (replace(RECIPE, base_seed=6), {}, "config.seed: 5 != 6"),
        (replace(RECIPE, episode_steps=5), {}, "config.episode_steps: 4 != 5"),
        (replace(RECIPE, behaviours={"explore": 1.0}), {}, "config.behaviours"),
        (RECIPE, {"dt_s": 0.5}, "dt_s: 0.2 != 0.5"),
    ],
)
def test_other_settings_are_refused_by_field(tmp_path: Path, recipe: Recipe, settings: dict[str, Any], named: str) -> None:
    _collect(tmp_path / "s", 2, 0)
    with pytest.raises(UserError, match=named):
        _collect(tmp_path / "s", 3, 0, recipe=recipe, **settings)
    assert open_store(tmp_path / "s").num_episodes == 2


def test_progress_is_reported_from_the_start_to_the_end(tmp_path: Path) -> None:
    seen: list[Progress] = []
    _collect(tmp_path / "s", 2, 0)
    _collect(tmp_path / "s", 5, 0, on_progress=seen.append)
    assert [(p.committed, p.resumed, p.total) for p in seen] == [(2, 2, 5), (3, 2, 5), (4, 2, 5), (5, 2, 5)]


@pytest.mark.parametrize(("number", "workers", "named"), [(0, 0, "episodes=0"), (1, -1, "workers=-1"), (1, 999, "workers=999")])
def test_bad_numbers_are_named(tmp_path: Path, number: int, workers: int, named: str) -> None:
    with pytest.raises(UserError, match=named):
        _collect(tmp_path / "s", number, workers)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_users_mistake_inside_a_worker_stays_one(tmp_path: Path, workers: int) -> None:
    with pytest.raises(UserError, match="unknown behaviour 'dance'"):
        _collect(tmp_path / "s", 2, workers, recipe=replace(RECIPE, behaviours={"dance": 1.0}))
    with pytest.raises(UserError, match="times in a row"):
        _collect(tmp_path / "t", 2, workers, failure_rate=1.0)


def test_a_bug_inside_a_worker_keeps_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)tiny_env\.py.*a bug of the environment"):
        _collect(tmp_path / "s", 2, 1, fault="raise")


def test_a_worker_that_dies_is_reported_and_nothing_is_lost(tmp_path: Path) -> None:
    _collect(tmp_path / "s", 2, 0)
    with pytest.raises(UserError, match=r"worker died \(exit code 7.*fewer workers"):
        _collect(tmp_path / "s", 9, 2, fault="die")
    assert open_store(tmp_path / "s").num_episodes == 2
    _collect(tmp_path / "s", 4, 0)  # the lock is free again


def test_the_parents_environment_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with collect_module._environment({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}):
        assert (os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]) == ("1", "1")
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in os.environ


def test_versions_are_recorded(tmp_path: Path) -> None:
    _collect(tmp_path / "s", 1, 0)
    recorded = open_store(tmp_path / "s").spec.software
    assert recorded == software_versions()
    assert {"goalward", "python", "mujoco", "numpy", "zarr"} <= recorded.keys()
