"""How an episode's arrays are laid out in Zarr v3; the one description that encoder, decoder and metadata check share.

Letters in array names: T actions in an episode, V camera views, A action dimensions, P proprioception dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from goalward.datasets.spec import StoreSpec

ZSTD_LEVEL = 3  # on rendered 128 px frames: twice as small as level -1 for frames alone, as quick to read, encoding is not the bottleneck
ARRAY_NAMES = ("pixels", "proprio", "actions")
GROUP_JSON = b'{"attributes":{},"zarr_format":3,"node_type":"group"}'


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """Shape and chunking of one stored array."""

    name: str
    """`pixels`, `proprio` or `actions`."""
    dtype: Literal["uint8", "float32"]
    """Data type, little endian on disk."""
    shape: tuple[int, ...]
    """Shape of the array."""
    chunk: tuple[int, ...]
    """Shape of what is compressed together."""
    shard: tuple[int, ...] | None
    """Shape of what is one file; None when the array is a single chunk."""
    dimension_names: tuple[str, ...]
    """Names of the axes, for readers of the plain Zarr group."""

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return 1 if self.dtype == "uint8" else 4

    @property
    def chunk_bytes(self) -> int:
        """Decoded bytes of one chunk."""
        return math.prod(self.chunk) * self.itemsize

    @property
    def num_chunks(self) -> int:
        """Chunks of the array; all lie along the first axis."""
        return -(-self.shape[0] // self.chunk[0])

    @property
    def data_key(self) -> str:
        """Name of the one file with the array's data (Zarr's default key encoding with dots)."""
        return "c." + ".".join(["0"] * len(self.shape))


def layouts(spec: StoreSpec, num_steps: int) -> dict[str, ArrayLayout]:
    """The layouts of an episode of T = `num_steps` actions, by array name."""
    frames = num_steps + 1
    chunk = min(spec.frames_per_chunk, frames)
    padded = -(-frames // chunk) * chunk  # a shard holds a whole number of chunks
    pixel_axes = ("time", "view", "row", "column", "channel")
    num_proprio, num_actions = len(spec.proprio_names), len(spec.action_names)
    return {
        "pixels": ArrayLayout(
            "pixels", "uint8", (frames, *spec.frame_shape), (chunk, *spec.frame_shape), (padded, *spec.frame_shape), pixel_axes
        ),
        "proprio": ArrayLayout("proprio", "float32", (frames, num_proprio), (frames, num_proprio), None, ("time", "proprio")),
        "actions": ArrayLayout("actions", "float32", (num_steps, num_actions), (num_steps, num_actions), None, ("time", "action")),
    }
