"""Damaged and hostile stores: an error that names the place, never wrong data, never an allocation that a file asks for."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numcodecs import zstd

from goalward import UserError
from goalward.datasets.arrays import layouts
from goalward.datasets.decode import decode_chunk
from goalward.datasets.metadata_check import check_array_metadata
from goalward.datasets.store import Episode, EpisodeStore, EpisodeWriter, StoreSpec, open_store
from goalward.datasets.strict_json import canonical

MakeEpisode = Callable[..., Episode]
Edit = Callable[[dict[str, Any]], None]


def _read_all(store: EpisodeStore, index: int) -> None:
    for start in range(store.num_steps(index)):
        store.clip(index, start, 2)


def _reseal(path: Path, edit: Edit) -> None:
    """Edits the manifest and makes its checksum right again, as a hostile author would."""
    file = path / "manifest.json"
    body = json.loads(file.read_bytes())
    del body["sha256"]
    edit(body)
    file.write_bytes(canonical({**body, "sha256": hashlib.sha256(canonical(body)).hexdigest()}))


def _edit_metadata(path: Path, array: str, edit: Edit) -> None:
    """Edits an array's `zarr.json` in episode 0 and puts its hash into the manifest."""
    file = path / "episodes/000000" / array / "zarr.json"
    meta = json.loads(file.read_bytes())
    edit(meta)
    file.write_text(json.dumps(meta))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    _reseal(path, lambda body: body["episodes"][0]["arrays"][array].__setitem__(2, digest))


# -- flipped bits and lost bytes -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, spec: StoreSpec, make_episode: MakeEpisode) -> Path:
    path = tmp_path_factory.mktemp("whole") / "s"
    with EpisodeWriter(path, spec) as writer:
        for seed in range(2):
            writer.append(make_episode(seed, steps=5))
    return path


def test_a_flipped_bit_anywhere_is_found_and_never_read_as_data(whole: Path, make_episode: MakeEpisode) -> None:
    rng = np.random.default_rng(0)
    reference = make_episode(0, steps=5)
    files = sorted(p for p in whole.rglob("*") if p.is_file() and p.name != ".lock" and "000001" not in p.parts)
    assert len(files) == 2 + 7
    for file in files:
        original = file.read_bytes()
        bits = 8 * len(original)
        for bit in sorted({0, bits - 1, *rng.integers(0, bits, 40).tolist()}):
            flipped = bytearray(original)
            flipped[bit // 8] ^= 1 << bit % 8
            file.write_bytes(flipped)
            try:
                store = open_store(whole)
            except UserError as error:
                refusal = str(error)
            else:
                refusal = ""
            if refusal or file.name == "manifest.json":
                file.write_bytes(original)
                assert refusal.startswith(str(whole / "manifest.json"))
                continue
            try:
                found = {index: message for index, message in store.damage() if message is not None}
                assert set(found) == ({-1} if file.parent.name == "episodes" else {0}), (file, bit)
                assert str(file) in next(iter(found.values()))
                try:  # an error, or (a bit that a decoder may ignore) the right data
                    episode = store.episode(0)
                except UserError as error:
                    refusal = str(error)
                    named = refusal.startswith("episode 0: ")
                else:
                    named = True
                    for name in ("pixels", "proprio", "actions"):
                        np.testing.assert_array_equal(getattr(episode, name), getattr(reference, name))
                assert named, refusal
            finally:
                file.write_bytes(original)
    assert all(message is None for _, message in open_store(whole).damage())


@pytest.mark.parametrize("name", ["zarr.json", "pixels/zarr.json", "pixels/c.0.0.0.0.0", "actions/c.0.0", "proprio/c.0.0"])
@pytest.mark.parametrize("damage", ["missing", "empty", "short", "long"])
def test_lost_bytes_are_found_and_named(store_path: Path, name: str, damage: str) -> None:
    file = store_path / "episodes/000001" / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "short": content[:-1], "long": content + b"x"}[damage])
    store = open_store(store_path)
    found = {index: message for index, message in store.damage() if message is not None}
    assert list(found) == [1]
    assert str(found[1]).startswith("episode 1: ")
    assert "\n" not in str(found[1])
    store.verify(0)


def test_a_missing_episode_folder_is_named(store_path: Path) -> None:
    shutil.rmtree(store_path / "episodes/000001")
    with pytest.raises(UserError, match="episode 1: "):
        open_store(store_path).episode(1)


def test_swapped_episodes_are_found(store_path: Path, spec: StoreSpec, make_episode: MakeEpisode) -> None:
    with EpisodeWriter(store_path, spec) as writer:
        writer.append(make_episode(40, steps=6), index=5)
    episodes = store_path / "episodes"
    (episodes / "000001").rename(episodes / "x")
    (episodes / "000005").rename(episodes / "000001")
    (episodes / "x").rename(episodes / "000005")
    assert {index for index, message in open_store(store_path).damage() if message is not None} == {1, 5}


def test_a_pipe_in_a_files_place_does_not_block(store_path: Path) -> None:
    for name in ("pixels/c.0.0.0.0.0", "pixels/zarr.json"):
        file = store_path / "episodes/000000" / name
        content = file.read_bytes()
        file.unlink()
        os.mkfifo(file)
        with pytest.raises(UserError, match="episode 0"):
            open_store(store_path).pixels(0)
        file.unlink()
        file.write_bytes(content)


def test_a_damaged_segment_is_named(tmp_path: Path, spec: StoreSpec, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch) -> None:
    from goalward.datasets import writer as writer_module

    monkeypatch.setattr(writer_module, "SEGMENT_EPISODES", 2)
    with EpisodeWriter(tmp_path / "s", spec) as writer:
        for seed in range(3):
            writer.append(make_episode(seed))
    segment = tmp_path / "s/segments/000000.json"
    segment.write_bytes(segment.read_bytes().replace(b"explore", b"explorE"))
    for opener in (open_store, lambda path: EpisodeWriter(path, spec)):
        with pytest.raises(UserError, match=r"segments/000000\.json: damaged"):
            opener(tmp_path / "s")


# -- zstd frames ------------------------------------------------------------------------------------------------------------------------


def test_a_decompression_bomb_is_refused_before_it_is_inflated() -> None:
    bomb = zstd.compress(bytes(64 * 2**20), 3, True)
    assert len(bomb) < 10_000
    tracemalloc.start()
    with pytest.raises(UserError, match="does not decode to 64 bytes"):
        decode_chunk(memoryview(bomb), np.empty(64, np.uint8), Path("x"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_frame_without_checksum_is_refused() -> None:
    with pytest.raises(UserError, match="damaged"):
        decode_chunk(memoryview(zstd.compress(bytes(64), 3, False)), np.empty(64, np.uint8), Path("x"))


@pytest.mark.parametrize("size", [1, 255, 256, 300, 65_791, 65_792, 2**20])
def test_every_way_to_write_the_frame_size_is_understood(size: int) -> None:
    data = np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8)
    out = np.empty(size, np.uint8)
    decode_chunk(memoryview(zstd.compress(data, 3, True)), out, Path("x"))
    np.testing.assert_array_equal(out, data)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200), prefix=st.sampled_from([b"", b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfd\x24\x40"]))
def test_random_frames_never_crash(data: bytes, prefix: bytes) -> None:
    with pytest.raises(UserError, match="damaged"):
        decode_chunk(memoryview(prefix + data), np.empty(64, np.uint8), Path("x"))


# -- hostile metadata ------------------------------------------------------------------------------------------------------------------

_PICKLE = {"name": "pickle", "configuration": {}}


@pytest.mark.parametrize(
    ("array", "edit", "named"),
    [
        ("pixels", lambda m: m.update(zarr_format=2), "zarr_format=2; only Zarr v3"),
        ("pixels", lambda m: m.pop("zarr_format"), "zarr_format=None"),
        ("pixels", lambda m: m.update(node_type="group"), "node_type"),
        ("pixels", lambda m: m.update(shape=[2**40, 2, 8, 8, 3]), "shape"),
        ("pixels", lambda m: m.update(data_type="float64"), "data_type"),
        ("proprio", lambda m: m.update(shape=[5, 3.0e300]), "shape"),
        ("actions", lambda m: m.update(shape=[True, 2]), "shape"),
        ("proprio", lambda m: m["codecs"].append(_PICKLE), "pickle"),
        ("proprio", lambda m: m.update(codecs=[_PICKLE]), "pickle"),
        ("pixels", lambda m: m["codecs"][0]["configuration"]["codecs"].append(_PICKLE), "pickle"),
        ("pixels", lambda m: m["codecs"][0]["configuration"]["index_codecs"].append({"name": "gzip"}), "gzip"),
        ("proprio", lambda m: m["codecs"].append({"name": "crc32c"}), "codecs"),
        ("proprio", lambda m: m["codecs"][1]["configuration"].update(checksum=False), "codecs"),
        ("proprio", lambda m: m["codecs"][1]["configuration"].update(checksum=1), "codecs"),
        ("proprio", lambda m: m["codecs"][0]["configuration"].update(endian="big"), "codecs"),
        ("proprio", lambda m: m.update(codecs=[7]), "codec without a name"),
        ("proprio", lambda m: m.update(codecs={"name": "zstd"}), "codecs must be a list"),
        ("proprio", lambda m: m.update(storage_transformers=[{"name": "x"}]), "storage transformers"),
        ("pixels", lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=[1, 1, 1, 1, 1]), "chunk_grid"),
        ("pixels", lambda m: m["chunk_key_encoding"]["configuration"].update(separator="/"), "chunk_key_encoding"),
    ],
)
def test_hostile_array_metadata_is_refused(store_path: Path, array: str, edit: Edit, named: str) -> None:
    _edit_metadata(store_path, array, edit)
    with pytest.raises(UserError, match=named) as caught:
        open_store(store_path).episode(0)
    assert str(caught.value).startswith("episode 0: ")


@pytest.mark.parametrize("raw", [b"", b"[]", b"7", b"{", b"[" * 100_000, b'{"a": NaN}', b'{"a": ' + b"9" * 10_000 + b"}", b"\xff\xfe"])
def test_metadata_that_is_not_an_object_is_refused(spec: StoreSpec, raw: bytes) -> None:
    with pytest.raises(UserError, match="x: "):
        check_array_metadata(raw, layouts(spec, 3)["proprio"], "x")


def test_endless_metadata_is_refused(store_path: Path) -> None:
    file = store_path / "episodes/000000/pixels/zarr.json"
    file.write_bytes(file.read_bytes() + b" " * 100_000)
    with pytest.raises(UserError, match="at most"):
        open_store(store_path).pixels(0)


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda b: b.update(format="other"), "not the manifest"),
        (lambda b: b.update(version=2), "format version 2"),
        (lambda b: b.update(extra=1), "unexpected fields"),
        (lambda b: b["spec"].update(image_size_px=10**9), "image_size_px"),
        (lambda b: b["spec"].update(cameras=["a"] * 3), "cameras"),
        (lambda b: b["spec"].pop("dt_s"), "dt_s"),
        (lambda b: b.update(spec=None), "specification"),
        (lambda b: b.update(episodes={}), "lists"),
        (lambda b: b.update(segments=[7]), "segment"),
        (lambda b: b.update(segments=[["../../etc/passwd", 1]]), "segments"),
        (lambda b: b.update(segments=[["0" * 64, 1]] * 20_000), "20000 segments"),
        (lambda b: b["episodes"].append(b["episodes"][0]), "listed twice"),
        (lambda b: b["episodes"].append(7), "entry must have the fields"),
        (lambda b: b["episodes"][0].update(path="../../outside"), "fields"),
        (lambda b: b["episodes"][0].update(id="../../outside"), "id="),
        (lambda b: b["episodes"][0].update(id=-1), "id="),
        (lambda b: b["episodes"][0].update(id=True), "id="),
        (lambda b: b["episodes"][0].update(id=10**30), "id="),
        (lambda b: b["episodes"][0].update(num_steps=10**8), "num_steps="),
        (lambda b: b["episodes"][0].update(num_steps=0), "num_steps="),
        (lambda b: b["episodes"][0].update(seed=1.5), "seed="),
        (lambda b: b["episodes"][0].update(split="../x"), "split="),
        (lambda b: b["episodes"][0].update(split=["train"]), "split="),
        (lambda b: b["episodes"][0].update(behaviour="\x1b[31m"), "behaviour"),
        (lambda b: b["episodes"][0].update(content_sha256="zz"), "hash"),
        (lambda b: b["episodes"][0].update(content_sha256="0" * 64 + "\n"), "hash"),
        (lambda b: b["episodes"][0]["arrays"].pop("pixels"), "arrays"),
        (lambda b: b["episodes"][0]["arrays"].update({"../x": [1, "0" * 64, "0" * 64]}), "arrays"),
        (lambda b: b["episodes"][0]["arrays"].update(pixels=[10**15, "0" * 64, "0" * 64]), "pixels"),
        (lambda b: b["episodes"][0]["arrays"].update(pixels=[1, "0" * 64]), "pixels"),
        (lambda b: b["episodes"][0]["arrays"].update(pixels=None), "pixels"),
        (lambda b: (b["spec"].update(image_size_px=2048), b["episodes"][0].update(num_steps=100_000)), "100000 steps"),
    ],
)
def test_a_hostile_manifest_is_refused(store_path: Path, edit: Edit, named: str) -> None:
    _reseal(store_path, edit)
    with pytest.raises(UserError, match=named) as caught:
        open_store(store_path)
    assert "\n" not in str(caught.value)


def test_a_longer_episode_than_its_files_is_refused(store_path: Path) -> None:
    _reseal(store_path, lambda b: b["episodes"][0].update(num_steps=50_000))
    tracemalloc.start()
    with pytest.raises(UserError, match="shape"):
        open_store(store_path).pixels(0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * 2**20


def test_a_sparse_giant_manifest_is_refused(store_path: Path) -> None:
    os.truncate(store_path / "manifest.json", 2**33)
    with pytest.raises(UserError, match="at most"):
        open_store(store_path)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_manifest_opens_or_is_refused_cleanly(whole: Path, data: st.DataObject) -> None:
    file = whole / "manifest.json"
    original = file.read_bytes()

    def mutate(body: dict[str, Any]) -> None:
        place: Any = body
        while True:
            keys = sorted(place) if isinstance(place, dict) else range(len(place))
            key = data.draw(st.sampled_from(list(keys)))
            if isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans()):
                place = place[key]
                continue
            if isinstance(place, dict) and data.draw(st.booleans()):
                del place[key]
            else:
                place[key] = data.draw(_JSON)
            return

    refusals = []
    try:
        _reseal(whole, mutate)
        store = open_store(whole)
        for index in store.indices():
            try:
                _read_all(store, index)
            except UserError as error:
                refusals.append(str(error))
    except UserError as error:
        refusals.append(str(error))
    finally:
        file.write_bytes(original)
    assert not any("\n" in refusal for refusal in refusals)
