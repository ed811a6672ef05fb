"""Pictures of a store."""

from __future__ import annotations

from pathlib import Path

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from goalward import UserError
from goalward.datasets.preview import choose_episodes, contact_sheet, video_frames, write_preview
from goalward.datasets.store import EpisodeWriter, StoreSpec, open_store


def test_a_contact_sheet_shows_every_camera_from_first_to_last_frame(store_path: Path) -> None:
    store = open_store(store_path)
    sheet = contact_sheet(store, (0, 2), columns=3)
    assert sheet.shape == (2 + 4 * 10, 2 + 3 * 10, 3)
    for row, (episode, view) in enumerate([(0, 0), (0, 1), (2, 0), (2, 1)]):
        for column, frame in ((0, 0), (2, store.num_steps(episode))):
            top, left = 2 + 10 * row, 2 + 10 * column
            np.testing.assert_array_equal(sheet[top : top + 8, left : left + 8], store.pixels(episode)[frame, view])


def test_a_short_episode_holds_its_last_frame_in_a_video(store_path: Path) -> None:
    store = open_store(store_path)
    frames = list(video_frames(store, (0, 2)))
    assert len(frames) == 12
    np.testing.assert_array_equal(frames[-1][2:10, 2:10], store.pixels(0)[-1, 0])
    np.testing.assert_array_equal(frames[-1][2:10, 12:20], store.pixels(2)[-1, 0])


def test_episodes_are_spread(store_path: Path) -> None:
    store = open_store(store_path)
    assert choose_episodes(store, 2) == (0, 2)
    assert choose_episodes(store, 99) == (0, 1, 2)
    assert choose_episodes(store, 5, "validation") == (1,)


@pytest.mark.parametrize("suffix", [".png", ".gif", ".mp4"])
def test_files_open_again(store_path: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / "new" / f"preview{suffix}"
    assert write_preview(open_store(store_path), out, count=2, columns=4) == (0, 2)
    if suffix == ".png":
        with Image.open(out) as picture:
            assert picture.size == (42, 42)
    elif suffix == ".gif":
        assert len(imageio.mimread(out)) == 12
    else:
        frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(out))
        assert frames == 12
        assert seconds == pytest.approx(12 * 0.2, rel=0.05)


def test_mistakes_are_named(store_path: Path, tmp_path: Path, spec: StoreSpec) -> None:
    store = open_store(store_path)
    for out, count, columns, named in (("a.bmp", 1, 1, "a.bmp"), ("a.png", 0, 1, "episodes=0"), ("a.png", 1, 999, "columns=999")):
        with pytest.raises(UserError, match=named):
            write_preview(store, tmp_path / out, count=count, columns=columns)
    EpisodeWriter(tmp_path / "empty", spec).close()
    with pytest.raises(UserError, match="no episodes"):
        write_preview(open_store(tmp_path / "empty"), tmp_path / "a.png", count=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError):
        write_preview(store, tmp_path / "file" / "a.png", count=1)
