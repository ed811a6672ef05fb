"""Writing and reading: what goes in comes out, through our reader and through zarr's."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from goalward import UserError
from goalward.datasets.arrays import layouts
from goalward.datasets.encode import encode_episode
from goalward.datasets.manifest import SEGMENT_EPISODES
from goalward.datasets.store import Episode, EpisodeWriter, StoreSpec, open_store

MakeEpisode = Callable[..., Episode]
Same = Callable[[Episode, Episode], None]


def test_episodes_come_back(store_path: Path, spec: StoreSpec, make_episode: MakeEpisode, same: Same) -> None:
    store = open_store(store_path)
    assert store.spec == spec
    assert store.num_episodes == 3
    assert store.indices() == (0, 1, 2)
    assert store.seeds == {0: 0, 1: 1, 2: 2}
    assert [store.num_steps(i) for i in store.indices()] == [4, 6, 11]
    for index, episode in store.iter_episodes():
        same(episode, make_episode(index, (4, 6, 11)[index]))
        store.verify(index)
    assert all(message is None for _, message in store.damage())


def test_splits_by_number_or_by_choice(tmp_path: Path, spec: StoreSpec, make_episode: MakeEpisode) -> None:
    with EpisodeWriter(tmp_path / "s", spec) as writer:
        for seed in range(3):
            writer.append(make_episode(seed))
        writer.append(make_episode(9), split="test")
        with pytest.raises(UserError, match="holdout"):
            writer.append(make_episode(10), split="holdout")
    store = open_store(tmp_path / "s")
    assert {s: store.indices(s) for s in ("train", "validation", "test")} == {"train": (0,), "validation": (1,), "test": (2, 3)}
    assert [i for i, _ in store.iter_episodes("test")] == [2, 3]
    with pytest.raises(UserError, match="holdout"):
        store.indices("holdout")


def test_every_clip_is_a_slice(store_path: Path) -> None:
    store = open_store(store_path)
    for index in store.indices():
        whole = store.episode(index)
        frames = len(whole.pixels)
        for start in range(frames):
            for length in range(1, frames - start + 1):
                clip = store.clip(index, start, length)
                np.testing.assert_array_equal(clip["pixels"], whole.pixels[start : start + length])
                np.testing.assert_array_equal(clip["proprio"], whole.proprio[start : start + length])
                np.testing.assert_array_equal(clip["actions"], whole.actions[start : start + length - 1])


@pytest.mark.parametrize(("start", "length"), [(-1, 2), (0, 0), (0, 99), (5, 1)])
def test_a_clip_outside_the_episode_is_refused(store_path: Path, start: int, length: int) -> None:
    with pytest.raises(UserError):
        open_store(store_path).clip(0, start, length)


def test_a_clip_decodes_only_its_chunks(
    tmp_path: Path, spec: StoreSpec, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    from goalward.datasets import decode

    with EpisodeWriter(tmp_path / "s", spec) as writer:
        writer.append(make_episode(0, steps=39))  # 40 frames, 10 chunks of 4
    decoded: list[int] = []
    original = decode.decode_chunk
    monkeypatch.setattr(decode, "decode_chunk", lambda data, out, path: (decoded.append(len(out)), original(data, out, path)))
    open_store(tmp_path / "s").pixels(0, 7, 9)
    assert decoded == [4, 4]


def test_results_are_the_callers_to_change(store_path: Path) -> None:
    store = open_store(store_path)
    first = store.pixels(0)
    first[...] = 0
    assert store.pixels(0).any()


def test_unknown_episode_is_named(store_path: Path) -> None:
    with pytest.raises(UserError, match="episode 7"):
        open_store(store_path).pixels(7)


@settings(max_examples=25, deadline=None)
@given(steps=st.integers(1, 13), per_chunk=st.integers(1, 9), constant=st.booleans(), seed=st.integers(0, 99))
def test_zarr_reads_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    spec: StoreSpec,
    make_episode: MakeEpisode,
    steps: int,
    per_chunk: int,
    constant: bool,
    seed: int,
) -> None:
    path = tmp_path_factory.mktemp("parity") / "s"
    episode = make_episode(seed, steps)
    if constant:  # equals the fill value: zarr would leave such chunks out if it were let
        episode = replace(episode, pixels=np.zeros_like(episode.pixels), actions=np.zeros_like(episode.actions))
    with EpisodeWriter(path, replace(spec, frames_per_chunk=per_chunk)) as writer:
        writer.append(episode)
    group = zarr.open_group(str(path / "episodes"), mode="r")
    assert list(group.group_keys()) == ["000000"]
    mine = open_store(path)
    for name in ("pixels", "proprio", "actions"):
        theirs = group[f"000000/{name}"]
        assert isinstance(theirs, zarr.Array)
        np.testing.assert_array_equal(np.asarray(theirs[...]), getattr(mine, name)(0))
        np.testing.assert_array_equal(getattr(mine, name)(0), getattr(episode, name))


def test_one_shard_a_pixel_array(store_path: Path) -> None:
    assert sorted(p.name for p in (store_path / "episodes/000002/pixels").iterdir()) == ["c.0.0.0.0.0", "zarr.json"]


def test_content_hash_ignores_order_and_software(tmp_path: Path, spec: StoreSpec, make_episode: MakeEpisode) -> None:
    hashes = []
    for run, (order, software) in enumerate([((0, 1, 2), {}), ((2, 0, 1), {"numpy": "9"})]):
        with EpisodeWriter(tmp_path / str(run), replace(spec, software=software)) as writer:
            for k in order:
                writer.append(make_episode(k), index=k)
        hashes.append(open_store(tmp_path / str(run)).content_hash)
    assert hashes[0] == hashes[1]
    with EpisodeWriter(tmp_path / "other", replace(spec, config={"seed": 4})) as writer:
        for k in range(3):
            writer.append(make_episode(k), index=k)
    assert open_store(tmp_path / "other").content_hash != hashes[0]


def test_content_hash_sees_data_and_split(tmp_path: Path, spec: StoreSpec, make_episode: MakeEpisode) -> None:
    hashes = set()
    for run, (seed, split) in enumerate([(0, "train"), (1, "train"), (0, "test")]):
        with EpisodeWriter(tmp_path / str(run), spec) as writer:
            writer.append(make_episode(seed), split=split)
        hashes.add(open_store(tmp_path / str(run)).content_hash)
    assert len(hashes) == 3


def test_a_second_session_goes_on(store_path: Path, spec: StoreSpec, make_episode: MakeEpisode, same: Same) -> None:
    before = open_store(store_path)
    with EpisodeWriter(store_path, spec) as writer:
        assert writer.ids == {0, 1, 2}
        assert writer.append(make_episode(30)) == 3
        assert writer.append(make_episode(50), index=10, discarded=2) == 10
        assert writer.append(make_episode(51)) == 11
        assert writer.num_discarded == 2
    after = open_store(store_path)
    assert after.indices() == (0, 1, 2, 3, 10, 11)
    same(after.episode(10), make_episode(50))
    assert before.num_episodes == 3  # an open store is a snapshot
    before.verify(2)


def test_a_taken_number_is_refused(store_path: Path, spec: StoreSpec, make_episode: MakeEpisode) -> None:
    with EpisodeWriter(store_path, spec) as writer:
        for index, named in ((1, "already"), (-1, "index"), (10**9, "index")):
            with pytest.raises(UserError, match=named):
                writer.append(make_episode(5), index=index)
    assert open_store(store_path).num_episodes == 3


def test_an_episode_that_does_not_fit_leaves_the_store_alone(store_path: Path, spec: StoreSpec, make_episode: MakeEpisode) -> None:
    with EpisodeWriter(store_path, spec) as writer, pytest.raises(UserError, match="pixels"):
        writer.append(make_episode(5, size_px=16))
    assert open_store(store_path).num_episodes == 3


def test_another_specification_is_refused_by_field(store_path: Path, spec: StoreSpec) -> None:
    for change, named in (({"image_size_px": 16}, "image_size_px: 8 != 16"), ({"config": {"seed": 9}}, r"config\.seed: 3 != 9")):
        with pytest.raises(UserError, match=named):
            EpisodeWriter(store_path, replace(spec, **change))
    EpisodeWriter(store_path, spec).close()  # the refusals left no lock behind


def test_a_closed_writer_refuses(store_path: Path, spec: StoreSpec, make_episode: MakeEpisode) -> None:
    writer = EpisodeWriter(store_path, spec)
    writer.close()
    writer.close()
    with pytest.raises(UserError, match="closed"):
        writer.append(make_episode(5))


def test_segments_are_sealed_and_read_back(tmp_path: Path, spec: StoreSpec, make_episode: MakeEpisode) -> None:
    encoded = encode_episode(make_episode(0, steps=1), spec)
    count = 2 * SEGMENT_EPISODES + 3
    with EpisodeWriter(tmp_path / "s", spec) as writer:
        for _ in range(count):
            writer.append_encoded(encoded)
    assert len(list((tmp_path / "s/segments").iterdir())) == 2
    store = open_store(tmp_path / "s")
    assert store.indices() == tuple(range(count))
    with EpisodeWriter(tmp_path / "s", spec) as writer:
        assert writer.append_encoded(encoded) == count
    assert open_store(tmp_path / "s").num_episodes == count + 1
    assert (tmp_path / "s/manifest.json").stat().st_size < 200_000


def test_a_folder_with_other_files_is_not_taken(tmp_path: Path, spec: StoreSpec) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        EpisodeWriter(tmp_path, spec)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.tex"]


def test_a_file_in_the_stores_place_is_refused(tmp_path: Path, spec: StoreSpec) -> None:
    (tmp_path / "s").write_text("")
    with pytest.raises(UserError):
        EpisodeWriter(tmp_path / "s", spec)
    with pytest.raises(UserError):
        open_store(tmp_path / "s")


@pytest.mark.parametrize("name", ["missing", "."])
def test_no_store_says_how_to_make_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="goalward collect"):
        open_store(tmp_path / name)


def test_an_empty_store_opens(tmp_path: Path, spec: StoreSpec) -> None:
    EpisodeWriter(tmp_path / "s", spec).close()
    store = open_store(tmp_path / "s")
    assert store.num_episodes == 0
    assert store.indices("train") == ()


def _checksum(store: object, index: int) -> int:
    return int(store.pixels(index).sum())  # type: ignore[attr-defined]


def test_a_store_may_be_pickled_and_read_by_threads(store_path: Path) -> None:
    store = pickle.loads(pickle.dumps(open_store(store_path)))
    expected = [_checksum(store, i) for i in (0, 1, 2)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda k: _checksum(store, k % 3), range(30))) == expected * 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_reads(store_path: Path) -> None:
    store = open_store(store_path)
    expected = _checksum(store, 0)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_checksum, (store, 0)).get(timeout=20) == expected


def test_reading_imports_neither_zarr_nor_torch_nor_mujoco(store_path: Path) -> None:
    code = (
        "import sys; from goalward.datasets.store import open_store; open_store(sys.argv[1]).episode(0);"
        "print([m for m in ('zarr', 'torch', 'mujoco') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_layout_covers_the_frames(spec: StoreSpec) -> None:
    layout = layouts(spec, 32)["pixels"]
    assert layout.shape[0] == 33
    assert layout.shard is not None
    assert layout.shard[0] == 36
    assert layout.num_chunks == 9
    assert layout.chunk_bytes == 4 * 2 * 8 * 8 * 3
