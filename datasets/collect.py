"""Many simulated episodes in parallel: workers simulate and compress, the one writer in this process commits.

    parent ── episode number ──▶ worker (own process, own environment, one thread)
           ◀── EncodedEpisode ──

Each worker has a pipe of its own and never another's: when the parent dies, however it dies, its next read or write fails and it ends.
Two numbers are always under way in a worker, so that it never waits for the disk.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import multiprocessing
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from goalward import UserError, __version__
from goalward.datasets.encode import encode_episode
from goalward.datasets.simulate import Recipe, simulate_episode
from goalward.datasets.spec import MAX_EPISODES, StoreSpec
from goalward.datasets.writer import EpisodeWriter

_SOFTWARE = ("mujoco", "dm-control", "gymnasium", "numpy", "zarr")
_UNDER_WAY = 2
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_STOP = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a collection stands."""

    committed: int
    """Episodes of those asked for that are on the disk."""
    total: int
    """Episodes asked for."""
    resumed: int
    """Of the committed ones, those of an earlier run."""
    discarded: int
    """Failed attempts, which left no data."""


def collect(
    path: Path,
    *,
    make_env: Callable[[], Any],
    recipe: Recipe,
    config: Mapping[str, Any],
    num_episodes: int,
    num_workers: int,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Makes a store hold the episodes 0 to `num_episodes` - 1; those it holds already are kept.

    The result does not depend on the number of workers, nor on how often the collection was interrupted.

    Args:
        path: the store's folder.
        make_env: makes the environment; picklable, called in every worker.
        recipe: seeds, length and behaviours of the episodes.
        config: further settings that decide the data (say, the appearance), for the specification; plain JSON.
        num_episodes: episodes that the store is to hold.
        num_workers: processes; 0 simulates in this one.
        on_progress: called after every commit.

    Raises:
        UserError: bad arguments; a store made with other settings; a full disk; a worker that died. What is committed stays.
    """
    if not 1 <= num_episodes <= MAX_EPISODES:
        raise UserError(f"episodes={num_episodes} is out of range 1..{MAX_EPISODES}")
    if not 0 <= num_workers <= 256:
        raise UserError(f"workers={num_workers} is out of range 0..256")
    config = {**recipe.to_json(), **config}
    if num_workers == 0:
        return _collect_here(path, make_env, recipe, config, num_episodes, on_progress)
    workers = _Workers(num_workers, make_env, recipe, config)
    try:
        with EpisodeWriter(path, workers.start()) as writer:
            tally = _Tally(writer, num_episodes, on_progress)
            for index, encoded, discarded in workers.run(tally.missing):
                writer.append_encoded(encoded, index=index, discarded=discarded)
                tally.committed(discarded)
            return tally.progress
    finally:
        workers.close()


def software_versions() -> dict[str, str]:
    """Versions of the packages that make the data."""
    versions = {"goalward": __version__, "python": platform.python_version()}
    for package in _SOFTWARE:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _collect_here(
    path: Path,
    make_env: Callable[[], Any],
    recipe: Recipe,
    config: Mapping[str, Any],
    num_episodes: int,
    on_progress: Callable[[Progress], None],
) -> Progress:
    env = make_env()
    try:
        spec = StoreSpec.from_env(env.unwrapped.spec_info, software=software_versions(), config=config)
        with EpisodeWriter(path, spec) as writer:
            tally = _Tally(writer, num_episodes, on_progress)
            for index in tally.missing:
                episode, discarded = simulate_episode(env, recipe, index)
                writer.append(episode, index=index, discarded=discarded)
                tally.committed(discarded)
            return tally.progress
    finally:
        env.close()


class _Tally:
    """Which episodes are missing, and how far the collection is."""

    def __init__(self, writer: EpisodeWriter, total: int, on_progress: Callable[[Progress], None]) -> None:
        self.missing = [index for index in range(total) if index not in writer.ids]
        done = total - len(self.missing)
        self.progress = Progress(committed=done, total=total, resumed=done, discarded=writer.num_discarded)
        self._on_progress = on_progress
        on_progress(self.progress)

    def committed(self, discarded: int) -> None:
        p = self.progress
        self.progress = Progress(committed=p.committed + 1, total=p.total, resumed=p.resumed, discarded=p.discarded + discarded)
        self._on_progress(self.progress)


class _Workers:
    """The worker processes, seen from the parent."""

    def __init__(self, number: int, make_env: Callable[[], Any], recipe: Recipe, config: Mapping[str, Any]) -> None:
        self._context = multiprocessing.get_context("spawn")  # a forked child would share the parent's graphics and thread state
        self._number = number
        self._arguments = (make_env, recipe, dict(config))
        self._processes: dict[Connection, BaseProcess] = {}

    def start(self) -> StoreSpec:
        """Starts the workers; returns the specification of what they make."""
        with _environment(dict.fromkeys(_THREAD_VARIABLES, "1")):
            for number in range(self._number):
                mine, theirs = self._context.Pipe()
                process = self._context.Process(target=_work, args=(theirs, *self._arguments), name=f"collect-{number}", daemon=True)
                process.start()
                theirs.close()  # so that reading `mine` ends when the worker does
                self._processes[mine] = process
        specs = [self._receive(connection) for connection in self._processes]
        for spec in specs[1:]:
            if spec != specs[0]:
                raise UserError("two workers made different environments; report this")
        first: StoreSpec = specs[0]
        return first

    def run(self, indices: list[int]) -> Iterator[tuple[int, Any, int]]:
        """Yields (episode number, encoded episode, discarded attempts) in the order in which they are finished."""
        todo = iter(indices)
        for _ in range(_UNDER_WAY):
            for connection in self._processes:
                self._send_next(connection, todo)
        missing = len(indices)
        while missing:
            for connection in [c for c in wait(list(self._processes)) if isinstance(c, Connection)]:
                result = self._receive(connection)
                self._send_next(connection, todo)
                missing -= 1
                yield result

    def close(self) -> None:
        """Ends the workers."""
        for connection in self._processes:
            with contextlib.suppress(OSError):
                connection.send(_STOP)
            connection.close()
        for process in self._processes.values():
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()
        self._processes = {}

    def _send_next(self, connection: Connection, todo: Iterator[int]) -> None:
        index = next(todo, None)
        if index is not None:
            try:
                connection.send(index)
            except OSError:
                raise self._died(connection) from None

    def _receive(self, connection: Connection) -> Any:
        try:
            kind, value = connection.recv()
        except (EOFError, OSError):
            raise self._died(connection) from None
        if kind == "user error":
            raise UserError(value)
        if kind == "error":
            raise RuntimeError(f"a collecting worker failed:\n{value}")
        return value

    def _died(self, connection: Connection) -> UserError:
        process = self._processes[connection]
        process.join(timeout=5)
        return UserError(
            f"a collecting worker died (exit code {process.exitcode}; -9 often means that memory ran out); "
            "committed episodes are safe: run the same command with fewer workers to go on"
        )


def _work(connection: Connection, make_env: Callable[[], Any], recipe: Recipe, config: dict[str, Any]) -> None:
    """A worker's life: sends its specification, then an encoded episode for every number it receives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        env = make_env()
        spec = StoreSpec.from_env(env.unwrapped.spec_info, software=software_versions(), config=config)
        connection.send(("spec", spec))
        while (index := connection.recv()) != _STOP:
            episode, discarded = simulate_episode(env, recipe, index)
            connection.send(("episode", (index, encode_episode(episode, spec), discarded)))
        env.close()
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone, or wants no more
        sys.exit(0)
    except UserError as error:
        _report(connection, "user error", str(error))
    except Exception:
        import traceback

        _report(connection, "error", traceback.format_exc())


def _report(connection: Connection, kind: str, text: str) -> None:
    with contextlib.suppress(OSError):
        connection.send((kind, text))


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for child processes that are started inside; numpy reads its thread count before any code of ours runs."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
