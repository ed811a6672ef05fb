"""What a process of the pool does: some episodes of one cell. One thread of torch, so that results do not depend on the pool's size."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from goalward.experiments.benchmark.cells import Cell
    from goalward.experiments.benchmark.methods import Opened
    from goalward.experiments.results import EpisodeRecord


class _Desk:
    """The cell that this process has open; opening one anew for every block would cost as much as an episode."""

    def __init__(self) -> None:
        self._cell: Cell | None = None
        self._opened: Opened | None = None
        self._stack = ExitStack()
        self.cold = True

    def open(self, cell: Cell) -> Opened:
        from goalward.experiments.benchmark.methods import opened

        if self._opened is None or cell != self._cell:
            self._stack.close()
            self._cell, self._opened = None, None
            self._opened, self._cell, self.cold = self._stack.enter_context(opened(cell)), cell, True
        return self._opened


_desk: list[_Desk] = []
"""Of this process; filled by `start`."""


def start_process() -> None:
    """Prepares a process of the pool."""
    import signal
    import threading

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()
    start()


def _end_with_parent() -> None:
    """A pool's process waits for work for ever: it does not notice that its parent was killed."""
    import multiprocessing
    import os

    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def start() -> None:
    """Prepares this process."""
    import torch

    torch.set_num_threads(1)
    _desk[:] = [_Desk()]


def run_block(cell: Cell, indices: tuple[int, ...], *, seed: int) -> list[EpisodeRecord]:
    """Runs some episodes of a cell.

    Args:
        cell: which.
        indices: numbers of its goals.
        seed: of the benchmark; episode k has seed + k.

    Returns:
        The records, in the order of `indices`.
    """
    from goalward.experiments.evaluation import run_episode

    desk: Any = _desk[0]
    opened = desk.open(cell)
    records = []
    for index in indices:
        warm_up = bool(desk.cold and opened.method.timed)
        records.append(run_episode(opened.env, opened.method, index=index, seed=seed + index, split=opened.goals_split, warm_up=warm_up))
        desk.cold = False
    return records
