"""`goalward data`: what it prints, writes and finds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from goalward import UserError
from goalward.datasets.store import Episode, EpisodeWriter, StoreSpec, open_store
from goalward.experiments.cli import dispatch

SPEC = StoreSpec(
    env="tiny", env_id="Goalward/Tiny-v0", cameras=("front", "side"), image_size_px=8, dt_s=0.25, action_names=("dx_m", "dy_m"),
    action_low=(-0.05, -0.05), action_high=(0.05, 0.05), proprio_names=("x_m",), software={"mujoco": "3.17.0"}, config={"seed": 3},
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    with EpisodeWriter(tmp_path / "s", SPEC) as writer:
        for k, behaviour in enumerate(("oracle", "explore", "explore")):
            proprio = np.full((5, 1), k, np.float32)
            pixels = rng.integers(0, 255, (5, 2, 8, 8, 3), dtype=np.uint8)
            actions = np.full((4, 2), 0.01 * k, np.float32)
            writer.append(Episode(pixels=pixels, proprio=proprio, actions=actions, seed=k, behaviour=behaviour), discarded=k)
    return tmp_path / "s"


def test_info_as_json_is_all_there_is_on_standard_output(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["data", "info", str(path), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["num_episodes"] == 3
    assert info["num_frames"] == 15
    assert info["num_discarded"] == 3
    assert info["duration_s"] == 3.0
    assert info["splits"] == {"train": 1, "validation": 1, "test": 1}
    assert info["behaviours"] == {"explore": 2, "oracle": 1}
    assert info["proprio_range"] == {"x_m": [0.0, 2.0]}
    assert info["action_range"]["dx_m"] == [0.0, pytest.approx(0.02)]
    assert info["bytes_decoded"] == {"pixels": 15 * 2 * 8 * 8 * 3, "proprio": 60, "actions": 96}
    assert info["content_hash"] == open_store(path).content_hash
    assert StoreSpec.from_json(info["spec"]) == SPEC


def test_info_for_people_names_what_matters(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert dispatch(["data", "info", str(path)]) == 0
    text = capsys.readouterr().out
    parts = ("Goalward/Tiny-v0", "4 Hz", "front, side, 8 px", "explore 2 (67 %)", "validation 1", "mujoco 3.17.0", "dx_m", "-0.05 .. 0.05")
    for part in (*parts, "3 failed attempts", open_store(path).content_hash):
        assert part in text


def test_info_of_an_empty_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    EpisodeWriter(tmp_path / "s", SPEC).close()
    assert dispatch(["data", "info", str(tmp_path / "s")]) == 0
    assert dispatch(["data", "info", str(tmp_path / "s"), "--json"]) == 0
    assert "Goalward/Tiny-v0" in capsys.readouterr().out


def test_preview_writes_a_picture(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sheet.png"
    assert dispatch(["data", "preview", str(path), "--out", str(out), "--episodes", "2", "--columns", "3", "--split", "all"]) == 0
    with Image.open(out) as picture:
        assert picture.size == (2 + 3 * 10, 2 + 4 * 10)
    assert dispatch(["data", "preview", str(path), "--out", str(out), "--split", "test"]) == 0
    assert "episodes 2" in capsys.readouterr().err


def test_preview_refuses_another_format(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.png, \.mp4, \.gif"):
        dispatch(["data", "preview", str(path), "--out", str(tmp_path / "a.bmp")])


def test_verify_names_a_damaged_episode(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["data", "verify", str(path), "--quiet"]) == 0
    assert "3 episodes, every byte as recorded" in capsys.readouterr().out
    file = path / "episodes/000001/pixels/c.0.0.0.0.0"
    content = bytearray(file.read_bytes())
    content[20] ^= 4
    file.write_bytes(content)
    assert dispatch(["data", "verify", str(path), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "error: episode 1: " in said
    assert "error: 1 of 3 episodes are damaged" in said


@pytest.mark.parametrize("verb", ["info", "preview", "verify"])
def test_no_store_is_one_line(tmp_path: Path, verb: str) -> None:
    with pytest.raises(UserError, match="not an episode store"):
        dispatch(["data", verb, str(tmp_path)])
