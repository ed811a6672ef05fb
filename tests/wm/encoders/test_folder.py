import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from goalward import UserError
from goalward.wm.encoders import SmallEncoder, SmallEncoderConfig, SmallEncoderNetwork, load_small_encoder, save_small_encoder
from goalward.wm.encoders.folder import JSON_NAME, WEIGHTS_NAME, write_atomically

TINY = SmallEncoderConfig(image_size_px=32, widths=(8, 8, 8), blocks=(0, 0, 1), dim=4)


@pytest.fixture
def encoder() -> SmallEncoder:
    return SmallEncoder(SmallEncoderNetwork(TINY, torch.Generator().manual_seed(1)), name="tiny", licence="MIT")


@pytest.fixture
def folder(tmp_path: Path, encoder: SmallEncoder) -> Path:
    save_small_encoder(tmp_path / "encoder", encoder, provenance={"command": "goalward pretrain"})
    return tmp_path / "encoder"


def edit(folder: Path, **changes: Any) -> None:
    described = json.loads((folder / JSON_NAME).read_text())
    (folder / JSON_NAME).write_text(json.dumps(described | changes))


def replace_tensors(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Writes other weights with a hash that fits, as somebody who edits by hand would."""
    data = save(tensors)
    (folder / WEIGHTS_NAME).write_bytes(data)
    edit(folder, weights_sha256=hashlib.sha256(data).hexdigest())


def test_round_trip(folder: Path, encoder: SmallEncoder) -> None:
    loaded = load_small_encoder(folder)
    assert (loaded.name, loaded.licence, loaded.config, loaded.fingerprint) == ("tiny", "MIT", TINY, encoder.fingerprint)
    x = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    assert torch.equal(loaded.encode(x), encoder.encode(x))
    assert json.loads((folder / JSON_NAME).read_text())["provenance"] == {"command": "goalward pretrain"}


def test_writing_twice_gives_the_same_bytes_and_leaves_no_scraps(folder: Path, encoder: SmallEncoder) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    save_small_encoder(folder, encoder, provenance={"command": "goalward pretrain"})
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert set(before) == {JSON_NAME, WEIGHTS_NAME}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_of_the_weights_is_noticed(folder: Path, data: st.DataObject) -> None:
    whole = (folder / WEIGHTS_NAME).read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        (folder / WEIGHTS_NAME).write_bytes(bytes(damaged))
        with pytest.raises(UserError, match="SHA-256"):
            load_small_encoder(folder)
    finally:
        (folder / WEIGHTS_NAME).write_bytes(whole)


def test_truncated_weights(folder: Path) -> None:
    whole = (folder / WEIGHTS_NAME).read_bytes()
    for length in (0, 4, len(whole) // 2, len(whole) - 1):
        (folder / WEIGHTS_NAME).write_bytes(whole[:length])
        with pytest.raises(UserError, match="cannot be parsed"):
            load_small_encoder(folder)


def test_every_fault_is_reported_at_once_in_one_line(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS_NAME)
    tensors["stem.weight"] = tensors["stem.weight"][:, :, :2]
    tensors["head.weight"] = tensors["head.weight"].double()
    tensors["stem.bias"][0] = float("nan")
    tensors["spare"] = torch.zeros(1)
    del tensors["position"]
    replace_tensors(folder, {name: value.contiguous() for name, value in tensors.items()})
    edit(folder, licence="")
    with pytest.raises(UserError) as caught:
        load_small_encoder(folder)
    message = str(caught.value)
    for part in (
        "licence is ''",
        "position is missing",
        "spare is unknown",
        "stem.weight is torch.float32 [8, 3, 2, 4]",
        "head.weight is torch.float64",
        "stem.bias holds",
    ):
        assert part in message
    assert "\n" not in message
    assert "goalward pretrain" in message


def test_other_weights_with_a_fitting_hash_do_not_pass_for_the_encoder(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS_NAME)
    tensors["stem.bias"] += 1
    replace_tensors(folder, tensors)
    with pytest.raises(UserError, match="fingerprint differs"):
        load_small_encoder(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": 2}, "schema 2"),
        ({"kind": "large"}, "kind 'large'"),
        ({"config": None}, "config must hold exactly"),
        ({"config": {"dim": 4}}, "config must hold exactly"),
        ({"config": {"image_size_px": 32, "widths": [8, 8, 8], "blocks": [0, 0, 1], "dim": True}}, "config.dim"),
        ({"config": {"image_size_px": 32.0, "widths": [8, 8, 8], "blocks": [0, 0, 1], "dim": 4}}, "config.image_size_px"),
        ({"config": {"image_size_px": 32, "widths": 8, "blocks": [0, 0, 1], "dim": 4}}, "config"),
        ({"config": {"image_size_px": 33, "widths": [8, 8, 8], "blocks": [0, 0, 1], "dim": 4}}, "image_size_px = 33"),
        ({"config": {"image_size_px": 32, "widths": [8, 8, 16], "blocks": [0, 0, 1], "dim": 4}}, "tensor down3.weight"),
        ({"fingerprint": 3}, "fingerprint is 3"),
        ({"name": ["x"]}, "name is"),
        ({"weights_sha256": None}, "SHA-256"),
    ],
)
def test_edited_descriptions_are_refused(folder: Path, changes: dict[str, Any], words: str) -> None:
    edit(folder, **changes)
    with pytest.raises(UserError) as caught:
        load_small_encoder(folder)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\x00", "[" * 100_000, '{"schema": NaN}'])
def test_descriptions_that_are_no_json_objects_are_refused(folder: Path, text: str) -> None:
    (folder / JSON_NAME).write_text(text)
    with pytest.raises(UserError, match=r"encoder\.json"):
        load_small_encoder(folder)


def test_binary_descriptions_are_refused(folder: Path) -> None:
    (folder / JSON_NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not valid JSON"):
        load_small_encoder(folder)


def test_missing_files(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS_NAME).unlink()
    with pytest.raises(UserError, match=r"encoder\.safetensors cannot be read"):
        load_small_encoder(folder)
    with pytest.raises(UserError, match="not an encoder folder"):
        load_small_encoder(tmp_path / "nothing")


def test_a_huge_description_is_not_read(folder: Path) -> None:
    with open(folder / JSON_NAME, "wb") as file:
        file.truncate(8 * 2**20)
    with pytest.raises(UserError, match="at most"):
        load_small_encoder(folder)


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "free some space"), (errno.EROFS, "may write to")])
def test_a_failing_disk_keeps_what_was_there(
    folder: Path, encoder: SmallEncoder, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(UserError, match=words):
        save_small_encoder(folder, encoder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_kill_between_the_two_files_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = SmallEncoder(SmallEncoderNetwork(TINY, torch.Generator().manual_seed(2)))

    def killed(path: Path, data: bytes) -> None:
        if path.name == JSON_NAME:
            raise KeyboardInterrupt
        write_atomically(path, data)

    monkeypatch.setattr("goalward.wm.encoders.folder.write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        save_small_encoder(folder, other)
    with pytest.raises(UserError, match="SHA-256"):
        load_small_encoder(folder)


def test_a_file_where_the_folder_should_be(tmp_path: Path, encoder: SmallEncoder) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot write"):
        save_small_encoder(tmp_path / "file", encoder)
