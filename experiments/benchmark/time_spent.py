"""How long a benchmark has computed, over all the runs that its folder has seen.

Cells grow and runs are interrupted, so the time of the newest run says little. Every run adds a line when it ends, finished or
interrupted; one that was killed outright cannot, and is missing from the sum.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

NAME = "time.jsonl"


@contextlib.contextmanager
def clocked(out: Path, *, workers: int) -> Iterator[None]:
    """Adds how long the block took to the folder's record, whatever ends it.

    Args:
        out: the benchmark's folder; it exists.
        workers: processes that computed; 0 is this one alone.
    """
    began = time.monotonic()
    try:
        yield
    finally:
        line = json.dumps({"hours": (time.monotonic() - began) / 3600, "workers": max(workers, 1)})
        with (out / NAME).open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")  # the first line break closes a line that a full disk had cut short


def process_hours(out: Path) -> float:
    """Sums hours times processes over all runs of a folder; lines that are not whole count nothing."""
    path = out / NAME
    total = 0.0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            entry = json.loads(line)
            hours = float(entry["hours"]) * int(entry["workers"])
            total += hours if math.isfinite(hours) and hours >= 0 else 0.0
    return total
