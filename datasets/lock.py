"""One writer per store: an advisory lock that the system releases when its holder dies, however it dies."""

from __future__ import annotations

import os
from pathlib import Path

from goalward import UserError
from goalward.datasets.durable import explain

LOCK_NAME = ".lock"


class WriterLock:
    """Exclusive `flock` on the store's lock file; held from construction to `release`.

    The file stays when the lock is released: removing it would let two writers lock two different files of one name.
    `flock` (unlike `lockf`) also excludes a second writer in the same process. The descriptor is not inherited by new programs, so that
    worker processes which outlive a killed writer do not keep the store locked.
    """

    def __init__(self, folder: Path) -> None:
        """Takes the lock.

        Args:
            folder: the store's folder; must exist.

        Raises:
            UserError: another writer holds it, or the folder cannot be written.
        """
        import fcntl  # POSIX only; reading a store must work without it

        path = folder / LOCK_NAME
        try:
            self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise explain(error, path) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._fd, 64, 0).decode(errors="replace").strip()
            self.release()
            who = f" (process {holder})" if holder.isdecimal() else ""
            raise UserError(f"{folder} is being written by another process{who}; wait for it to end, or choose another folder") from None
        try:  # only a courtesy for the message above; a full disk must not matter here
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            pass

    def release(self) -> None:
        """Gives the lock back; harmless when repeated."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
