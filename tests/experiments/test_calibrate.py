"""`goalward calibrate`: measures on the validation split, writes beside the model, and every mistake is one line."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from goalward import UserError
from goalward.datasets.store import Episode, EpisodeWriter, StoreSpec
from goalward.experiments import train as train_command
from goalward.experiments.calibrate import CalibrateCommand, position_columns, run
from goalward.experiments.train import TrainCommand
from goalward.wm import train as train_module
from goalward.wm.checkpoint import CALIBRATION_JSON
from goalward.wm.encoders import SmallEncoder, SmallEncoderConfig, SmallEncoderNetwork, save_small_encoder
from goalward.wm.model import load_model
from goalward.wm.predictor import PredictorConfig

SIDE = 32


def store(path: Path, episodes: int, cameras: tuple[str, ...] = ("front",)) -> Path:
    """A square that actions push about in a picture, whose place in metres the proprioception tells."""
    spec = StoreSpec(
        env="point", env_id="Goalward/Point-v0", cameras=cameras, image_size_px=SIDE, dt_s=0.2, action_names=("dx_m", "dy_m"),
        action_low=(-0.05, -0.05), action_high=(0.05, 0.05), proprio_names=("ee_x_m", "ee_y_m", "ee_z_m"),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    with EpisodeWriter(path, spec) as writer:
        for index in range(episodes):
            actions = rng.uniform(-0.02, 0.02, (10, 2)).astype(np.float32)
            x = np.cumsum(np.concatenate([rng.uniform(0.1, 0.3, (1, 2)), actions]), axis=0).clip(0.05, 0.35)
            pixels = np.zeros((11, len(cameras), SIDE, SIDE, 3), np.uint8)
            for t, (a, b) in enumerate((x / 0.4 * SIDE).astype(int)):
                pixels[t, :, a - 3 : a + 3, b - 3 : b + 3] = 255
            proprio = np.concatenate([x, np.full((11, 1), 0.2)], axis=1).astype(np.float32)
            writer.append(Episode(pixels=pixels, proprio=proprio, actions=actions, seed=index, behaviour="explore"))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a model that has hardly been trained; copied by each test."""
    folder = tmp_path_factory.mktemp("calibrate")
    shape = SmallEncoderConfig(image_size_px=SIDE, widths=(8, 8, 8), blocks=(0, 0, 0), dim=6)
    encoder = SmallEncoder(SmallEncoderNetwork(shape, torch.Generator().manual_seed(0)), name="tiny")
    save_small_encoder(folder / "encoder", encoder, provenance={"a": 1})
    store(folder / "data", 60)
    sizes = PredictorConfig(width=16, depth=1, heads=2, horizon=3)
    tiny = dataclasses.replace(train_module.PRESETS["debug"], steps=12, batch_size=8, validate_every=6, predictor=sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(train_module.PRESETS, "debug", tiny)
        given: dict[str, Any] = {"env": "point", "preset": "debug", "device": "cpu", "threads": 1, "quiet": True}
        encoder_folder, out = str(folder / "encoder"), folder / "model"
        train_command.run(TrainCommand(data=folder / "data", encoder=encoder_folder, out=out, **given))
    return folder


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "model", tmp_path / "model"))


def options(trained: Path, model: Path, **changes: Any) -> CalibrateCommand:
    base = {"model": str(model), "data": trained / "data", "precision": 0.5, "tolerance_m": 0.05, "horizon": 4, "threads": 1}
    return CalibrateCommand(**(base | changes))


def test_it_writes_beside_the_model_what_the_controller_needs(trained: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_model(model).calibration is None
    assert run(options(trained, model)) == 0
    calibration = load_model(model).calibration
    assert calibration is not None
    assert len(calibration.typical_error_H) == 4
    assert all(limit > 1 for limit in calibration.surprise_limit_H)
    assert (calibration.surprise_level, calibration.tolerance_m, calibration.success_steps) == (0.99, 0.05, 3)
    said = capsys.readouterr().out
    for part in ("typical", "surprise above", "precision: ", "recall: ", CALIBRATION_JSON):
        assert part in said


def test_the_same_command_writes_the_same_bytes_and_other_options_others(trained: Path, model: Path) -> None:
    written = []
    for changes in ({}, {}, {"false_alarms": 0.05, "success_steps": 5, "horizon": 2}):
        run(options(trained, model, **changes))
        written.append((model / CALIBRATION_JSON).read_bytes())
    assert written[0] == written[1]
    found = load_model(model).calibration
    assert found is not None
    assert (found.surprise_level, found.success_steps, len(found.error_HQ)) == (0.95, 5, 2)
    assert found.levels_Q == (0.5, 0.9, 0.95, 0.99, 0.999)


def test_json_is_all_that_standard_output_gets(trained: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(options(trained, model, json=True))
    printed = json.loads(capsys.readouterr().out)
    for name in ("precision", "recall"):
        assert 0 <= printed[name]["low"] <= printed[name]["rate"] <= printed[name]["high"] <= 1
    assert printed["precision"]["trials"] == printed["num_detected"]


def test_a_calibration_of_another_model_is_in_nobody_s_way(trained: Path, model: Path) -> None:
    (model / CALIBRATION_JSON).write_text("{}")
    with pytest.raises(UserError, match="not a calibration"):
        load_model(model)
    assert run(options(trained, model)) == 0
    assert load_model(model).calibration is not None


def test_data_that_do_not_fit_are_named(trained: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist"):
        run(options(trained, model, data=tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no validation episode among its 1"):
        run(options(trained, model, data=store(tmp_path / "one", 1)))
    with pytest.raises(UserError, match="1 validation episodes are too few"):
        run(options(trained, model, data=store(tmp_path / "few", 2)))
    with pytest.raises(UserError, match="side"):
        run(options(trained, model, data=store(tmp_path / "other", 12, cameras=("side",))))
    with pytest.raises(UserError, match="horizon is 40"):
        run(options(trained, model, horizon=40))
    with pytest.raises(UserError, match="no latent distance detects"):
        run(options(trained, model, precision=0.999, tolerance_m=0.001))
    assert not (model / CALIBRATION_JSON).exists()


def test_positions_are_found_by_name() -> None:
    assert position_columns(["a", "ee_z_m", "ee_x_m", "ee_y_m"]) == [2, 3, 1]
    with pytest.raises(UserError, match=r"lacks ee_y_m, ee_z_m \(it has ee_x_m\)"):
        position_columns(["ee_x_m"])


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": 0.0}, {"precision": 1.0}, {"precision": float("nan")}, {"false_alarms": 0.5}, {"false_alarms": 0.0},
        {"tolerance_m": 0.0}, {"max_distance_m": 0.02}, {"horizon": 0}, {"success_steps": 0}, {"threads": -1},
    ],
)  # fmt: skip
def test_values_out_of_range_are_named(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"^{next(iter(changes))} is"):
        CalibrateCommand(**changes)


def test_the_set_of_options_is_deliberate() -> None:
    assert [field.name for field in dataclasses.fields(CalibrateCommand)] == [
        "model", "data", "precision", "tolerance_m", "success_steps", "max_distance_m", "false_alarms", "horizon", "cache", "device",
        "threads", "json",
    ]  # fmt: skip
