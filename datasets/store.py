"""Reading an episode store. Start here: `open_store(path)`; to write one, `EpisodeWriter(path, spec)`.

Letters in array names: T actions in an episode, V camera views, A action dimensions, P proprioception dimensions.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from goalward import UserError
from goalward.datasets.arrays import ARRAY_NAMES, GROUP_JSON, ArrayLayout, layouts
from goalward.datasets.decode import read_rows
from goalward.datasets.manifest import EPISODES_NAME, EpisodeEntry, content_hash, episode_folder, read_manifest
from goalward.datasets.metadata_check import MAX_METADATA_BYTES, check_array_metadata
from goalward.datasets.spec import Episode, StoreSpec
from goalward.datasets.splits import check_split
from goalward.datasets.strict_json import read_regular
from goalward.datasets.writer import EpisodeWriter

__all__ = ["Episode", "EpisodeStore", "EpisodeWriter", "StoreSpec", "open_store"]


def open_store(path: str | Path) -> EpisodeStore:
    """Opens a store for reading; reads the manifest alone.

    Raises:
        UserError: not a store, damaged, of a newer format, or out of bounds.
    """
    return EpisodeStore(path)


class EpisodeStore:
    """The committed episodes of a store, as they were when it was opened.

    Episodes are named by their number (`id`); numbers may have gaps while a collection is under way. Holds no open files: may be pickled,
    forked, and used from several threads.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        manifest = read_manifest(self.path)
        self.spec: StoreSpec = manifest.spec
        """What every episode obeys."""
        self.entries: dict[int, EpisodeEntry] = {entry.id: entry for entry in manifest.entries}
        """Committed episodes by number, ascending."""
        self.content_hash: str = content_hash(manifest.spec, manifest.entries)
        """Hash of the data, whatever the order of commits and the software."""
        self._checked: set[tuple[int, str]] = set()

    @property
    def num_episodes(self) -> int:
        """Committed episodes."""
        return len(self.entries)

    @property
    def seeds(self) -> dict[int, int]:
        """Episode number -> seed."""
        return {index: entry.seed for index, entry in self.entries.items()}

    def indices(self, split: str | None = None) -> tuple[int, ...]:
        """Numbers of the committed episodes of a split (None: all), ascending."""
        wanted = None if split is None else check_split(split)
        return tuple(index for index, entry in self.entries.items() if wanted in (None, entry.split))

    def num_steps(self, index: int) -> int:
        """T, the number of actions of an episode; it has T + 1 frames."""
        return self._entry(index).num_steps

    def episode(self, index: int) -> Episode:
        """Reads a whole episode."""
        entry = self._entry(index)
        return Episode(
            pixels=self.pixels(index),
            proprio=self.proprio(index),
            actions=self.actions(index),
            seed=entry.seed,
            behaviour=entry.behaviour,
        )

    def iter_episodes(self, split: str | None = None) -> Iterator[tuple[int, Episode]]:
        """All episodes of a split (None: all) with their numbers, one in memory at a time."""
        for index in self.indices(split):
            yield index, self.episode(index)

    def pixels(self, index: int, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Frames `start` to `stop` (None: the last) of an episode, uint8 [stop - start, V, height, width, 3]."""
        return cast(NDArray[np.uint8], self._rows(index, "pixels", start, stop))

    def proprio(self, index: int, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Proprioception at the same moments, float32 [stop - start, P]."""
        return cast(NDArray[np.float32], self._rows(index, "proprio", start, stop))

    def actions(self, index: int, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Actions; action t leads from frame t to frame t + 1, float32 [stop - start, A]."""
        return cast(NDArray[np.float32], self._rows(index, "actions", start, stop))

    def clip(self, index: int, start: int, length: int) -> dict[str, NDArray[Any]]:
        """A clip of `length` frames from frame `start`; decodes only the chunks that hold it.

        Returns:
            `pixels` uint8 [length, V, height, width, 3], `proprio` float32 [length, P] and `actions` float32 [length - 1, A].
        """
        if length < 1:
            raise UserError(f"length={length} must be at least 1 frame")
        return {
            "pixels": self.pixels(index, start, start + length),
            "proprio": self.proprio(index, start, start + length),
            "actions": self.actions(index, start, start + length - 1),
        }

    def verify(self, index: int) -> None:
        """Reads every byte of an episode and compares it with the manifest.

        Raises:
            UserError: damaged; names the episode and the file.
        """
        entry, folder = self._entry(index), episode_folder(self.path, index)
        self._checked -= {(index, name) for name in ARRAY_NAMES}
        with _naming(index):
            for name, layout in layouts(self.spec, entry.num_steps).items():
                self._check_metadata(index, name, layout)
                path, record = folder / name / layout.data_key, entry.arrays[name]
                if hashlib.sha256(read_regular(path, record.data_bytes)).hexdigest() != record.data_sha256:
                    raise UserError(f"{path}: damaged: its checksum is wrong")
            if self.episode(index).content_sha256() != entry.content_sha256:
                raise UserError(f"{folder}: damaged: the decoded data is not what was recorded")
            if read_regular(folder / "zarr.json", MAX_METADATA_BYTES) != GROUP_JSON:
                raise UserError(f"{folder / 'zarr.json'}: damaged")

    def damage(self) -> Iterator[tuple[int, str | None]]:
        """Verifies every episode; yields its number and None, or what is wrong with it. Number -1 stands for the store itself."""
        path = self.path / EPISODES_NAME / "zarr.json"
        try:
            damaged = read_regular(path, MAX_METADATA_BYTES) != GROUP_JSON
        except UserError:
            damaged = True
        if damaged:
            yield -1, f"{path}: damaged"
        for index in self.entries:
            try:
                self.verify(index)
                yield index, None
            except UserError as error:
                yield index, str(error)

    def bytes_on_disk(self) -> dict[str, int]:
        """Array name -> bytes of its data files."""
        return {name: sum(entry.arrays[name].data_bytes for entry in self.entries.values()) for name in ARRAY_NAMES}

    # -- internals ------------------------------------------------------------------------------------------------------------------

    def _entry(self, index: int) -> EpisodeEntry:
        try:
            return self.entries[index]
        except KeyError:
            raise UserError(f"episode {index} is not in {self.path} ({self.num_episodes} episodes)") from None

    def _rows(self, index: int, name: str, start: int, stop: int | None) -> NDArray[np.generic]:
        entry = self._entry(index)
        layout = layouts(self.spec, entry.num_steps)[name]
        rows = layout.shape[0]
        stop = rows if stop is None else stop
        if not 0 <= start <= stop <= rows:
            raise UserError(f"episode {index}: {name} {start}..{stop} is out of range 0..{rows}")
        if start == stop:
            return np.empty((0, *layout.shape[1:]), layout.dtype)
        with _naming(index):
            self._check_metadata(index, name, layout)
            path = episode_folder(self.path, index) / name / layout.data_key
            return read_rows(path, layout, entry.arrays[name].data_bytes, start, stop)

    def _check_metadata(self, index: int, name: str, layout: ArrayLayout) -> None:
        if (index, name) in self._checked:
            return
        path = episode_folder(self.path, index) / name / "zarr.json"
        raw = read_regular(path, MAX_METADATA_BYTES)
        check_array_metadata(raw, layout, str(path))
        if hashlib.sha256(raw).hexdigest() != self.entries[index].arrays[name].meta_sha256:
            raise UserError(f"{path}: damaged: its checksum is wrong")
        self._checked.add((index, name))


@contextlib.contextmanager
def _naming(index: int) -> Iterator[None]:
    """Puts the episode in front of an error about its files, once."""
    prefix = f"episode {index}: "
    try:
        yield
    except UserError as error:
        raise UserError(prefix + str(error).removeprefix(prefix)) from None
