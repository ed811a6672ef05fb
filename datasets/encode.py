"""An episode to the bytes of its files, through zarr: the reference implementation decides the format."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from goalward.datasets.arrays import GROUP_JSON, ZSTD_LEVEL, ArrayLayout, layouts
from goalward.datasets.spec import Episode, StoreSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayRecord:
    """What the manifest knows about the two files of a stored array."""

    meta_sha256: str
    """Hash of its `zarr.json`."""
    data_sha256: str
    """Hash of its data file."""
    data_bytes: int
    """Size of its data file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedEpisode:
    """An episode ready to be written; workers make it, the one writer stores it."""

    files: Mapping[str, bytes]
    """Path inside the episode's folder -> content."""
    arrays: Mapping[str, ArrayRecord]
    """Array name -> its record for the manifest."""
    num_steps: int
    """T, the number of actions."""
    seed: int
    """Seed of the episode."""
    behaviour: str
    """Behaviour that acted."""
    content_sha256: str
    """`Episode.content_sha256`."""


def encode_episode(episode: Episode, spec: StoreSpec) -> EncodedEpisode:
    """Compresses an episode.

    Raises:
        UserError: the episode does not obey the specification.
    """
    episode.check(spec)
    files: dict[str, bytes] = {"zarr.json": GROUP_JSON}
    records: dict[str, ArrayRecord] = {}
    for name, layout in layouts(spec, episode.num_steps).items():
        meta, data = encode_array(getattr(episode, name), layout)
        files[f"{name}/zarr.json"], files[f"{name}/{layout.data_key}"] = meta, data
        records[name] = ArrayRecord(
            meta_sha256=hashlib.sha256(meta).hexdigest(), data_sha256=hashlib.sha256(data).hexdigest(), data_bytes=len(data)
        )
    return EncodedEpisode(
        files=files,
        arrays=records,
        num_steps=episode.num_steps,
        seed=episode.seed,
        behaviour=episode.behaviour,
        content_sha256=episode.content_sha256(),
    )


def encode_array(array: NDArray[np.generic], layout: ArrayLayout) -> tuple[bytes, bytes]:
    """Encodes one array.

    Returns:
        The bytes of its `zarr.json` and of its data file.
    """
    import zarr  # not needed for reading, and slow to import
    from zarr.codecs import ZstdCodec
    from zarr.core.buffer import Buffer
    from zarr.storage import MemoryStore

    files: dict[str, Buffer] = {}
    stored = zarr.create_array(
        MemoryStore(files),
        name=layout.name,
        shape=layout.shape,
        dtype=layout.dtype,
        chunks=layout.chunk,
        shards=layout.shard,
        compressors=ZstdCodec(level=ZSTD_LEVEL, checksum=True),
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=layout.dimension_names,
        fill_value=0,
        config={"write_empty_chunks": True},  # a chunk that is not there is damage, never "all zero"
    )
    stored[...] = array
    return files[f"{layout.name}/zarr.json"].to_bytes(), files[f"{layout.name}/{layout.data_key}"].to_bytes()
