"""Faults of disk and process: whatever happens, a store opens with exactly the committed episodes, and the next writer goes on."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from goalward import UserError
from goalward.datasets import durable, writer
from goalward.datasets.store import Episode, EpisodeWriter, StoreSpec, open_store

MakeEpisode = Callable[..., Episode]
Same = Callable[[Episode, Episode], None]
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests that count operations do not need the disk to be real."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


# -- a full or read-only disk ----------------------------------------------------------------------------------------------------------


class _FaultAt:
    """Makes call number `at` of the low-level disk operations fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: OSError, partial: bool = False) -> None:
        self.at, self.calls, self._error, self._partial = -1, 0, error, partial
        for name in ("write_unflushed", "flush", "rename", "make_folders"):
            monkeypatch.setattr(durable, name, self._wrap(name, getattr(durable, name)))

    def _wrap(self, name: str, original: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            number, self.calls = self.calls, self.calls + 1
            if number == self.at:
                if self._partial and name == "write_unflushed":  # the disk takes half of it
                    path, data = arguments
                    original(path, data[: len(data) // 2])
                raise self._error
            original(*arguments)

        return call


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_fault_at_any_operation_loses_nothing(
    tmp_path: Path, spec: StoreSpec, make_episode: MakeEpisode, same: Same, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(writer, "SEGMENT_EPISODES", 2)  # so that sealing is among the operations
    fault = _FaultAt(monkeypatch, OSError(code, os.strerror(code)), partial=True)
    path = tmp_path / "s"
    with EpisodeWriter(path, spec) as w:
        w.append(make_episode(0))
        w.append(make_episode(1))
        fault.calls = 0
        w.append(make_episode(2))
        operations = fault.calls
    assert operations > 15
    for at in range(operations):
        shutil.rmtree(path)
        fault.at = -1
        with EpisodeWriter(path, spec) as w:
            w.append(make_episode(0))
            w.append(make_episode(1))
            fault.calls, fault.at = 0, at
            with pytest.raises(UserError) as caught:
                w.append(make_episode(2))
            assert "\n" not in str(caught.value)
            assert "2 committed episodes are safe" in str(caught.value)
        fault.at = -1
        store = open_store(path)
        assert store.indices() in ((0, 1), (0, 1, 2))  # the third may have been committed by the very last operation
        for index, episode in store.iter_episodes():
            same(episode, make_episode(index))
        assert all(message is None for _, message in store.damage())
        with EpisodeWriter(path, spec) as w:
            if 2 not in w.ids:
                w.append(make_episode(2), index=2)
            w.append(make_episode(3))
        same(open_store(path).episode(2), make_episode(2))
        assert sorted(p.name for p in (path / "episodes").iterdir()) == ["000000", "000001", "000002", "000003", "zarr.json"]


def test_a_full_disk_while_an_episode_is_written_leaves_the_writer_usable(
    store_path: Path, spec: StoreSpec, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EpisodeWriter(store_path, spec) as w:
        with monkeypatch.context() as patch:
            fault = _FaultAt(patch, NO_SPACE)
            fault.at = 2
            with pytest.raises(UserError, match=r"disk is full.*episode 3 was not stored.*3 committed"):
                w.append(make_episode(3))
        assert not (store_path / "episodes/000003").exists()
        w.append(make_episode(3))
    assert open_store(store_path).num_episodes == 4


def test_a_fault_at_the_commit_closes_the_writer(
    store_path: Path, spec: StoreSpec, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EpisodeWriter(store_path, spec) as w:
        with monkeypatch.context() as patch:
            patch.setattr(durable, "rename", lambda *_: (_ for _ in ()).throw(NO_SPACE))
            with pytest.raises(UserError, match="disk is full"):
                w.append(make_episode(3))
        with pytest.raises(UserError, match="closed"):  # only the disk knows whether it was committed
            w.append(make_episode(4))
    with EpisodeWriter(store_path, spec) as w:
        assert w.ids == {0, 1, 2}


def test_a_full_disk_while_a_store_is_made(tmp_path: Path, spec: StoreSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fault = _FaultAt(patch, NO_SPACE)
        for at in range(8):
            fault.calls, fault.at = 0, at
            with pytest.raises(UserError, match="disk is full"):
                EpisodeWriter(tmp_path / "s", spec)
            if (tmp_path / "s/manifest.json").exists():
                break
    EpisodeWriter(tmp_path / "s", spec).close()
    assert open_store(tmp_path / "s").num_episodes == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_the_systems_own_full_device_is_reported(store_path: Path, spec: StoreSpec, make_episode: MakeEpisode) -> None:
    (store_path / "manifest.json.tmp").symlink_to("/dev/full")
    with EpisodeWriter(store_path, spec) as w, pytest.raises(UserError, match="disk is full"):
        w.append(make_episode(3))
    assert open_store(store_path).num_episodes == 3


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: original(fd, bytes(data[:7])))
    durable.write_file(tmp_path / "f", bytes(range(100)))
    assert (tmp_path / "f").read_bytes() == bytes(range(100))


def test_an_interrupted_append_may_be_repeated(
    store_path: Path, spec: StoreSpec, make_episode: MakeEpisode, same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EpisodeWriter(store_path, spec) as w:
        with monkeypatch.context() as patch:
            patch.setattr(durable, "flush_all", lambda paths: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                w.append(make_episode(3))
        w.append(make_episode(3))
    same(open_store(store_path).episode(3), make_episode(3))


def test_everything_is_flushed_before_the_commit(
    store_path: Path, spec: StoreSpec, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[Path] = set()
    at_commit: list[set[Path]] = []
    original_flush, original_rename = durable.flush, durable.rename
    monkeypatch.setattr(durable, "flush", lambda path: (flushed.add(path), original_flush(path)))
    monkeypatch.setattr(durable, "rename", lambda a, b: (at_commit.append(set(flushed)), original_rename(a, b)))
    with EpisodeWriter(store_path, spec) as w:
        w.append(make_episode(3))
    folder = store_path / "episodes/000003"
    must = {folder.parent, folder, *folder.rglob("*"), store_path / "manifest.json.tmp"}
    assert must <= at_commit[-1]
    assert store_path in flushed  # the rename itself


# -- power loss: every prefix of what was sent to the disk -------------------------------------------------------------------------


class _Journal:
    """Records the disk operations of a writer, to be replayed up to any of them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.operations: list[tuple[str, tuple[Any, ...]]] = []

    def record(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def wrap(name: str, relative: Callable[..., tuple[Any, ...]]) -> None:
            original = getattr(durable, name)

            def call(*arguments: Any) -> None:
                self.operations.append((name, relative(*arguments)))
                original(*arguments)

            monkeypatch.setattr(durable, name, call)

        wrap("write_unflushed", lambda path, data: (path.relative_to(self._root), bytes(data)))
        wrap("rename", lambda a, b: (a.relative_to(self._root), b.relative_to(self._root)))
        wrap("make_folders", lambda folder, children: (folder.relative_to(self._root), tuple(children)))

    def replay(self, root: Path, count: int, torn_bytes: int | None) -> None:
        """The first `count` operations; of the last write only the first `torn_bytes`."""
        for folder in ("episodes", "segments"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for number, (name, arguments) in enumerate(self.operations[:count]):
            if name == "write_unflushed":
                data = arguments[1] if torn_bytes is None or number < count - 1 else arguments[1][:torn_bytes]
                (root / arguments[0]).write_bytes(data)
            elif name == "rename":
                (root / arguments[0]).replace(root / arguments[1])
            else:
                (root / arguments[0]).mkdir()
                for child in arguments[1]:
                    (root / arguments[0] / child).mkdir()


@pytest.mark.usefixtures("no_waiting")
def test_power_loss_at_any_operation(
    tmp_path: Path, spec: StoreSpec, make_episode: MakeEpisode, same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SEGMENT_EPISODES", 2)
    source = tmp_path / "source"
    source.mkdir()
    journal = _Journal(source)
    commits: list[int] = []  # operations when each episode was committed
    with monkeypatch.context() as patch:
        journal.record(patch)
        with EpisodeWriter(source, spec) as w:
            made = len(journal.operations)
            for seed in range(4):
                w.append(make_episode(seed, steps=2))
                commits.append(len(journal.operations))
    for count in range(made, len(journal.operations) + 1):
        torn = count > made and journal.operations[count - 1][0] == "write_unflushed"
        for torn_bytes in (0, 40, None) if torn else (None,):
            target = tmp_path / "replay"
            shutil.rmtree(target, ignore_errors=True)
            journal.replay(target, count, torn_bytes)
            expected = sum(done <= count for done in commits)
            store = open_store(target)
            assert store.indices() == tuple(range(expected))
            for index, episode in store.iter_episodes():
                same(episode, make_episode(index, steps=2))
            with EpisodeWriter(target, spec) as w:
                w.append(make_episode(77, steps=2))
            assert open_store(target).num_episodes == expected + 1
            assert len(list((target / "episodes").iterdir())) == expected + 2


# -- one writer -----------------------------------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from goalward.datasets.store import EpisodeWriter, open_store
store = open_store(sys.argv[1])
writer = EpisodeWriter(sys.argv[1], store.spec)
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_writer_is_refused(store_path: Path, spec: StoreSpec) -> None:
    with EpisodeWriter(store_path, spec):
        with pytest.raises(UserError, match=f"written by another process .process {os.getpid()}"):
            EpisodeWriter(store_path, spec)
        open_store(store_path).verify(0)  # readers are not disturbed
    EpisodeWriter(store_path, spec).close()


def test_the_lock_ends_with_its_killed_holder(store_path: Path, spec: StoreSpec) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(store_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {holder.pid}"):
            EpisodeWriter(store_path, spec)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    EpisodeWriter(store_path, spec).close()


def test_two_writers_that_start_at_once_do_not_both_win(tmp_path: Path, spec: StoreSpec) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def attempt(_: int) -> EpisodeWriter | None:
        try:
            return EpisodeWriter(tmp_path / "s", spec)
        except UserError:
            return None

    with ThreadPoolExecutor(8) as pool:
        winners = [w for w in pool.map(attempt, range(8)) if w is not None]
    assert len(winners) == 1
    winners[0].close()


# -- left-overs ------------------------------------------------------------------------------------------------------------------------


def test_what_was_not_committed_is_removed_and_the_rest_is_not(store_path: Path, spec: StoreSpec) -> None:
    orphan, foreign = store_path / "episodes/000009/pixels", store_path / "episodes/notes"
    orphan.mkdir(parents=True)
    (orphan / "half").write_bytes(b"x")
    foreign.mkdir()
    (store_path / "manifest.json.tmp").write_bytes(b"{")
    (store_path / "segments/000000.json").write_bytes(b"[")
    assert open_store(store_path).num_episodes == 3
    assert orphan.exists()  # a reader changes nothing
    EpisodeWriter(store_path, spec).close()
    assert not orphan.parent.exists()
    assert foreign.exists()
    assert all(message is None for _, message in open_store(store_path).damage())


def test_an_orphan_link_is_removed_without_following_it(store_path: Path, spec: StoreSpec, tmp_path: Path) -> None:
    outside = tmp_path / "precious"
    outside.mkdir()
    (outside / "data").write_text("keep")
    (store_path / "episodes/000009").symlink_to(outside)
    EpisodeWriter(store_path, spec).close()
    assert (outside / "data").read_text() == "keep"
    assert not (store_path / "episodes/000009").is_symlink()


# -- killed writers ------------------------------------------------------------------------------------------------------------------

WRITER = textwrap.dedent("""
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from tiny_env import TinyEnv
    from goalward.datasets.collect import collect
    from goalward.datasets.simulate import Recipe
    if __name__ == "__main__":
        recipe = Recipe(base_seed=1, episode_steps=4, behaviours={"explore": 1.0})
        collect(Path(sys.argv[1]), make_env=TinyEnv, recipe=recipe, config={}, num_episodes=100_000, num_workers=int(sys.argv[3]),
                on_progress=lambda p: print(p.committed, flush=True))
""")


def _kill_one_run(script: Path, path: Path, workers: int, reports: int, delay_s: float) -> int:
    """Starts a collection, kills it `delay_s` after it reported so many commits; returns the number of episodes it last reported."""
    command = [sys.executable, str(script), str(path), str(Path(__file__).parent), str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        reported = [run.stdout.readline() for _ in range(1 + reports)]  # the first one says what is there already
        time.sleep(delay_s)
        run.send_signal(signal.SIGKILL)
        reported += run.stdout
        run.wait()
    complete = [line for line in reported if line.endswith("\n")]
    assert len(complete) > reports, "the run ended by itself"
    return int(complete[-1])


def _check_after_kill(path: Path, reported: int, checked: set[int]) -> int:
    store = open_store(path)
    assert reported <= store.num_episodes <= reported + 1  # one may be committed and not yet reported
    for index in set(store.indices()) - checked:
        store.verify(index)
        assert store.num_steps(index) == 4
    checked |= set(store.indices())
    return store.num_episodes


def _kill_many(tmp_path: Path, moments: Iterable[tuple[int, float]], workers: int) -> None:
    script, path = tmp_path / "run.py", tmp_path / "s"
    script.write_text(WRITER)
    checked: set[int] = set()
    before = 0
    for reports, delay_s in moments:
        after = _check_after_kill(path, _kill_one_run(script, path, workers, reports, delay_s), checked)
        assert after >= before + reports
        before = after


@pytest.mark.timeout(240)
def test_ten_kills(tmp_path: Path) -> None:
    _kill_many(tmp_path, [(k % 3, 0.004 * k) for k in range(10)], workers=0)


@pytest.mark.timeout(120)
def test_two_kills_with_workers_leave_no_orphan_process(tmp_path: Path) -> None:
    _kill_many(tmp_path, [(1, 0.0), (2, 0.02)], workers=2)
    deadline = time.monotonic() + 20
    while (left := _processes_that_mention(str(tmp_path))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_kills(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    _kill_many(tmp_path, [(int(rng.integers(4)), float(rng.uniform(0, 0.1))) for _ in range(100)], workers=2)


def _processes_that_mention(text: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in command:
            found.append(command)
    return found
