"""`goalward train`: data to a loadable model, the encoder untouched, every mistake one line that says what to do."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from goalward import UserError
from goalward.datasets.store import Episode, EpisodeWriter, StoreSpec
from goalward.experiments import train as command
from goalward.experiments.train import TrainCommand, run
from goalward.wm import train as train_module
from goalward.wm.encoders import SmallEncoder, SmallEncoderConfig, SmallEncoderNetwork, load_encoder, save_small_encoder
from goalward.wm.model import load_model
from goalward.wm.predictor import PredictorConfig

SIDE = 32


@pytest.fixture
def encoder(tmp_path) -> Path:
    shape = SmallEncoderConfig(image_size_px=SIDE, widths=(8, 8, 8), blocks=(0, 0, 0), dim=6)
    save_small_encoder(
        tmp_path / "encoder", SmallEncoder(SmallEncoderNetwork(shape, torch.Generator().manual_seed(0)), name="tiny"), provenance={"a": 1}
    )
    return tmp_path / "encoder"


@pytest.fixture
def data(tmp_path) -> Path:
    """Seven episodes of a bright square that actions push about, seen by two cameras."""
    spec = StoreSpec(
        env="point",
        env_id="Goalward/Point-v0",
        cameras=("front", "side"),
        image_size_px=SIDE,
        dt_s=0.2,
        action_names=("dx_m", "dy_m"),
        action_low=(-0.05, -0.05),
        action_high=(0.05, 0.05),
        proprio_names=("x_m", "y_m"),
    )
    rng = np.random.default_rng(0)
    with EpisodeWriter(tmp_path / "data", spec) as writer:
        for index in range(7):
            actions = rng.uniform(-0.05, 0.05, (10, 2)).astype(np.float32)
            x = np.cumsum(np.concatenate([rng.uniform(0.3, 0.7, (1, 2)), actions * 2]), axis=0).clip(0.1, 0.9)
            pixels = np.zeros((11, 2, SIDE, SIDE, 3), np.uint8)
            for t, (a, b) in enumerate((x * SIDE).astype(int)):
                pixels[t, 0, a - 3 : a + 3, b - 3 : b + 3] = 255
                pixels[t, 1, b - 3 : b + 3, a - 3 : a + 3] = 200
            writer.append(Episode(pixels=pixels, proprio=x.astype(np.float32), actions=actions, seed=index, behaviour="explore"))
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch) -> None:
    tiny = dataclasses.replace(
        train_module.PRESETS["debug"],
        steps=12,
        batch_size=8,
        validate_every=6,
        predictor=PredictorConfig(width=16, depth=1, heads=2, horizon=3),
    )
    monkeypatch.setitem(train_module.PRESETS, "debug", tiny)


def options(data: Path, encoder: Path, out: Path, **changes: object) -> TrainCommand:
    given = {
        "env": "point",
        "data": data,
        "encoder": str(encoder),
        "out": out,
        "preset": "debug",
        "device": "cpu",
        "threads": 1,
        "quiet": True,
    }
    return TrainCommand(**{**given, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_command_makes_a_model_that_loads(data, encoder, tmp_path) -> None:
    assert run(options(data, encoder, tmp_path / "out")) == 0
    model = load_model(tmp_path / "out")
    assert model.cameras == ("front", "side")
    assert model.image_size_px == SIDE
    assert model.description.training["config"]["steps"] == 12
    assert model.description.training["episodes"] == {"train": 5, "validation": 1}
    assert set(model.description.versions) == {"goalward", "python", "torch", "numpy", "safetensors"}
    assert model.description.action_std[0] == pytest.approx(0.029, abs=0.01)
    z = model.encode(np.zeros((1, 2, SIDE, SIDE, 3), np.uint8))
    assert torch.isfinite(model.rollout(model.prime(torch.stack([z, z], 1)), torch.zeros(1, 2, 3, 2))).all()


def test_training_leaves_every_byte_of_the_encoder_unchanged(data, encoder, tmp_path, monkeypatch) -> None:
    files, loaded = contents(encoder), []
    monkeypatch.setattr("goalward.wm.encoders.load_encoder", lambda *a, **k: loaded.append(load_encoder(*a, **k)) or loaded[-1])
    run(options(data, encoder, tmp_path / "out"))
    assert contents(encoder) == files
    assert contents(tmp_path / "out" / "encoder") == files, "the model carries an exact copy"
    fresh = load_encoder(encoder)
    (used,) = loaded
    assert used.fingerprint == fresh.fingerprint
    assert all(torch.equal(a, b) for a, b in zip(used.state_dict().values(), fresh.state_dict().values(), strict=True))


def test_the_data_is_not_touched_and_a_second_run_uses_the_cache(data, encoder, tmp_path, monkeypatch) -> None:
    files = contents(data)
    run(options(data, encoder, tmp_path / "a"))
    monkeypatch.setattr(SmallEncoder, "encode", lambda *_: pytest.fail("encoded again"))
    run(options(data, encoder, tmp_path / "b"))
    assert contents(data) == files
    assert (tmp_path / "data-latents").is_dir()
    assert contents(tmp_path / "a")["predictor.safetensors"] == contents(tmp_path / "b")["predictor.safetensors"]


def test_one_camera_alone(data, encoder, tmp_path) -> None:
    run(options(data, encoder, tmp_path / "out", cameras=("side",)))
    model = load_model(tmp_path / "out")
    assert model.cameras == ("side",)
    assert model.encode(np.zeros((1, 1, SIDE, SIDE, 3), np.uint8)).shape == (1, 4, 6)
    with pytest.raises(UserError, match=r"wrist.*front, side"):
        run(options(data, encoder, tmp_path / "other", cameras=("wrist",)))


def test_an_interrupted_run_resumes_to_the_same_model(data, encoder, tmp_path, monkeypatch) -> None:
    run(options(data, encoder, tmp_path / "whole"))
    real = command._Bar.update

    def interrupted(self: object, progress: object) -> None:
        if progress.step == 9:
            raise KeyboardInterrupt
        real(self, progress)

    monkeypatch.setattr(command._Bar, "update", interrupted)
    assert run(options(data, encoder, tmp_path / "out")) == 130
    assert not (tmp_path / "out" / "model.json").exists()
    monkeypatch.undo()
    monkeypatch.setitem(
        train_module.PRESETS, "debug", dataclasses.replace(train_module.PRESETS["debug"], **json_config(tmp_path / "whole"))
    )
    assert run(options(data, encoder, tmp_path / "out", resume=True)) == 0
    assert contents(tmp_path / "out")["predictor.safetensors"] == contents(tmp_path / "whole")["predictor.safetensors"]


def json_config(folder: Path) -> dict[str, object]:
    written = json.loads((folder / "model.json").read_text())["training"]["config"]
    return {**written, "predictor": PredictorConfig(**written["predictor"])}


def test_a_finished_run_is_not_overwritten(data, encoder, tmp_path) -> None:
    run(options(data, encoder, tmp_path / "out"))
    before = contents(tmp_path / "out")
    with pytest.raises(UserError, match=r"already holds a run.*--resume"):
        run(options(data, encoder, tmp_path / "out"))
    assert contents(tmp_path / "out") == before


def test_resuming_with_other_options_names_them(data, encoder, tmp_path) -> None:
    run(options(data, encoder, tmp_path / "out"))
    with pytest.raises(UserError, match=r"config.seed was 0, is 4"):
        run(options(data, encoder, tmp_path / "out", resume=True, seed=4))


def test_missing_data_gives_the_command_that_collects_it(encoder, tmp_path) -> None:
    with pytest.raises(UserError, match=r"goalward collect --env point --out .*nowhere"):
        run(options(tmp_path / "nowhere", encoder, tmp_path / "out"))


def test_the_default_places_follow_the_environment(encoder, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="goalward collect --env reach --out data/reach"):
        run(TrainCommand(encoder=str(encoder)))


def test_data_of_another_environment_is_refused(data, encoder, tmp_path) -> None:
    with pytest.raises(UserError, match="episodes of point, not of reach"):
        run(options(data, encoder, tmp_path / "out", env="reach"))


def test_an_unknown_encoder_and_device_are_named(data, encoder, tmp_path) -> None:
    with pytest.raises(UserError, match="goalward-smal"):
        run(options(data, Path("goalward-smal"), tmp_path / "out"))
    with pytest.raises(UserError, match="tpu"):
        run(options(data, encoder, tmp_path / "out", device="tpu"))


@pytest.mark.parametrize(
    ("change", "said"),
    [({"steps": 0}, "steps"), ({"context_frames": 0}, "frames"), ({"threads": -1}, "threads"), ({"cameras": ("a", "a")}, "cameras")],
)
def test_bad_options_are_named(change: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        TrainCommand(**change)


def test_a_prediction_starts_from_as_many_frames_as_asked_for(data, encoder, tmp_path) -> None:
    run(options(data, encoder, tmp_path / "out", context_frames=3))
    assert load_model(tmp_path / "out").context_frames == 3


def test_it_reports_error_as_a_fraction_of_persistence(data, encoder, tmp_path, capsys) -> None:
    run(options(data, encoder, tmp_path / "out", quiet=False))
    shown = capsys.readouterr()
    assert "of persistence" in shown.err
    assert "shuffled actions" in shown.out
    assert "plan-eval --env point" in shown.err
