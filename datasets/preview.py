"""Pictures of what a store holds: a contact sheet, or a video of several episodes side by side.

Letters in array names: V camera views.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goalward import UserError
from goalward.datasets.durable import explain
from goalward.datasets.store import EpisodeStore

SUFFIXES = (".png", ".mp4", ".gif")
_GAP_PX = 2
_BACKGROUND = 24  # dark grey between pictures


def choose_episodes(store: EpisodeStore, count: int, split: str | None = None) -> tuple[int, ...]:
    """Episodes spread evenly over a split, at most `count`.

    Raises:
        UserError: the split is empty.
    """
    indices = store.indices(split)
    if not indices:
        raise UserError(f"{store.path} has no episodes{'' if split is None else f' in split {split}'}; collect some first")
    picks = np.unique(np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int))
    return tuple(indices[p] for p in picks)


def contact_sheet(store: EpisodeStore, episodes: Sequence[int], columns: int) -> NDArray[np.uint8]:
    """One row an episode and camera, one column a moment, from the first frame to the last.

    Returns:
        uint8 [height, width, 3].
    """
    rows: list[list[NDArray[np.uint8]]] = []
    for index in episodes:
        frames = np.linspace(0, store.num_steps(index), columns).round().astype(int)
        moments = [store.pixels(index, int(frame), int(frame) + 1)[0] for frame in frames]
        rows += [[moment[view] for moment in moments] for view in range(len(store.spec.cameras))]
    return _grid(rows)


def video_frames(store: EpisodeStore, episodes: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    """Episodes side by side, cameras below one another; a short episode holds its last frame.

    Yields:
        uint8 [height, width, 3], one for every moment.
    """
    pixels = [store.pixels(index) for index in episodes]
    for moment in range(max(map(len, pixels))):
        now = [frames[min(moment, len(frames) - 1)] for frames in pixels]
        yield _grid([[views[view] for views in now] for view in range(len(store.spec.cameras))])


def write_preview(store: EpisodeStore, out: Path, *, count: int, columns: int = 8, split: str | None = None) -> tuple[int, ...]:
    """Writes a contact sheet (`.png`) or a video (`.mp4`, `.gif`).

    Returns:
        The episodes shown.

    Raises:
        UserError: another suffix, an empty split, or a folder that cannot be written.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"out={out} must end in one of {', '.join(SUFFIXES)}")
    for name, value, high in (("episodes", count, 64), ("columns", columns, 64)):
        if not 1 <= value <= high:
            raise UserError(f"{name}={value} is out of range 1..{high}")
    episodes = choose_episodes(store, count, split)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix.lower() == ".png":
            _write_png(out, contact_sheet(store, episodes, columns))
        else:
            _write_video(out, video_frames(store, episodes), fps=1 / store.spec.dt_s)
    except OSError as error:
        raise explain(error, out) from None
    return episodes


def _grid(rows: Sequence[Sequence[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Pictures [h, w, 3] of one size in a grid with gaps; the result's sides are even, as video codecs ask."""
    height, width, _ = rows[0][0].shape
    num_rows, num_columns = len(rows), len(rows[0])
    sides = [_GAP_PX + num_rows * (height + _GAP_PX), _GAP_PX + num_columns * (width + _GAP_PX)]
    canvas = np.full((*(side + side % 2 for side in sides), 3), _BACKGROUND, dtype=np.uint8)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            top, left = _GAP_PX + r * (height + _GAP_PX), _GAP_PX + c * (width + _GAP_PX)
            canvas[top : top + height, left : left + width] = picture
    return canvas


def _write_png(out: Path, picture: NDArray[np.uint8]) -> None:
    from PIL import Image

    Image.fromarray(picture).save(out)


def _write_video(out: Path, frames: Iterator[NDArray[np.uint8]], *, fps: float) -> None:
    import imageio.v2 as imageio

    if out.suffix.lower() == ".gif":
        imageio.mimsave(out, list(frames), duration=1000 / fps, loop=0)
        return
    options: dict[str, Any] = {"fps": fps, "codec": "libx264", "pixelformat": "yuv420p", "macro_block_size": 2, "quality": 8}
    writer: Any
    with imageio.get_writer(out, **options) as writer:
        for frame in frames:
            writer.append_data(frame)
