"""Finished episodes on disk as they happen, so that an evaluation killed at any moment continues where it stopped.

One line of JSON an episode, synced before the next begins. The file's name carries a hash of everything that decides an episode (method
settings, seeds, goals, weights, versions): another configuration never reads this one's episodes. It is deleted when the results are
safely written, so a finished command run again measures again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from goalward import UserError
from goalward.experiments.results import EpisodeRecord, finite_json


def config_key(identity: Mapping[str, Any]) -> str:
    """Hash of everything that decides an episode, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(finite_json(identity), sort_keys=True).encode()).hexdigest()


def _whole_records(content: bytes) -> tuple[dict[tuple[str, int], EpisodeRecord], int]:
    """The records up to the first line that is torn or foreign, and how many bytes they take."""
    records: dict[tuple[str, int], EpisodeRecord] = {}
    good = 0
    for line in content.splitlines(keepends=True):
        try:
            if not line.endswith(b"\n"):
                break
            record = EpisodeRecord.from_json(json.loads(line))
        except ValueError:
            break
        records[record.method, record.index] = record
        good += len(line)
    return records, good


class Journal:
    """The journal of one configuration in one report folder; a context manager that holds a lock while it is open."""

    def __init__(self, folder: Path, key: str) -> None:
        """Names the file; nothing is touched before the journal is entered."""
        self.path = folder / f".episodes-{key[:16]}.jsonl"
        self.records: dict[tuple[str, int], EpisodeRecord] = {}
        self.num_resumed = 0
        self._fd = -1

    def __enter__(self) -> Self:
        """Opens and locks the file and reads what an interrupted run left; a line torn by a kill is cut off.

        Raises:
            UserError: another process evaluates into this folder right now.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise UserError(
                f"another plan-eval with the same settings is writing to {self.path.parent}; wait for it or give another --report"
            ) from None
        with open(self._fd, "rb", closefd=False) as file:
            self.records, good = _whole_records(file.read())
        os.ftruncate(self._fd, good)
        os.lseek(self._fd, good, os.SEEK_SET)
        self.num_resumed = len(self.records)
        return self

    def peek(self) -> dict[tuple[str, int], EpisodeRecord]:
        """What is in it by now; without a lock, and nothing is touched."""
        return _whole_records(self.path.read_bytes())[0] if self.path.exists() else {}

    def append(self, record: EpisodeRecord) -> None:
        """Adds an episode and waits until the disk has it.

        Raises:
            OSError: the disk is full; the episodes before are safe.
        """
        line = json.dumps(record.to_json(), allow_nan=False).encode() + b"\n"
        while line:
            line = line[os.write(self._fd, line) :]
        os.fsync(self._fd)
        self.records[record.method, record.index] = record

    def delete(self) -> None:
        """Removes the file; call it when the results are written."""
        self.path.unlink(missing_ok=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Closes the file, which releases the lock; a journal that holds nothing leaves no file."""
        if not self.records:
            self.delete()
        os.close(self._fd)
