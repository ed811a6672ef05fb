"""Random clips of video held in memory: what the encoder is pretrained on.

Pixels only: no action, reward or state is ever read.

Letters: C clips, L frames per clip, F frames in memory, h = w image side in pixels.

Every camera of every episode is one run of consecutive frames. All runs of one store lie end to end in one uint8
array [F,h,w,3], so
that a batch is one gather. Stores are mixed by sampling weight, not by size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from goalward import UserError


class VideoStore(Protocol):
    """What is needed of an episode store (`goalward.datasets.store.EpisodeStore`)."""

    @property
    def content_hash(self) -> str:
        """Identity of the data."""

    def indices(self, split: str) -> Sequence[int]:
        """Episodes of a split."""

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """All frames of an episode, [T+1,V,h,w,3]."""


@dataclass(frozen=True, slots=True)
class ClipPool:
    """The video of one store, in memory."""

    frames_Fhw3: NDArray[np.uint8]
    """Runs of consecutive frames, end to end."""
    run_lengths: NDArray[np.int64]
    """Frames of each run, in order; they sum to F."""
    weight: float
    """Relative probability that a clip comes from here."""

    def starts(self, length: int) -> NDArray[np.int64]:
        """Lists every index at which `length` consecutive frames of one run begin."""
        ends = np.cumsum(self.run_lengths)
        return np.concatenate(
            [np.arange(end - run, end - length + 1) for run, end in zip(self.run_lengths, ends, strict=True)] or [np.empty(0)]
        ).astype(np.int64)


def load_pool(
    store: VideoStore, *, split: str, image_size_px: int, weight: float = 1.0, max_frames: int = 200_000, seed: int = 0
) -> ClipPool:
    """Reads the pixels of a split into memory.

    Args:
        store: Episode store.
        split: `train`, `validation` or `test`.
        image_size_px: Side that the encoder takes.
        weight: Sampling weight of the store.
        max_frames: Bound on the frames kept, all cameras together; whole episodes are taken in random order until the
            next would pass it.
        seed: Of that order.

    Raises:
        UserError: The split is empty, frames have another size or dtype, the bound is below one episode, or the
            weight is not positive.
    """
    if not (np.isfinite(weight) and weight > 0):
        raise UserError(f"weight = {weight}: must be above 0; leave the store out to give it none")
    order = np.random.default_rng(seed).permutation(np.asarray(list(store.indices(split)), dtype=np.int64))
    if not len(order):
        raise UserError(f"data has no episode in its {split} split; collect more episodes")
    runs: list[NDArray[np.uint8]] = []
    count = 0
    for index in order:
        pixels = np.asarray(store.pixels(int(index)))
        size = image_size_px
        if pixels.dtype != np.uint8 or pixels.ndim != 5 or pixels.shape[2:] != (size, size, 3):
            raise UserError(
                f"episode {index} has pixels {pixels.dtype} {list(pixels.shape)}: the encoder takes uint8 "
                f"[T+1, V, {size}, {size}, 3]; "
                f"collect with image_size_px={size} or pretrain an encoder of that size"
            )
        if count + pixels.shape[0] * pixels.shape[1] > max_frames:
            break
        count += pixels.shape[0] * pixels.shape[1]
        runs.extend(np.ascontiguousarray(pixels[:, view]) for view in range(pixels.shape[1]))
    if not runs:
        raise UserError(f"max_frames = {max_frames}: below the length of one episode; raise it")
    return pool_of(runs, weight=weight)


def pool_of(runs: Sequence[NDArray[np.uint8]], *, weight: float = 1.0) -> ClipPool:
    """Packs runs of consecutive frames, each uint8 [L,h,w,3], into a pool."""
    lengths = np.array([len(run) for run in runs], dtype=np.int64)
    frames_Fhw3 = np.empty((int(lengths.sum()), *runs[0].shape[1:]), dtype=np.uint8)
    for run, end in zip(runs, np.cumsum(lengths), strict=True):
        frames_Fhw3[end - len(run) : end] = run
    return ClipPool(frames_Fhw3=frames_Fhw3, run_lengths=lengths, weight=weight)


class ClipSampler:
    """Draws batches of clips from several pools."""

    def __init__(self, pools: Sequence[ClipPool], *, clip_frames: int) -> None:
        """Indexes the pools.

        Args:
            pools: One per store; all of one frame size.
            clip_frames: Frames L of each clip.

        Raises:
            UserError: No pool, or no run of a pool is as long as a clip.
        """
        if not pools:
            raise UserError("data is empty; name at least one episode store")
        self._pools = tuple(pools)
        self._clip_frames = clip_frames
        self._starts = [pool.starts(clip_frames) for pool in pools]
        for number, starts in enumerate(self._starts):
            if not len(starts):
                raise UserError(f"clip_frames = {clip_frames}: longer than every episode of data store {number + 1}; lower it")
        # Runs too short for a clip have no start and are never drawn.
        counts = [np.maximum(0, pool.run_lengths - clip_frames + 1) for pool in pools]
        self._counts = [np.repeat(count, count) for count in counts]
        self._firsts = [np.repeat(np.cumsum(count) - count, count) for count in counts]
        weights = np.array([pool.weight for pool in pools], dtype=np.float64)
        self._probabilities = weights / weights.sum()

    @property
    def num_frames(self) -> int:
        """Frames in memory, all pools together."""
        return sum(len(pool.frames_Fhw3) for pool in self._pools)

    def sample(self, count: int, rng: np.random.Generator, *, pairs: bool = False) -> NDArray[np.uint8]:
        """Draws clips.

        Args:
            count: Number of clips C.
            rng: Decides the store of each clip, then its start, uniformly.
            pairs: Take clips 2i and 2i + 1 from one run, each at a moment of its own; C must be even.

        Returns:
            uint8 [C, L, h, w, 3].

        Raises:
            UserError: An odd number of clips in pairs.
        """
        if pairs and count % 2:
            raise UserError(f"batch_clips = {count}: must be even where clips come in pairs; use {count + 1}")
        clips = np.empty((count, self._clip_frames, *self._pools[0].frames_Fhw3.shape[1:]), dtype=np.uint8)
        step = 2 if pairs else 1
        chosen = rng.choice(len(self._pools), size=count // step, p=self._probabilities)
        for row, number in enumerate(chosen):
            picked = rng.integers(len(self._starts[number]))
            for other in range(step):
                if other:  # the same run again
                    picked = self._firsts[number][picked] + rng.integers(self._counts[number][picked])
                start = int(self._starts[number][picked])
                clips[step * row + other] = self._pools[number].frames_Fhw3[start : start + self._clip_frames]
        return clips
