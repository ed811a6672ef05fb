"""Time, memory and the rate of matrix products, for measurements on a machine that may be busy with other things."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def seconds(function: Callable[[], Any]) -> float:
    """Time of a call: of one thread its own CPU time, which other work on the machine does not count in; of several, the clock's."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    begun_s = clock()
    function()
    return clock() - begun_s


def extra_mib(function: Callable[[], Any]) -> float | None:
    """Most memory in use during a call, beyond that before it, MiB; None where the system does not tell."""
    try:
        _CLEAR.write_text("5")  # forget the highest value so far
        before = _kib("VmRSS")
        function()
        return max(0, _kib("VmHWM") - before) / 1024
    except OSError:
        return None


def _kib(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


class Products:
    """Large square matrix products: the rate that nothing made of matrix products can exceed."""

    def __init__(self, dtype: torch.dtype, side: int = 1024) -> None:
        generator = torch.Generator().manual_seed(0)
        self._a, self._b = (torch.randn(side, side, generator=generator).to(dtype) for _ in range(2))
        self.flop = 2 * side**3

    @torch.inference_mode()
    def __call__(self) -> None:
        """Multiplies, twice."""
        for _ in range(2):
            self._a @ self._b

    def rate(self) -> float:
        """Operations per second."""
        return 2 * self.flop / seconds(self)


class Spent:
    """Adds up the time spent in a function while it is in place."""

    def __init__(self, owner: Any, name: str) -> None:
        self._owner, self._name, self._original = owner, name, getattr(owner, name)
        self.total_s = 0.0

    def __enter__(self) -> Spent:
        clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter

        def timed(*arguments: Any, **options: Any) -> Any:
            begun_s = clock()
            try:
                return self._original(*arguments, **options)
            finally:
                self.total_s += clock() - begun_s

        setattr(self._owner, self._name, timed)
        return self

    def __exit__(self, *_: object) -> None:
        setattr(self._owner, self._name, self._original)
