"""The one writer of a store.

Commit of one episode, in this order:

* its files are written and flushed, with all their folders; a kill here leaves an orphan folder, which the next writer removes;
* `manifest.json.tmp` is written and flushed;
* it is renamed to `manifest.json`, and the folder is flushed; a kill here leaves the old or the new manifest, complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from goalward import UserError
from goalward.datasets import durable
from goalward.datasets.arrays import GROUP_JSON
from goalward.datasets.encode import EncodedEpisode, encode_episode
from goalward.datasets.lock import LOCK_NAME, WriterLock
from goalward.datasets.manifest import (
    EPISODES_NAME,
    MANIFEST_NAME,
    SEGMENT_EPISODES,
    SEGMENTS_NAME,
    EpisodeEntry,
    Manifest,
    Segment,
    episode_folder,
    read_manifest,
    segment_bytes,
    segment_path,
)
from goalward.datasets.spec import MAX_EPISODES, Episode, StoreSpec
from goalward.datasets.splits import check_split, split_of

_OWN_NAMES = frozenset({LOCK_NAME, EPISODES_NAME, SEGMENTS_NAME, MANIFEST_NAME, MANIFEST_NAME + ".tmp"})
_EPISODE_FOLDER = re.compile(r"[0-9]{6,7}\Z")


class EpisodeWriter:
    """Adds episodes to a new or an existing store; a context manager.

    An episode is committed, durably, when `append` returns. A failed `append` leaves the store as it was.
    """

    def __init__(self, path: str | Path, spec: StoreSpec) -> None:
        """Opens a store for writing, or makes it.

        Args:
            path: the store's folder.
            spec: what its episodes are; an existing store must have been made with the same.

        Raises:
            UserError: another writer is active, the folder is something else or cannot be written, the store is damaged, or its
                specification differs (the error names the fields).
        """
        self.path = Path(path)
        self._broken = False
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise durable.explain(error, self.path) from None
        foreign = sorted(p.name for p in self.path.iterdir() if p.name not in _OWN_NAMES)
        if foreign and not (self.path / MANIFEST_NAME).exists():
            raise UserError(f"{self.path} holds other files ({', '.join(foreign[:3])}); choose an empty or a new folder")
        self._lock = WriterLock(self.path)
        try:
            self._manifest = self._open(spec)
        except OSError as error:
            self._lock.release()
            raise durable.explain(error, self.path) from None
        except BaseException:
            self._lock.release()
            raise
        self._ids = {entry.id for entry in self._manifest.entries}

    @property
    def ids(self) -> frozenset[int]:
        """Numbers of the committed episodes."""
        return frozenset(self._ids)

    @property
    def spec(self) -> StoreSpec:
        """The store's specification."""
        return self._manifest.spec

    @property
    def num_discarded(self) -> int:
        """Failed attempts over all committed episodes."""
        return sum(entry.discarded for entry in self._manifest.entries)

    def append(self, episode: Episode, *, index: int | None = None, split: str | None = None, discarded: int = 0) -> int:
        """Commits an episode.

        Args:
            episode: obeys the specification.
            index: its number; None takes the next one after the largest.
            split: `train`, `validation` or `test`; None decides by the number.
            discarded: failed attempts before it, for the record.

        Returns:
            Its number.

        Raises:
            UserError: the episode does not fit the store, its number is taken, or it cannot be written. The store is as it was.
        """
        return self.append_encoded(encode_episode(episode, self.spec), index=index, split=split, discarded=discarded)

    def append_encoded(self, encoded: EncodedEpisode, *, index: int | None = None, split: str | None = None, discarded: int = 0) -> int:
        """Commits an episode that `encode_episode` prepared, perhaps in another process; see `append`."""
        if self._broken:
            raise UserError(f"the writer of {self.path} is closed; open a new one")
        number = max(self._ids, default=-1) + 1 if index is None else index
        if not 0 <= number < MAX_EPISODES:
            raise UserError(f"index={number} is out of range 0..{MAX_EPISODES - 1}")
        if number in self._ids:
            raise UserError(f"episode {number} is already in {self.path}; choose another number")
        entry = EpisodeEntry(
            id=number,
            seed=encoded.seed,
            behaviour=encoded.behaviour,
            split=check_split(split_of(number) if split is None else split),
            num_steps=encoded.num_steps,
            discarded=discarded,
            content_sha256=encoded.content_sha256,
            arrays=dict(encoded.arrays),
        )
        folder = episode_folder(self.path, number)
        try:
            manifest = self._sealed()
            durable.remove_tree(folder)  # left by an append that was interrupted
            durable.write_tree(folder, encoded.files)
        except OSError as error:
            with contextlib.suppress(OSError):
                durable.remove_tree(folder)
            raise self._not_stored(number, error) from None
        try:
            manifest = replace(manifest, tail=(*manifest.tail, entry))
            durable.replace_file(self.path / MANIFEST_NAME, manifest.to_bytes())
        except OSError as error:
            # The rename may have happened. Whether the episode counts is for the manifest on the disk to say: touch nothing, start afresh.
            self._broken = True
            raise self._not_stored(number, error) from None
        except BaseException:
            self._broken = True
            raise
        self._manifest = manifest
        self._ids.add(number)
        return number

    def close(self) -> None:
        """Releases the store; everything committed is already on the disk. Harmless when repeated."""
        self._broken = True
        self._lock.release()

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # -- internals ------------------------------------------------------------------------------------------------------------------

    def _open(self, spec: StoreSpec) -> Manifest:
        """The manifest of the store, made if need be; nothing uncommitted is left beside it."""
        episodes = self.path / EPISODES_NAME
        if (self.path / MANIFEST_NAME).exists():
            manifest = read_manifest(self.path)
            differences = manifest.spec.differences(spec)
            if differences:
                shown = "; ".join(differences[:4])
                raise UserError(f"{self.path} was made differently: {shown}; use the same settings, or choose another folder")
        else:
            for folder in (episodes, self.path / SEGMENTS_NAME):
                folder.mkdir(exist_ok=True)
            durable.replace_file(episodes / "zarr.json", GROUP_JSON)
            manifest = Manifest(spec=spec, segments=(), sealed=(), tail=())
            durable.replace_file(self.path / MANIFEST_NAME, manifest.to_bytes())
            durable.flush(self.path.parent)
        committed = {episode_folder(self.path, entry.id).name for entry in manifest.entries}
        for child in episodes.iterdir():
            if _EPISODE_FOLDER.match(child.name) and child.name not in committed:
                durable.remove_tree(child)
        return manifest

    def _sealed(self) -> Manifest:
        """The manifest with its tail moved to a segment, if the tail is full; the segment counts only once a manifest names it."""
        manifest = self._manifest
        if len(manifest.tail) < SEGMENT_EPISODES:
            return manifest
        data = segment_bytes(manifest.tail)
        durable.replace_file(segment_path(self.path, len(manifest.segments)), data)
        segment = Segment(sha256=hashlib.sha256(data).hexdigest(), num_episodes=len(manifest.tail))
        return replace(manifest, segments=(*manifest.segments, segment), sealed=(*manifest.sealed, *manifest.tail), tail=())

    def _not_stored(self, number: int, error: OSError) -> UserError:
        reason = durable.explain(error, self.path)
        return UserError(f"{reason}; episode {number} was not stored, the {len(self._ids)} committed episodes are safe")
