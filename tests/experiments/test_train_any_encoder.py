"""`goalward train` on an encoder in transformers format: the same command, a reference instead of a copy, found again or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import goalward
from goalward import UserError
from goalward.datasets.store import Episode, EpisodeWriter, StoreSpec
from goalward.experiments.encoders import EncodersCommand
from goalward.experiments.encoders import run as run_encoders
from goalward.experiments.imitate import ImitateCommand
from goalward.experiments.imitate import run as run_imitate
from goalward.experiments.train import TrainCommand
from goalward.experiments.train import run as run_train
from goalward.policies import load_policy
from goalward.wm.encoders import PretrainedEncoder
from goalward.wm.encoders.vit import VisionTransformerConfig, VisionTransformerNetwork
from goalward.wm.encoders.vit_folder import export_vision_transformer
from goalward.wm.model import load_model

SIDE = 32


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Seven short episodes of noise that actions do not care about, from two cameras."""
    spec = StoreSpec(
        env="point", env_id="Goalward/Point-v0", cameras=("front", "side"), image_size_px=SIDE, dt_s=0.2, action_names=("dx_m", "dy_m"),
        action_low=(-0.05, -0.05), action_high=(0.05, 0.05), proprio_names=("x_m", "y_m"),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    with EpisodeWriter(tmp_path / "data", spec) as writer:
        for index in range(7):
            pixels = rng.integers(0, 256, (9, 2, SIDE, SIDE, 3), dtype=np.uint8)
            actions, proprio = rng.uniform(-0.05, 0.05, (8, 2)).astype(np.float32), rng.normal(size=(9, 2)).astype(np.float32)
            writer.append(Episode(pixels=pixels, proprio=proprio, actions=actions, seed=index, behaviour="explore"))
    return tmp_path / "data"


def make_encoder(folder: Path, seed: int = 0) -> Path:
    """Exports a tiny vision transformer with random weights."""
    shape = VisionTransformerConfig(image_size_px=SIDE, dim=32, depth=1, heads=2)
    network = VisionTransformerNetwork(shape, torch.Generator().manual_seed(seed))
    export_vision_transformer(folder, network, licence="Apache-2.0", provenance={})
    return folder


def train(data: Path, encoder: str, out: Path) -> int:
    return run_train(
        TrainCommand(env="point", data=data, encoder=encoder, out=out, preset="debug", steps=2, device="cpu", threads=1, quiet=True)
    )


def test_a_model_keeps_a_reference_and_finds_its_encoder_again(data: Path, tmp_path: Path) -> None:
    encoder, out = make_encoder(tmp_path / "vit"), tmp_path / "out"
    assert train(data, str(encoder), out) == 0
    assert [path.name for path in (out / "encoder").iterdir()] == ["encoder.json"]
    described = json.loads((out / "encoder" / "encoder.json").read_text())
    assert (described["kind"], described["source"]) == ("pretrained", str(encoder))
    model = load_model(out)
    assert isinstance(model.encoder, PretrainedEncoder)
    assert (model.description.num_tokens, model.description.dim, model.description.encoder.shipped) == (8, 32, False)
    z = model.encode(np.zeros((1, 2, SIDE, SIDE, 3), np.uint8))
    assert torch.isfinite(model.rollout(model.prime(torch.stack([z, z], 1)), torch.zeros(1, 2, 3, 2))).all()

    encoder.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="is not there any more; say where it is now with --encoder"):
        load_model(out)
    moved = goalward.load_model(str(out), encoder=str(tmp_path / "moved"))
    assert torch.equal(moved.encode(np.zeros((1, 2, SIDE, SIDE, 3), np.uint8)), z)
    with pytest.raises(UserError, match="no such folder"):
        load_model(out, encoder=tmp_path / "nowhere")
    other = make_encoder(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match=r"other weights, preprocessing or configuration"):
        load_model(out, encoder=other)
    with pytest.raises(UserError, match=r"the model was trained with"):
        load_model(out, encoder=f"{tmp_path / 'moved'}#norm=layer")


def test_an_encoder_that_ships_is_not_looked_for() -> None:
    with pytest.raises(UserError, match="ships with the package; leave --encoder out"):
        load_model("reach", encoder="somewhere")


def test_options_choose_the_tokens_and_the_cache_tells_them_apart(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make_encoder(tmp_path / "vit")
    assert train(data, f"{encoder}#tokens=1", tmp_path / "one") == 0
    model = load_model(tmp_path / "one")
    assert model.description.num_tokens == 2
    assert json.loads((tmp_path / "one" / "encoder" / "encoder.json").read_text())["read_out"]["tokens"] == 1
    encoded: list[int] = []
    original = PretrainedEncoder.encode
    monkeypatch.setattr(PretrainedEncoder, "encode", lambda self, frames: encoded.append(len(frames)) or original(self, frames))
    assert train(data, f"{encoder}#tokens=1", tmp_path / "again") == 0
    assert encoded == []
    assert train(data, str(encoder), tmp_path / "four") == 0
    assert sum(encoded) == 6 * 9 * 2


def test_frames_of_another_size_are_refused_with_both_ways_out(data: Path, tmp_path: Path) -> None:
    shape = VisionTransformerConfig(image_size_px=64, dim=32, depth=1, heads=2)
    export_vision_transformer(tmp_path / "vit", VisionTransformerNetwork(shape), licence="MIT", provenance={})
    with pytest.raises(UserError, match=r"collect with --image-size-px 64.*#frame=32 behind its name"):
        train(data, str(tmp_path / "vit"), tmp_path / "out")
    assert train(data, f"{tmp_path / 'vit'}#frame=32", tmp_path / "out") == 0


def test_policies_refer_to_it_too(data: Path, tmp_path: Path) -> None:
    encoder = make_encoder(tmp_path / "vit")
    options: dict[str, Any] = {"data": data, "encoder": str(encoder), "out": tmp_path / "policy", "steps": 2, "quiet": True}
    assert run_imitate(ImitateCommand(env="point", policy="gcbc", preset="debug", device="cpu", threads=1, **options)) == 0
    assert [path.name for path in (tmp_path / "policy" / "encoder").iterdir()] == ["encoder.json"]
    assert isinstance(load_policy(tmp_path / "policy").encoder, PretrainedEncoder)


def test_encoders_are_listed_with_what_they_cost_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = make_encoder(tmp_path / "vit")
    command = EncodersCommand(encoder=(f"{encoder}#tokens=1",), seconds=0.01, threads=1, json=True)
    assert run_encoders(command) == 0
    said = json.loads(capsys.readouterr().out)
    by_name = {row["encoder"]: row for row in said["here"]}
    mine = by_name[f"{encoder}#tokens=1"]
    assert (mine["frame_px"], mine["tokens"], mine["width"], mine["licence"]) == (SIDE, 1, 32, "Apache-2.0")
    assert mine["ms_per_frame"] > 0
    assert mine["parameters"] == sum(value.numel() for value in VisionTransformerNetwork(
        VisionTransformerConfig(image_size_px=SIDE, dim=32, depth=1, heads=2)).parameters())  # fmt: skip
    assert by_name["pixels"]["parameters"] == 0
    assert by_name["goalward-small"]["parameters"] > 1e6
    assert {"facebook/vjepa2-vitl-fpc64-256", "facebook/dinov2-small"} <= {row["encoder"] for row in said["published"]}
    assert run_encoders(EncodersCommand(seconds=0.01, threads=1)) == 0
    table = capsys.readouterr().out
    assert "facebook/dinov3-vits16-pretrain-lvd1689m" in table
    assert "ms a frame" in table
    for change, said_ in (({"seconds": 0}, "seconds is 0"), ({"threads": -1}, "threads is -1")):
        with pytest.raises(UserError, match=said_):
            EncodersCommand(**change)
