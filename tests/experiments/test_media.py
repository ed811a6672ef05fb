"""Pictures and videos are what browsers show: JPEG, and H.264 with 4:2:0 chroma and the index first."""

import base64
import io
import subprocess
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from goalward.experiments.media import VideoUnavailable, jpeg_uri, mp4_uri, video_frames


def decoded(uri: str, kind: str) -> bytes:
    head, _, body = uri.partition(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(body, validate=True)


def some_frames(count: int = 6, height: int = 48, width: int = 64) -> Iterator[np.ndarray]:
    for k in range(count):
        frame = np.full((height, width, 3), 30, dtype=np.uint8)
        frame[:, k * 8 : k * 8 + 8] = (250, 60, 60)
        yield frame


def test_jpeg_has_the_picture() -> None:
    picture = np.zeros((32, 48, 3), dtype=np.uint8)
    picture[:, 24:] = (200, 30, 30)
    image = np.asarray(Image.open(io.BytesIO(decoded(jpeg_uri(picture, quality=95), "image/jpeg"))))
    assert image.shape == picture.shape
    assert np.abs(image.astype(int) - picture)[:, :20].max() < 12


def test_mp4_is_what_every_browser_plays(tmp_path: Path) -> None:
    content = decoded(mp4_uri(some_frames(), fps=4.0, hold_last_s=1.0), "video/mp4")
    (tmp_path / "episode.mp4").write_bytes(content)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(tmp_path / "episode.mp4"), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    ran = subprocess.run(command, capture_output=True, check=True, timeout=60)
    (stream,) = [line for line in ran.stderr.decode().split("Output #0")[0].splitlines() if "Video:" in line]
    for fact in ("h264", "yuv420p", "64x48", "4 fps"):
        assert fact in stream
    pictures = np.frombuffer(ran.stdout, dtype=np.uint8).reshape(-1, 48, 64, 3)
    assert len(pictures) == 6 + 4
    for k in range(6):
        assert pictures[k][20, k * 8 + 4, 0] > 200
        assert pictures[k][20, (k * 8 + 36) % 64, 0] < 80
    assert content.index(b"moov") < content.index(b"mdat"), "a browser must find the index before the pictures"
    assert len(content) < 20_000


def test_mp4_of_one_frame() -> None:
    assert decoded(mp4_uri(some_frames(1), fps=5.0, hold_last_s=0.0), "video/mp4")


def test_mp4_of_nothing_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        mp4_uri(iter(()), fps=4.0)


def test_without_ffmpeg_the_reason_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("No ffmpeg exe could be found.\nInstall it.")

    monkeypatch.setattr(imageio_ffmpeg, "write_frames", broken)
    with pytest.raises(VideoUnavailable, match=r"No ffmpeg exe could be found\. Install it\.") as caught:
        mp4_uri(some_frames(), fps=4.0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num_views", [1, 2, 3])
@pytest.mark.parametrize("with_scene", [False, True])
def test_video_frames_are_even_sized_and_differ_in_time(num_views: int, with_scene: bool) -> None:
    rng = np.random.default_rng(0)
    live = rng.integers(0, 255, (3, num_views, 16, 16, 3), dtype=np.uint8)
    scene = np.full((3, 40, 40, 3), 90, dtype=np.uint8) if with_scene else None
    cameras = [f"camera {v}" for v in range(num_views)]
    frames = list(video_frames(live, live[0], distances_m=(0.3, None, 0.01), cameras=cameras, scene_Thw3=scene, tile_px=50, status="done"))
    assert len(frames) == 3
    assert {frame.shape for frame in frames} == {frames[0].shape}
    assert all(edge % 2 == 0 for edge in frames[0].shape[:2])
    assert (frames[0] != frames[1]).any()


def test_the_goal_stands_still_beside_the_live_view() -> None:
    live = np.zeros((2, 1, 16, 16, 3), dtype=np.uint8)
    live[1] = 255
    goal = np.full((1, 16, 16, 3), 120, dtype=np.uint8)
    first, last = video_frames(live, goal, distances_m=(0.2, 0.1), cameras=("top",), tile_px=60)
    assert (first[50:90, 10:50] == 120).all()
    assert (last[50:90, 10:50] == 120).all()
    assert (first[50:90, 75:110] == 0).all()
    assert (last[50:90, 75:110] == 255).all()
