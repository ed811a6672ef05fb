"""From the published file to a predictor: strict, whole or not at all."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess

import pytest
import torch

from goalward import UserError
from goalward.wm.conversion import tensor_file, unpickle
from goalward.wm.vjepa2_ac.config import VJepa2ACConfig
from goalward.wm.vjepa2_ac.folder import JSON_NAME, TENSORS_NAME, convert_predictor, read_predictor
from goalward.wm.vjepa2_ac.mapping import check_names, expected_shapes, sizes_of, stripped

GRID = {"heads": 2, "rows": 2, "columns": 2}


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Reads published files in this process: starting another takes seconds, and tests/wm/conversion does it."""

    def run(command, **_):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = unpickle.main(command[3:])
        return subprocess.CompletedProcess(command, code, said.getvalue(), "")

    monkeypatch.setattr(tensor_file.subprocess, "run", run)


@pytest.fixture
def published(ac, tmp_path):
    return ac.save_published(tmp_path / "ac.pt", ac.weights(ac.TINY), encoder={"w": torch.zeros(3)})


def test_a_converted_file_gives_the_same_predictor(ac, published, tmp_path):
    converted = convert_predictor(published, tmp_path / "model", **GRID)
    assert converted.config == ac.TINY
    assert converted.num_parameters == sum(t.numel() for t in ac.weights(ac.TINY).values())
    assert len(converted.source_sha256) == 64
    body = json.loads((tmp_path / "model" / JSON_NAME).read_text())
    assert body["source"] == {"file": "ac.pt", "sha256": converted.source_sha256}
    read, made = read_predictor(tmp_path / "model"), ac.make()
    assert read.config == made.config
    assert not any(p.requires_grad for p in read.parameters())
    for (name, one), (other, two) in zip(sorted(read.state_dict().items()), sorted(made.state_dict().items()), strict=True):
        assert name == other
        assert torch.equal(one, two)


def test_weights_in_half_precision_are_widened(ac, tmp_path):
    half = {name: tensor.to(torch.bfloat16) for name, tensor in ac.weights(ac.TINY).items()}
    convert_predictor(ac.save_published(tmp_path / "ac.pt", half), tmp_path / "model", **GRID)
    assert read_predictor(tmp_path / "model").dtype == torch.float32
    assert read_predictor(tmp_path / "model", dtype=torch.bfloat16).dtype == torch.bfloat16


def test_all_missing_and_surplus_keys_are_listed_at_once(ac, tmp_path):
    tensors = ac.weights(ac.TINY)
    del tensors["predictor_norm.bias"], tensors["predictor_blocks.1.attn.proj.weight"]
    tensors |= {"surplus.one": torch.zeros(2), "surplus.two": torch.zeros(2)}
    tensors["predictor_proj.bias"] = torch.zeros(3)
    tensors["state_encoder.bias"] = torch.full((28,), float("nan"))
    with pytest.raises(UserError) as caught:
        convert_predictor(ac.save_published(tmp_path / "ac.pt", tensors), tmp_path / "model", **GRID)
    for part in (
        "6 faults", "predictor_blocks.1.attn.proj.weight is missing", "predictor_norm.bias is missing", "surplus.one is unknown",
        "surplus.two is unknown", "predictor_proj.bias is float32 [3], must be floats [6]", "state_encoder.bias holds values that are not",
    ):  # fmt: skip
        assert part in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_another_architecture_is_refused(ac, tmp_path):
    path = ac.save_published(tmp_path / "ac.pt", {"patch_embed.proj.weight": torch.zeros(2, 2), "norm.bias": torch.zeros(2)})
    with pytest.raises(UserError, match="not V-JEPA 2-AC's predictor: no matrix predictor_embed or action_encoder"):
        convert_predictor(path, tmp_path / "model", **GRID)


def test_the_wrong_number_of_heads_is_refused_where_it_cannot_be(published, tmp_path):
    with pytest.raises(UserError, match="multiple of twice the heads"):
        convert_predictor(published, tmp_path / "model", heads=3)


def test_the_published_size_is_read_from_the_shapes():
    with torch.device("meta"):
        tensors = {name: torch.empty(shape) for name, shape in expected_shapes(VJepa2ACConfig()).items()}
    assert len(tensors) == 300
    assert sum(tensor.numel() for tensor in tensors.values()) == 305_220_992
    sizes = sizes_of(tensors)
    assert (sizes.dim, sizes.width, sizes.depth, sizes.heads, sizes.hidden) == (1408, 1024, 24, 16, 4096)


def test_prefixes_are_stripped(ac):
    tensors = {f"module.backbone.{name}": tensor for name, tensor in ac.weights(ac.TINY).items()}
    check_names(stripped(tensors), ac.TINY)


@pytest.mark.parametrize("harm", ["json", "tensors", "missing", "sizes"])
def test_a_damaged_folder_is_refused(published, tmp_path, harm):
    folder = tmp_path / "model"
    convert_predictor(published, folder, **GRID)
    if harm == "json":
        (folder / JSON_NAME).write_text((folder / JSON_NAME).read_text().replace('"depth": 2', '"depth": 3'))
    elif harm == "tensors":
        raw = bytearray((folder / TENSORS_NAME).read_bytes())
        raw[-1] ^= 1
        (folder / TENSORS_NAME).write_bytes(raw)
    elif harm == "sizes":
        (folder / JSON_NAME).write_text((folder / JSON_NAME).read_text().replace('"heads": 2', '"heads": "two"'))
    else:
        (folder / TENSORS_NAME).unlink()
    says = {"json": "checksum", "tensors": "SHA-256", "missing": "is missing", "sizes": "heads must be int"}[harm]
    with pytest.raises(UserError, match=f"damaged: .*{says}"):
        read_predictor(folder)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no vjepa2_ac\.json"):
        read_predictor(tmp_path)
    (tmp_path / JSON_NAME).write_text('{"format": "other"}')
    with pytest.raises(UserError, match="not the description"):
        read_predictor(tmp_path)
