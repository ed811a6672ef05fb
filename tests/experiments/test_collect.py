"""`goalward collect` on the real environments, in miniature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from goalward import UserError
from goalward.datasets.store import open_store
from goalward.experiments.cli import dispatch
from goalward.experiments.collect import CollectCommand, available_cores, env_settings

SMALL = ["--image-size-px", "32", "--episode-steps", "3"]


def test_reach_is_collected_resumed_and_the_same_with_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert dispatch(["collect", "--env", "reach", "--episodes", "2", "--workers", "0", "--out", str(one), *SMALL]) == 0
    assert "goalward data info" in capsys.readouterr().err
    more = ["collect", "--env", "Goalward/Reach-v0", "--episodes", "4", "--workers", "0", "--out", str(one), "--quiet"]
    assert dispatch([*more, *SMALL]) == 0
    assert capsys.readouterr().err == ""
    assert dispatch(["collect", "--env", "reach", "--episodes", "4", "--workers", "2", "--out", str(two), "--quiet", *SMALL]) == 0
    store = open_store(one)
    assert store.content_hash == open_store(two).content_hash
    assert store.spec.cameras == ("front", "side")
    assert store.spec.config["appearance"] == "fixed"
    assert {"goalward", "mujoco", "dm-control"} <= store.spec.software.keys()
    low, high = np.array(store.spec.action_low), np.array(store.spec.action_high)
    for _, episode in store.iter_episodes():
        assert episode.pixels.shape == (4, 2, 32, 32, 3)
        assert (episode.actions >= low - 1e-6).all()
        assert (episode.actions <= high + 1e-6).all()
        assert episode.pixels.std() > 5
    with pytest.raises(UserError, match=r"config\.seed: 0 != 1"):
        dispatch([*more, *SMALL, "--seed", "1"])
    with pytest.raises(UserError, match="image_size_px: 32 != 48"):
        dispatch([*more, "--image-size-px", "48", "--episode-steps", "3"])


def test_one_camera_and_varied_appearance(tmp_path: Path) -> None:
    command = ["collect", "--episodes", "2", "--workers", "0", "--out", str(tmp_path / "s"), "--quiet"]
    assert dispatch([*command, "--cameras", "side", "--appearance", "varied", *SMALL]) == 0
    store = open_store(tmp_path / "s")
    assert store.spec.cameras == ("side",)
    assert store.spec.config["appearance"] == "varied"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--env", "raech"], "did you mean reach"),
        (["--episodes", "0"], "episodes=0"),
        (["--workers", "-1"], "workers=-1"),
        (["--seed", "-1"], "seed=-1"),
        (["--episode-steps", "0"], "episode_steps=0"),
        (["--image-size-px", "7", "--workers", "0"], "image_size_px=7"),
        (["--cameras", "top", "--workers", "0"], "front, side"),
        (["--env", "scenes", "--appearance", "varied"], "scenes has no option appearance"),
        (["--env", "scenes", "--cameras", "front"], "scenes has no option cameras"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: list[str], named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        dispatch(["collect", "--out", str(tmp_path / "s"), "--quiet", *arguments])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "s" / "manifest.json").exists()


def test_only_what_was_asked_for_is_passed_to_the_environment() -> None:
    assert env_settings(CollectCommand(env="scenes", image_size_px=64)) == {"image_size_px": 64}
    assert env_settings(CollectCommand(cameras=("front",), appearance="varied")) == {
        "image_size_px": 128, "cameras": ("front",), "appearance": "varied",
    }  # fmt: skip


def test_cores_are_counted() -> None:
    assert available_cores() >= 1
