"""Runs the cells that are not finished, over processes; every episode is on disk before the next block of its cell is counted.

cells -> blocks of episodes that no journal holds yet -> pool of processes -> records -> the cell's journal
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from goalward import UserError
from goalward.experiments.benchmark.cells import Cell
from goalward.experiments.benchmark.methods import cell_hashes
from goalward.experiments.benchmark.worker import run_block, start, start_process
from goalward.experiments.journal import Journal, config_key
from goalward.experiments.results import EpisodeRecord

BLOCK = 5
"""Episodes that a process runs before it reports; what an interruption can lose per process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedCell:
    """A cell and its episodes."""

    cell: Cell
    hashes: Mapping[str, str]
    """Of goals and weights."""
    episodes: tuple[EpisodeRecord, ...]
    """In the order of the goals."""
    resumed: int
    """How many of them an earlier run had left."""


def run_cells(
    cells: Sequence[Cell],
    *,
    seed: int,
    out: Path,
    workers: int,
    versions: Mapping[str, str],
    on_episode: Callable[[Cell, EpisodeRecord | None], None] = lambda cell, record: None,
) -> list[FinishedCell]:
    """Runs what is missing.

    Args:
        cells: each once.
        seed: of the benchmark.
        out: the benchmark's folder; journals are below it, and are kept, so that a cell can grow.
        workers: processes; 0 runs everything in this one.
        versions: software; another one does not continue these journals.
        on_episode: called for every episode, also for those found in journals.

    Raises:
        UserError: weights are missing or do not suit a task, another run writes to the same folder, or a process died twice.
    """
    hashes = [cell_hashes(cell) for cell in cells]  # mistakes come to light before anything runs
    with ExitStack() as stack:
        journals = []
        for cell, known in zip(cells, hashes, strict=True):
            journals.append(stack.enter_context(_journal(cell, known, seed=seed, out=out, versions=versions)))
        resumed = []
        for cell, journal in zip(cells, journals, strict=True):
            found = [record for (_, index), record in sorted(journal.records.items()) if index < cell.episodes]
            resumed.append(len(found))
            for record in found:
                on_episode(cell, record)
        blocks = list(_blocks(cells, journals))
        for number, records in _computed(blocks, cells, seed=seed, workers=workers):
            for record in records:
                journals[number].append(record)
                on_episode(cells[number], record)
        return [
            FinishedCell(
                cell=cell, hashes=known, resumed=before,
                episodes=tuple(journal.records[cell.name, index] for index in range(cell.episodes)),
            )
            for cell, known, journal, before in zip(cells, hashes, journals, resumed, strict=True)
        ]  # fmt: skip


def count_recorded(cell: Cell, *, seed: int, out: Path, versions: Mapping[str, str]) -> int:
    """How many of a cell's episodes its journal holds; another run may be writing to it.

    Raises:
        UserError: its weights are missing.
    """
    journal = _journal(cell, cell_hashes(cell), seed=seed, out=out, versions=versions)
    return sum(index < cell.episodes for _, index in journal.peek())


def _journal(cell: Cell, hashes: Mapping[str, str], *, seed: int, out: Path, versions: Mapping[str, str]) -> Journal:
    identity = {"cell": {name: v for name, v in asdict(cell).items() if name != "episodes"}, "hashes": hashes, "seed": seed}
    return Journal(out / cell.folder, config_key(identity | {"versions": dict(versions)}))


def _blocks(cells: Sequence[Cell], journals: Sequence[Journal]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Number of a cell, and goals that its journal lacks."""
    for number, (cell, journal) in enumerate(zip(cells, journals, strict=True)):
        missing = [index for index in range(cell.episodes) if (cell.name, index) not in journal.records]
        for begin in range(0, len(missing), BLOCK):
            yield number, tuple(missing[begin : begin + BLOCK])


def _computed(
    blocks: Sequence[tuple[int, tuple[int, ...]]], cells: Sequence[Cell], *, seed: int, workers: int
) -> Iterator[tuple[int, list[EpisodeRecord]]]:
    """Results of blocks as they are finished; a process that dies costs its block a second attempt."""
    if workers == 0:
        start()
        for number, indices in blocks:
            yield number, run_block(cells[number], indices, seed=seed)
        return
    todo, attempts = list(reversed(blocks)), dict.fromkeys(blocks, 0)
    while todo:
        pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=start_process)
        running: dict[Future[list[EpisodeRecord]], tuple[int, tuple[int, ...]]] = {}
        try:
            while todo or running:
                while todo and len(running) < 2 * workers:
                    block = todo.pop()
                    running[pool.submit(run_block, cells[block[0]], block[1], seed=seed)] = block
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    records = future.result()
                    yield running.pop(future)[0], records
        except BrokenProcessPool:
            for block in running.values():
                attempts[block] += 1
                todo.append(block)
            if worst := [block for block in running.values() if attempts[block] > 2]:
                title = cells[worst[0][0]].title
                raise UserError(
                    f"a process died three times in {title}, goals {worst[0][1]}; too little memory? try --workers 1, "
                    "or --workers 0 to see it happen"
                ) from None
        finally:
            with contextlib.suppress(Exception):
                pool.shutdown(wait=True, cancel_futures=True)


def machine_facts() -> dict[str, Any]:
    """What the times were measured on, and with what."""
    from goalward.experiments.doctor import machine, versions

    return {"machine": machine(), "versions": versions()}
