"""`calibration.json`: what is written is read back, beside its own model alone, and nothing else is believed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goalward import UserError
from goalward.wm.calibration import Calibration, model_sha256, read_calibration, save_calibration
from goalward.wm.checkpoint import CALIBRATION_JSON, EncoderReference, ModelDescription, json_checksum, save_model
from goalward.wm.model import load_model, shipped_models
from goalward.wm.predictor import LatentPredictor, PredictorConfig

SIZES = PredictorConfig(width=16, depth=1, heads=2)


def save(folder: Path, signature: Any, *, latent_scale: float = 0.3) -> None:
    description = ModelDescription(
        predictor=SIZES, num_tokens=8, dim=5, env=signature, encoder=EncoderReference(name="average", fingerprint="ab" * 32, shipped=False),
        latent_scale=latent_scale, action_mean=(0.0, 0.0), action_std=(1.0, 1.0), proprio_mean=(0.0,) * 3, proprio_std=(1.0,) * 3,
        data_hash="cd" * 32, training={}, versions={},
    )  # fmt: skip
    predictor = LatentPredictor(SIZES, num_tokens=8, dim=5, action_dim=2, generator=torch.Generator().manual_seed(0))
    save_model(folder, description, dict(predictor.named_parameters()), torch.zeros(8, 5))


@pytest.fixture
def folder(tmp_path: Path, signature: Any) -> Path:
    save(tmp_path / "model", signature)
    return tmp_path / "model"


def calibration_of(folder: Path, **changes: Any) -> Calibration:
    base: dict[str, Any] = {
        "model_sha256": model_sha256(folder), "data_hash": "cd" * 32, "num_clips": 100, "levels_Q": (0.5, 0.9, 0.99),
        "error_HQ": ((0.1, 0.3, 0.7), (0.2, 0.5, 1.0)), "surprise_level": 0.99, "success_energy": 0.025, "success_steps": 3,
        "tolerance_m": 0.03, "max_distance_m": 0.2, "target_precision": 0.95, "num_near": 60, "num_detected": 50, "num_both": 48,
    }  # fmt: skip
    return Calibration(**(base | changes))


def rewrite(path: Path, change: Any, *, sign: bool = True) -> None:
    body = json.loads(path.read_text())
    change(body)
    if sign:
        with contextlib.suppress(UserError):
            body["checksum"] = json_checksum(body)
    path.write_text(json.dumps(body).replace("Infinity", "1e400"))


def test_what_is_written_is_read_back(folder: Path) -> None:
    assert read_calibration(folder) is None
    calibration = calibration_of(folder)
    assert save_calibration(folder, calibration) == folder / CALIBRATION_JSON
    assert read_calibration(folder) == calibration
    assert calibration.typical_error_H == (0.1, 0.2)
    assert calibration.surprise_limit_H == pytest.approx((7.0, 5.0))


def test_another_model_s_calibration_is_refused(folder: Path, signature: Any, tmp_path: Path) -> None:
    save_calibration(folder, calibration_of(folder))
    text = (folder / CALIBRATION_JSON).read_text()
    save(tmp_path / "other", signature, latent_scale=0.4)
    (tmp_path / "other" / CALIBRATION_JSON).write_text(text)
    with pytest.raises(UserError, match=r"measured with another model\.json; run goalward calibrate again, or delete the file"):
        read_calibration(tmp_path / "other")
    with pytest.raises(UserError, match=r"not written: measured with another model\.json"):
        save_calibration(tmp_path / "other", calibration_of(folder))


def test_a_model_that_is_trained_again_loses_its_calibration(folder: Path, signature: Any) -> None:
    save_calibration(folder, calibration_of(folder))
    save(folder, signature, latent_scale=0.5)
    assert read_calibration(folder) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b: b.pop("num_clips"), "calibration.json: num_clips is missing"),
        (lambda b: b.update(extra=1), "calibration.json: extra is unknown"),
        (lambda b: b.update(success_energy="0.1"), "success_energy must be float"),
        (lambda b: b.update(success_energy=True), "success_energy must be float"),
        (lambda b: b.update(success_energy=0.0), "success_energy is 0.0, must be positive"),
        (lambda b: b.update(success_energy=1e400), "checksum"),
        (lambda b: b.update(success_steps=0), "success_steps is 0"),
        (lambda b: b.update(levels_Q=[]), "levels_Q is ()"),
        (lambda b: b.update(levels_Q=[0.5, 0.99, 0.9]), "must rise"),
        (lambda b: b.update(levels_Q=[0.5, 0.9, 1.0]), "stay below 1"),
        (lambda b: b.update(surprise_level=0.5), "surprise_level is 0.5"),
        (lambda b: b.update(error_HQ=[]), "error_HQ must have a row"),
        (lambda b: b.update(error_HQ=[[0.1, 0.2]]), "error_HQ must have a row"),
        (lambda b: b.update(error_HQ=[[0.1, 0.3, 0.2]]), "rise with the level"),
        (lambda b: b.update(error_HQ=[[0.0, 0.3, 0.4]]), "positive"),
        (lambda b: b.update(error_HQ=[0.1]), "error_HQ[0] must be"),
        (lambda b: b.update(target_precision=1.5), "target_precision is 1.5"),
        (lambda b: b.update(num_both=51), "num_both is 51"),
        (lambda b: b.update(schema=2), "schema 2; this version reads schema 1"),
        (lambda b: b.update(format="zip"), "not a calibration"),
    ],
)
def test_wrong_entries_are_named_in_one_line(folder: Path, change: Any, said: str) -> None:
    save_calibration(folder, calibration_of(folder))
    rewrite(folder / CALIBRATION_JSON, change)
    with pytest.raises(UserError) as caught:
        read_calibration(folder)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_edit_by_hand_is_noticed(folder: Path) -> None:
    save_calibration(folder, calibration_of(folder))
    rewrite(folder / CALIBRATION_JSON, lambda body: body.update(success_energy=9.0), sign=False)
    with pytest.raises(UserError, match="changed after it was written"):
        read_calibration(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\xfe", b"[" * 10_000, b'{"a":NaN}', b" " * (2**20 + 1)])
def test_a_file_that_is_none_is_refused(folder: Path, content: bytes) -> None:
    (folder / CALIBRATION_JSON).write_bytes(content)
    with pytest.raises(UserError, match=CALIBRATION_JSON):
        read_calibration(folder)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_in_it_is_either_sound_or_refused(folder: Path, data: st.DataObject) -> None:
    calibration = calibration_of(folder)
    save_calibration(folder, calibration)
    key = data.draw(st.sampled_from([field.name for field in dataclasses.fields(Calibration)]))
    rewrite(folder / CALIBRATION_JSON, lambda body: body.update({key: data.draw(json_values)}))
    with contextlib.suppress(UserError):
        read = read_calibration(folder)
        assert read is not None
        assert read.faults() == []


def test_shipped_calibrations_are_precise() -> None:
    found = {name: load_model(name).calibration for name in shipped_models()}
    assert found["reach"] is not None, "run goalward calibrate --model reach"
    for name, calibration in found.items():  # push has none: its episodes do not tell where the puck is
        if calibration is not None:
            assert calibration.num_both / calibration.num_detected > 0.9
            assert load_model(name, calibrated=False).calibration is None
