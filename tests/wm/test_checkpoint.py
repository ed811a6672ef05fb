"""Model folders: what is written is read back; whatever is wrong with one is said, all of it, in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from goalward import UserError
from goalward.datasets import durable
from goalward.wm.checkpoint import MODEL_JSON, TENSORS, EncoderReference, ModelDescription, json_checksum, read_model, save_model
from goalward.wm.predictor import LatentPredictor, PredictorConfig

SIZES = PredictorConfig(width=16, depth=2, heads=2)


@pytest.fixture
def description(signature) -> ModelDescription:
    return ModelDescription(
        predictor=SIZES,
        num_tokens=8,
        dim=5,
        env=signature,
        encoder=EncoderReference(name="average", fingerprint="ab" * 32, shipped=False),
        latent_scale=0.3,
        action_mean=(0.0, 0.01),
        action_std=(0.03, 0.02),
        proprio_mean=(0.0, 0.0, 0.0),
        proprio_std=(1.0, 1.0, 1.0),
        data_hash="cd" * 32,
        training={"evaluation": {"fraction": [0.05]}},
        versions={"torch": "2"},
    )


@pytest.fixture
def predictor() -> LatentPredictor:
    return LatentPredictor(SIZES, num_tokens=8, dim=5, action_dim=2, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path, description, predictor) -> Path:
    save_model(
        tmp_path / "model", description, dict(predictor.named_parameters()), torch.full((8, 5), 0.25), encoder_files={"a.json": b"{}"}
    )
    return tmp_path / "model"


def rewrite(folder: Path, change) -> None:
    """Edits model.json the way a clever fault would: with a checksum that fits."""
    body = json.loads((folder / MODEL_JSON).read_text())
    change(body)
    body["checksum"] = json_checksum(body)
    (folder / MODEL_JSON).write_text(json.dumps(body))


def test_what_is_written_is_read_back(folder, description, predictor) -> None:
    read, weights, mean = read_model(folder)
    assert read == description
    assert torch.equal(mean, torch.full((8, 5), 0.25))
    for (name, a), (other, b) in zip(predictor.named_parameters(), weights.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(a, b)
    assert not any(p.requires_grad for p in weights.parameters())
    assert (folder / "encoder" / "a.json").read_bytes() == b"{}"
    assert {path.name for path in folder.iterdir()} == {MODEL_JSON, TENSORS, "encoder"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_byte_is_noticed(folder, data) -> None:
    name = data.draw(st.sampled_from([MODEL_JSON, TENSORS]))
    raw = (folder / name).read_bytes()
    at, bit = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 7))
    try:
        (folder / name).write_bytes(raw[:at] + bytes([raw[at] ^ (1 << bit)]) + raw[at + 1 :])
        if name == MODEL_JSON and raw[at : at + 1] in b" \n" and json_equal(raw, (folder / name).read_bytes()):
            return  # White space turned into other white space: the content is what it was.
        with pytest.raises(UserError) as caught:
            read_model(folder)
        assert "\n" not in str(caught.value)
    finally:
        (folder / name).write_bytes(raw)


def json_equal(a: bytes, b: bytes) -> bool:
    try:
        return bool(json.loads(a) == json.loads(b))
    except ValueError:
        return False


def test_everything_wrong_is_reported_at_once(folder) -> None:
    tensors = load_file(folder / TENSORS)
    del tensors["token"]
    tensors["head"] = tensors["head"][:, :3].contiguous()
    tensors["age"] = tensors["age"].half()
    tensors["step"][0] = float("nan")
    tensors["surplus"] = torch.zeros(1)
    save_file(tensors, folder / TENSORS)
    with pytest.raises(UserError) as caught:
        read_model(folder)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "SHA-256",
        "token is missing",
        "head is float32 [5, 3], must be float32 [5, 16]",
        "age is float16",
        "step contains",
        "surplus is unknown",
    ):
        assert part in message
    assert message.count(";") >= 6


def test_faults_in_both_files_are_reported_together(folder) -> None:
    rewrite(folder, lambda body: body["env"].pop("dt_s"))
    (folder / TENSORS).unlink()
    with pytest.raises(UserError, match=r"env.dt_s is missing; predictor.safetensors is missing"):
        read_model(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b: b["predictor"].update(width="128"), "predictor.width must be int"),
        (lambda b: b["predictor"].update(width=True), "predictor.width must be int"),
        (lambda b: b["predictor"].update(width=17), "multiple of heads"),
        (lambda b: b["predictor"].update(width=10**9), "width is 1000000000"),
        (lambda b: b["predictor"].update(depth=3), "tensor blocks.2.widen is missing"),
        (lambda b: b.update(latent_scale=0), "latent_scale"),
        (lambda b: b.update(latent_scale=1e400), "latent_scale"),
        (lambda b: b.update(num_tokens=-1), "num_tokens"),
        (lambda b: b.update(action_mean=[0.0]), "action_mean has 1 entries, must have 2"),
        (lambda b: b.update(action_std=[0.0, 1.0]), "action_std"),
        (lambda b: b.update(action_std=[None, 1.0]), "action_std[0]"),
        (lambda b: b.update(proprio_std=[1.0]), "proprio_std has 1 entries"),
        (lambda b: b["env"].update(cameras=[]), "cameras is empty"),
        (lambda b: b["env"].update(action_low=[1.0, 1.0]), "low not above high"),
        (lambda b: b["encoder"].update(shipped="yes"), "encoder.shipped must be bool"),
        (lambda b: b.update(training=[]), "training must be"),
        (lambda b: b.update(surprise=1), "surprise is unknown"),
        (lambda b: b.pop("data_hash"), "data_hash is missing"),
        (lambda b: b.update(tensors_sha256="00"), "SHA-256"),
    ],
)
def test_wrong_entries_are_named(folder, change, said: str) -> None:
    rewrite_raw(folder, change)
    with pytest.raises(UserError) as caught:
        read_model(folder)
    assert said in str(caught.value)


def rewrite_raw(folder: Path, change) -> None:
    """As `rewrite`, for values that canonical JSON does not admit too."""
    try:
        rewrite(folder, change)
    except UserError:
        body = json.loads((folder / MODEL_JSON).read_text())
        change(body)
        (folder / MODEL_JSON).write_text(json.dumps(body).replace("Infinity", "1e400"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_value_whatever_escapes_as_another_error(folder, data) -> None:
    """R29: mutated descriptions give a clean `UserError`, quickly."""
    original = (folder / MODEL_JSON).read_bytes()
    body = json.loads(original)
    target = body
    while True:
        key = data.draw(st.sampled_from(sorted(target)))
        if isinstance(target[key], dict) and target[key] and data.draw(st.booleans()):
            target = target[key]
            continue
        target[key] = data.draw(json_values)
        break
    with contextlib.suppress(UserError):
        body["checksum"] = json_checksum(body)
    try:
        (folder / MODEL_JSON).write_text(json.dumps(body))
        started = time.process_time()
        with contextlib.suppress(UserError):
            read_model(folder)
        assert time.process_time() - started < 0.5
    finally:
        (folder / MODEL_JSON).write_bytes(original)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not valid JSON"),
        (b"[]", "not the description"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a":NaN}', "not valid"),
    ],
)
def test_a_description_that_is_not_one(folder, content: bytes, said: str) -> None:
    (folder / MODEL_JSON).write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_model(folder)


def test_a_newer_schema_asks_for_an_update(folder) -> None:
    rewrite(folder, lambda body: body.update(schema=2))
    with pytest.raises(UserError, match=r"schema 2.*update"):
        read_model(folder)


def test_an_edit_by_hand_is_noticed(folder) -> None:
    text = (folder / MODEL_JSON).read_text()
    (folder / MODEL_JSON).write_text(text.replace('"latent_scale": 0.3', '"latent_scale": 0.4'))
    with pytest.raises(UserError, match="checksum"):
        read_model(folder)


def test_a_folder_without_a_model_says_so(tmp_path) -> None:
    with pytest.raises(UserError, match=r"no model\.json"):
        read_model(tmp_path)


def test_a_full_disk_keeps_the_old_model(folder, description, predictor, monkeypatch) -> None:
    real = durable.os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) > 500:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(durable.os, "write", full)
    newer = dataclasses.replace(description, latent_scale=0.9)
    with pytest.raises(UserError, match="disk is full"):
        save_model(folder, newer, dict(predictor.named_parameters()), torch.zeros(8, 5))
    monkeypatch.undo()
    assert read_model(folder)[0] == description
