"""The commit record: what is not in the manifest does not exist.

`manifest.json` holds the specification, the entries of the last episodes, and the hashes of sealed segments with the entries before them.
It is replaced atomically at every commit, and stays small: a commit writes a few dozen kilobytes however large the store is. It names no
paths; folders follow from episode numbers.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goalward import UserError
from goalward.datasets.arrays import ARRAY_NAMES
from goalward.datasets.encode import ArrayRecord
from goalward.datasets.spec import MAX_EPISODE_BYTES, MAX_EPISODES, MAX_SEED, MAX_STEPS, MAX_TEXT, StoreSpec
from goalward.datasets.splits import SPLITS
from goalward.datasets.strict_json import canonical, parse, read_regular

FORMAT = "goalward-episodes"
FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
SEGMENTS_NAME = "segments"
EPISODES_NAME = "episodes"
SEGMENT_EPISODES = 128
MAX_MANIFEST_BYTES = 64 * 2**20
MAX_SEGMENT_BYTES = 2**20

_HASH = re.compile(r"[0-9a-f]{64}\Z")
_FIELDS = frozenset({"id", "seed", "behaviour", "split", "num_steps", "discarded", "content_sha256", "arrays"})


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeEntry:
    """One committed episode."""

    id: int
    """Number of the episode; names its folder."""
    seed: int
    """Seed of its reset and behaviour."""
    behaviour: str
    """Behaviour that acted."""
    split: str
    """`train`, `validation` or `test`."""
    num_steps: int
    """T, the number of actions."""
    discarded: int
    """Failed attempts (another seed each) before this one."""
    content_sha256: str
    """Hash of the uncompressed data."""
    arrays: dict[str, ArrayRecord]
    """What the files must be."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "id": self.id,
            "seed": self.seed,
            "behaviour": self.behaviour,
            "split": self.split,
            "num_steps": self.num_steps,
            "discarded": self.discarded,
            "content_sha256": self.content_sha256,
            "arrays": {name: [r.data_bytes, r.data_sha256, r.meta_sha256] for name, r in self.arrays.items()},
        }

    @classmethod
    def from_json(cls, data: Any, source: Path) -> EpisodeEntry:
        """Reads one entry of a manifest that nobody vouches for.

        Raises:
            UserError: any field is missing, unknown, of another type or out of range.
        """
        if not isinstance(data, dict) or data.keys() != _FIELDS:
            raise UserError(f"{source}: an episode's entry must have the fields {sorted(_FIELDS)}")
        limits = {"id": MAX_EPISODES - 1, "seed": MAX_SEED, "num_steps": MAX_STEPS, "discarded": MAX_EPISODES}
        for name, limit in limits.items():
            low = 1 if name == "num_steps" else 0
            if type(data[name]) is not int or not low <= data[name] <= limit:
                raise UserError(f"{source}: {name}={str(data[name])[:60]!r} of an episode is out of range {low}..{limit}")
        if data["split"] not in SPLITS:
            raise UserError(f"{source}: episode {data['id']}: split={data['split']!r} is not one of {', '.join(SPLITS)}")
        behaviour = data["behaviour"]
        if not isinstance(behaviour, str) or not 1 <= len(behaviour) <= MAX_TEXT or not behaviour.isprintable():
            raise UserError(f"{source}: episode {data['id']}: behaviour must be a text of 1..{MAX_TEXT} printable characters")
        arrays = data["arrays"]
        if not isinstance(arrays, dict) or arrays.keys() != set(ARRAY_NAMES):
            raise UserError(f"{source}: episode {data['id']}: arrays must be {', '.join(ARRAY_NAMES)}")
        hashes = [data["content_sha256"]]
        records = {}
        for name in ARRAY_NAMES:
            record = arrays[name]
            if not isinstance(record, list) or len(record) != 3 or type(record[0]) is not int or not 0 < record[0] <= MAX_EPISODE_BYTES:
                raise UserError(f"{source}: episode {data['id']}: the record of {name} must be [bytes, hash, hash]")
            hashes += record[1:]
            records[name] = ArrayRecord(data_bytes=record[0], data_sha256=record[1], meta_sha256=record[2])
        if not all(isinstance(h, str) and _HASH.match(h) for h in hashes):
            raise UserError(f"{source}: episode {data['id']}: a hash is not 64 hexadecimal digits")
        return cls(**{**data, "arrays": records})


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A sealed part of the manifest: file number = position in the list."""

    sha256: str
    """Hash of the file."""
    num_episodes: int
    """Entries in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Everything that is committed."""

    spec: StoreSpec
    """What every episode obeys."""
    segments: tuple[Segment, ...]
    """Sealed parts, oldest first."""
    sealed: tuple[EpisodeEntry, ...]
    """The entries of all segments, in the order of their commits."""
    tail: tuple[EpisodeEntry, ...]
    """Entries since the last seal."""

    @property
    def entries(self) -> tuple[EpisodeEntry, ...]:
        """All committed episodes, by number."""
        return tuple(sorted((*self.sealed, *self.tail), key=lambda entry: entry.id))

    def to_bytes(self) -> bytes:
        """Content of `manifest.json`, with a hash of itself."""
        body = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "spec": self.spec.to_json(),
            "segments": [[segment.sha256, segment.num_episodes] for segment in self.segments],
            "episodes": [entry.to_json() for entry in self.tail],
        }
        return canonical({**body, "sha256": hashlib.sha256(canonical(body)).hexdigest()})


def content_hash(spec: StoreSpec, entries: Iterable[EpisodeEntry]) -> str:
    """Hash of the data: specification (without software versions), and per episode number, split, steps and content; in order of number."""
    rows = [[e.id, e.seed, e.behaviour, e.split, e.num_steps, e.content_sha256] for e in sorted(entries, key=lambda e: e.id)]
    return hashlib.sha256(canonical([spec.identity(), rows])).hexdigest()


def segment_path(folder: Path, number: int) -> Path:
    """File of a segment."""
    return folder / SEGMENTS_NAME / f"{number:06d}.json"


def episode_folder(folder: Path, index: int) -> Path:
    """Folder of an episode."""
    return folder / EPISODES_NAME / f"{index:06d}"


def segment_bytes(entries: Iterable[EpisodeEntry]) -> bytes:
    """Content of a segment's file."""
    return canonical([entry.to_json() for entry in entries])


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks a store's manifest.

    Raises:
        UserError: not a store, written by a newer version, damaged, or out of bounds.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise UserError(f"{folder} is not an episode store (it has no {MANIFEST_NAME}); make one with: goalward collect --out {folder}")
    data = parse(read_regular(path, MAX_MANIFEST_BYTES), path)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UserError(f"{path}: not the manifest of an episode store")
    if data.get("version") != FORMAT_VERSION:
        raise UserError(f"{path}: format version {data.get('version')!r}; this Goalward reads {FORMAT_VERSION}: install a matching version")
    if data.keys() != {"format", "version", "spec", "segments", "episodes", "sha256"}:
        raise UserError(f"{path}: damaged: unexpected fields")
    body = {key: value for key, value in data.items() if key != "sha256"}
    if hashlib.sha256(canonical(body)).hexdigest() != data["sha256"]:
        raise UserError(f"{path}: damaged: its checksum is wrong")
    spec = _named(StoreSpec.from_json, data["spec"], path)
    if not isinstance(data["segments"], list) or not isinstance(data["episodes"], list):
        raise UserError(f"{path}: damaged: segments and episodes must be lists")
    if len(data["segments"]) > MAX_EPISODES // SEGMENT_EPISODES:
        raise UserError(f"{path}: {len(data['segments'])} segments; at most {MAX_EPISODES // SEGMENT_EPISODES} are allowed")
    segments, sealed = [], []
    for number, row in enumerate(data["segments"]):
        if not isinstance(row, list) or len(row) != 2 or not isinstance(row[0], str) or type(row[1]) is not int:
            raise UserError(f"{path}: damaged: a segment must be [hash, count]")
        segment = Segment(sha256=row[0], num_episodes=row[1])
        sealed += _read_segment(segment_path(folder, number), segment)
        segments.append(segment)
    tail = [EpisodeEntry.from_json(entry, path) for entry in data["episodes"]]
    manifest = Manifest(spec=spec, segments=tuple(segments), sealed=tuple(sealed), tail=tuple(tail))
    entries = manifest.entries
    frame_bytes = math.prod(spec.frame_shape)
    longest = max((entry.num_steps for entry in entries), default=0)
    if (longest + 1) * frame_bytes > MAX_EPISODE_BYTES:
        raise UserError(f"{path}: an episode of {longest} steps of {frame_bytes} bytes; at most {MAX_EPISODE_BYTES} bytes are allowed")
    for before, after in itertools.pairwise(entries):
        if before.id == after.id:
            raise UserError(f"{path}: damaged: episode {after.id} is listed twice")
    return manifest


def _read_segment(path: Path, segment: Segment) -> list[EpisodeEntry]:
    raw = read_regular(path, MAX_SEGMENT_BYTES)
    if hashlib.sha256(raw).hexdigest() != segment.sha256:
        raise UserError(f"{path}: damaged: its checksum is wrong")
    rows = parse(raw, path)
    if not isinstance(rows, list) or len(rows) != segment.num_episodes:
        raise UserError(f"{path}: damaged: it must list {segment.num_episodes} episodes")
    return [EpisodeEntry.from_json(row, path) for row in rows]


def _named(read: Any, data: Any, path: Path) -> Any:
    try:
        return read(data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
