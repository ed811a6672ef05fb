"""Pictures and videos as data URIs: JPEG by Pillow, H.264 MP4 by ffmpeg, both small.

Letters in array names: T frames in time, V camera views.
"""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]

_INK, _PAPER, _MUTED, _ACCENT = (238, 241, 245), (15, 18, 23), (150, 160, 172), (72, 199, 174)


class VideoUnavailable(RuntimeError):
    """No video can be encoded here; the message says why."""


def jpeg_uri(picture: Picture, *, quality: int = 82) -> str:
    """A picture uint8 [h, w, 3] as a JPEG data URI."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def video_frames(
    live_TVhw3: Picture,
    goal_Vhw3: Picture,
    *,
    distances_m: Sequence[float | None],
    cameras: Sequence[str],
    scene_Thw3: Picture | None = None,
    tile_px: int = 192,
    status: str = "",
) -> Iterator[Picture]:
    """Composes the frames of an episode's video: optionally a large scene, then a row a camera with the goal beside the live view.

    Args:
        live_TVhw3: frames of the episode.
        goal_Vhw3: goal image.
        distances_m: true distance at every frame, shown in the caption.
        cameras: names of the views.
        scene_Thw3: large square pictures from outside.
        tile_px: edge of one view in the video.
        status: outcome, shown on the last frame.

    Yields:
        uint8 [height, width, 3] with even edges.
    """
    num_frames, num_views = live_TVhw3.shape[:2]
    bar, labels, foot, gap = 26, 18, 4, 4  # the caption is on top: browsers draw their controls over the bottom
    head = bar + labels
    body = num_views * tile_px + (num_views - 1) * gap
    scene_px = 0 if scene_Thw3 is None else body
    width = scene_px + (gap if scene_px else 0) + 2 * tile_px + gap
    height = head + body + foot
    width, height = width + width % 2, height + height % 2
    small, caption = ImageFont.load_default(12), ImageFont.load_default(15)
    goals = [_tile(goal_Vhw3[v], tile_px) for v in range(num_views)]
    left = scene_px + (gap if scene_px else 0)
    for t in range(num_frames):
        canvas = Image.new("RGB", (width, height), _PAPER)
        draw = ImageDraw.Draw(canvas)
        draw.text((left + 4, bar), "GOAL", font=small, fill=_ACCENT)
        draw.text((left + tile_px + gap + 4, bar), "LIVE", font=small, fill=_INK)
        if scene_Thw3 is not None:
            canvas.paste(_tile(scene_Thw3[t], scene_px), (0, head))
            draw.text((4, bar), "SCENE", font=small, fill=_MUTED)
        for v in range(num_views):
            top = head + v * (tile_px + gap)
            canvas.paste(goals[v], (left, top))
            canvas.paste(_tile(live_TVhw3[t, v], tile_px), (left + tile_px + gap, top))
            draw.text((left + 5, top + tile_px - 17), cameras[v], font=small, fill=_INK, stroke_width=1, stroke_fill=_PAPER)
        distance = distances_m[t]
        text = f"step {t:2d}    " + ("distance unknown" if distance is None else f"{100 * distance:5.1f} cm to goal")
        draw.text((5, 4), text, font=caption, fill=_INK)
        if t == num_frames - 1 and status:
            draw.text((width - 6, 4), status, font=caption, fill=_ACCENT, anchor="ra")
        done = round((width - 1) * t / max(1, num_frames - 1))
        draw.rectangle((0, height - 3, done, height), fill=_ACCENT)
        yield np.asarray(canvas)


def _tile(picture: Picture, edge_px: int) -> Image.Image:
    return Image.fromarray(picture).resize((edge_px, edge_px), Image.Resampling.LANCZOS)


def mp4_uri(frames: Iterator[Picture], *, fps: float, hold_last_s: float = 1.0) -> str:
    """Encodes a video as an MP4 data URI: H.264 with 4:2:0 chroma and the index in front, which every browser plays.

    Args:
        frames: uint8 [height, width, 3], even edges, at least one.
        fps: frames per second; the robot's control rate shows the episode in real time.
        hold_last_s: how long the last frame stays.

    Raises:
        VideoUnavailable: ffmpeg is missing or fails.
        ValueError: no frame.
    """
    first = next(frames, None)
    if first is None:
        raise ValueError("a video needs at least one frame")
    height, width = first.shape[:2]
    try:
        import imageio_ffmpeg

        with tempfile.TemporaryDirectory(prefix="goalward-") as folder:
            path = Path(folder) / "episode.mp4"
            # Every fourth frame a key frame: pages scrub these videos by dragging over a curve.
            options = ["-crf", "25", "-preset", "veryfast", "-g", "4", "-threads", "1", "-movflags", "+faststart", "-map_metadata", "-1"]
            writer = imageio_ffmpeg.write_frames(
                str(path), (width, height), fps=fps, codec="libx264", pix_fmt_in="rgb24", pix_fmt_out="yuv420p", quality=None,
                macro_block_size=2, output_params=options, ffmpeg_log_level="error",
            )  # fmt: skip
            writer.send(None)
            last = first
            try:
                writer.send(np.ascontiguousarray(first))
                for frame in frames:
                    last = frame
                    writer.send(np.ascontiguousarray(frame))
                for _ in range(round(hold_last_s * fps)):
                    writer.send(np.ascontiguousarray(last))
            finally:
                writer.close()
            content = path.read_bytes()
    except (ImportError, OSError, RuntimeError) as error:
        raise VideoUnavailable(f"no video could be encoded: {' '.join(str(error).split())[:200]}") from error
    if not content:
        raise VideoUnavailable("no video could be encoded: ffmpeg wrote nothing")
    return "data:video/mp4;base64," + base64.b64encode(content).decode()
