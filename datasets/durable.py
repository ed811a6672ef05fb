"""Writes that survive a crash: a file is on the disk when the call returns, and a replaced file is either the old or the new one."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from goalward import UserError

_FLUSH_THREADS = 12
_REASONS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied; choose a folder you may write to",
    errno.EPERM: "permission denied; choose a folder you may write to",
}


def explain(error: OSError, path: Path) -> UserError:
    """A one-line error for a failed read or write, with the fix."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return UserError(f"{path}: {reason}")


def write_file(path: Path, data: bytes) -> None:
    """Writes a file and flushes it to the disk; its folder's entry is flushed by `replace_file`, `write_tree` or `flush(folder)`."""
    write_unflushed(path, data)
    flush(path)


def write_unflushed(path: Path, data: bytes) -> None:
    """Writes a file; it is safe only after `flush`."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        view = memoryview(data)
        while view:  # a write may be short, e.g. just before the disk is full
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


def flush(path: Path) -> None:
    """Flushes a file's content, or a folder's entries (a file that was just made in it is found after a power loss), to the disk."""
    folder = path.is_dir()
    if folder and os.name == "nt":  # Windows has no handle for this
        return
    fd = os.open(path, os.O_RDONLY if folder or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(fd)
    except OSError as error:
        if not folder or error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot flush folders, and need not
            raise
    finally:
        os.close(fd)


def flush_all(paths: Iterable[Path]) -> None:
    """Flushes many at once: side by side they share the disk's waits (on ext4: 12 flushes in 5 ms, one by one in 41 ms)."""
    with ThreadPoolExecutor(_FLUSH_THREADS) as pool:
        list(pool.map(flush, paths))


def replace_file(path: Path, data: bytes) -> None:
    """Replaces a file atomically: after a crash it has the old or the new content, complete."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        write_file(temporary, data)
        rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def rename(source: Path, target: Path) -> None:
    """Atomic rename within a folder."""
    os.replace(source, target)


def write_tree(folder: Path, files: Mapping[str, bytes]) -> None:
    """Makes a new folder with files (paths of at most one sub-folder) and flushes all of it, the parent's entry included."""
    children = sorted({name.rpartition("/")[0] for name in files} - {""})
    make_folders(folder, children)
    for name, data in files.items():
        write_unflushed(folder / name, data)
    flush_all([*(folder / name for name in files), *(folder / child for child in children), folder, folder.parent])


def make_folders(folder: Path, children: Iterable[str]) -> None:
    """Makes a folder that must not exist yet, and sub-folders in it."""
    folder.mkdir()
    for child in children:
        (folder / child).mkdir()


def remove_tree(folder: Path) -> None:
    """Removes a folder and what is in it; a link is removed, not followed."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
