"""`goalward reweigh`: episodes to an encoder folder that training takes; every mistake one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from goalward import UserError
from goalward.datasets.store import Episode, EpisodeWriter, StoreSpec
from goalward.experiments.reweigh import ReweighCommand, run
from goalward.wm.encoders import SmallEncoder, SmallEncoderConfig, SmallEncoderNetwork, load_encoder, save_small_encoder

SIDE = 32


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    shape = SmallEncoderConfig(image_size_px=SIDE, widths=(8, 8, 8), blocks=(0, 0, 0), dim=6)
    tiny = SmallEncoder(SmallEncoderNetwork(shape, torch.Generator().manual_seed(0)), name="tiny")
    save_small_encoder(tmp_path / "encoder", tiny)
    return tmp_path / "encoder"


def write(path: Path, proprio_names: tuple[str, ...] = ("x_m", "x_m_s"), episodes: int = 60) -> Path:
    """A bright square that its sensor tells of, and a small grey one that nobody tells of."""
    spec = StoreSpec(
        env="point",
        env_id="Goalward/Point-v0",
        cameras=("front",),
        image_size_px=SIDE,
        dt_s=0.2,
        action_names=("dx_m",),
        action_low=(-0.05,),
        action_high=(0.05,),
        proprio_names=proprio_names,
    )
    rng = np.random.default_rng(0)
    with EpisodeWriter(path, spec) as writer:
        for index in range(episodes):
            x = rng.uniform(4, SIDE - 4, 24)
            pixels = np.zeros((24, 1, SIDE, SIDE, 3), np.uint8)
            for t, a in enumerate(x.astype(int)):
                pixels[t, 0, 4:10, a - 3 : a + 3] = 255
                b = int(rng.integers(2, SIDE - 2))
                pixels[t, 0, 20:22, b - 1 : b + 1] = 90
            proprio = np.stack([x / SIDE, np.zeros(24)], axis=1).astype(np.float32)
            actions = np.zeros((23, 1), np.float32)
            writer.append(Episode(pixels=pixels, proprio=proprio, actions=actions, seed=index, behaviour="explore"))
    return path


def test_an_encoder_that_says_how_it_was_made(encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "data")
    config = ReweighCommand(env="point", data=data, encoder=str(encoder), out=tmp_path / "out", threads=1)
    assert run(config) == 0
    made = load_encoder(tmp_path / "out")
    assert made.name == "tiny-point"
    assert made.fingerprint != load_encoder(encoder).fingerprint
    facts = json.loads((tmp_path / "out" / "encoder.json").read_text())["provenance"]
    assert facts["figures"]["sensors"] == ["x_m"]
    assert facts["figures"]["gain_of_the_rest"] > 1
    assert facts["encoder"] == load_encoder(encoder).fingerprint
    assert f"goalward train --env point --encoder {tmp_path / 'out'}" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"out: .* already holds an encoder"):
        run(config)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"encoder": "pixels"}, "encoder 'pixels' has no last linear map"),
        ({"power": 3.0}, "power is 3.0; must lie in"),
        ({"floor": 0.0}, "floor is 0.0; must lie in"),
        ({"data": Path("nowhere")}, "data: nowhere does not exist; collect it with: goalward collect --env point"),
    ],
)
def test_mistakes_write_nothing(encoder: Path, tmp_path: Path, options: dict[str, object], says: str) -> None:
    data = write(tmp_path / "data", episodes=12)
    given = {"env": "point", "data": data, "encoder": str(encoder), "out": tmp_path / "out", "threads": 1, "quiet": True} | options
    with pytest.raises(UserError, match=says):
        run(ReweighCommand(**given))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_data_without_positions_is_named(encoder: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data", proprio_names=("x_m_s", "y_m_s"), episodes=12)
    with pytest.raises(UserError, match="proprioception is x_m_s, y_m_s: no position or angle"):
        run(ReweighCommand(env="point", data=data, encoder=str(encoder), out=tmp_path / "out", threads=1, quiet=True))


def test_threads_are_checked() -> None:
    with pytest.raises(UserError, match="threads is -1"):
        ReweighCommand(threads=-1)
