"""Policy folders: what is written is read back to the bit; whatever is wrong with one is said, all of it, in one line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from goalward import UserError
from goalward.datasets import durable
from goalward.policies import load_policy
from goalward.policies.checkpoint import POLICY_JSON, TENSORS, build_network, read_policy, save_policy
from goalward.policies.registry import KINDS
from goalward.wm.checkpoint import EncoderReference, json_checksum
from goalward.wm.encoders import SmallEncoder, SmallEncoderConfig, SmallEncoderNetwork, save_small_encoder

every_kind = pytest.mark.parametrize("kind", sorted(KINDS))


@pytest.fixture
def make_folder(tmp_path, make_description):
    def make(kind: str = "gcbc") -> Path:
        description = make_description(kind)
        network = build_network(description, KINDS[kind].options(), torch.Generator().manual_seed(0))
        save_policy(tmp_path / kind, description, dict(network.named_parameters()), torch.full((4, 4), 0.25))
        return tmp_path / kind

    return make


def rewrite(folder: Path, change) -> None:
    """Edits policy.json the way a clever fault would: with a checksum that fits."""
    body = json.loads((folder / POLICY_JSON).read_text())
    change(body)
    body["checksum"] = json_checksum(body)
    (folder / POLICY_JSON).write_text(json.dumps(body))


@every_kind
def test_what_is_written_is_read_back(make_folder, make_description, kind: str) -> None:
    read, network, mean = read_policy(make_folder(kind))
    assert read == make_description(kind)
    assert torch.equal(mean, torch.full((4, 4), 0.25))
    original = build_network(read, KINDS[kind].options(), torch.Generator().manual_seed(0))
    for (name, a), (other, b) in zip(original.named_parameters(), network.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(a, b)
        assert not b.requires_grad


@every_kind
def test_a_loaded_policy_acts_to_the_bit_like_the_one_that_was_saved(make_policy, tmp_path, kind: str) -> None:
    shape = SmallEncoderConfig(image_size_px=32, widths=(8, 8, 8), blocks=(0, 0, 0), dim=6)
    tiny = SmallEncoder(SmallEncoderNetwork(shape, torch.Generator().manual_seed(0)), name="tiny")
    save_small_encoder(tmp_path / "encoder", tiny, provenance={"a": 1})
    policy = make_policy(kind)
    reference = EncoderReference(name="tiny", fingerprint=tiny.fingerprint, shipped=False)
    env = dataclasses.replace(policy.description.env, image_size_px=32)
    description = dataclasses.replace(policy.description, encoder=reference, env=env, num_tokens=8, dim=6)
    network = build_network(description, policy.options, torch.Generator().manual_seed(3))
    files = {path.name: path.read_bytes() for path in (tmp_path / "encoder").iterdir()}
    save_policy(tmp_path / "policy", description, dict(network.named_parameters()), torch.ones(8, 6), encoder_files=files)
    saved = type(policy)(description, network, torch.ones(8, 6), tiny)
    loaded = load_policy(tmp_path / "policy")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 2, 32, 32, 3), dtype=np.uint8)
    z = [p.encode(pixels) for p in (saved, loaded)]
    assert torch.equal(*z)
    chunks = [p.chunk(z[0][None, :2], z[0][2:], generator=torch.Generator().manual_seed(1), num_samples=4) for p in (saved, loaded)]
    assert torch.equal(*chunks)


def test_options_may_be_given_while_loading(make_folder, monkeypatch, encoder) -> None:
    monkeypatch.setattr("goalward.wm.encoders.load_encoder", lambda *_, **__: encoder)
    assert load_policy(make_folder("flow"), guidance=2.5).options.guidance == 2.5
    with pytest.raises(UserError, match="guidance cannot be changed"):
        load_policy(make_folder("gcbc"), guidance=2.5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_byte_is_noticed(make_folder, data) -> None:
    folder = make_folder("flow")
    name = data.draw(st.sampled_from([POLICY_JSON, TENSORS]))
    raw = (folder / name).read_bytes()
    at, bit = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 7))
    flipped = raw[:at] + bytes([raw[at] ^ (1 << bit)]) + raw[at + 1 :]
    if name == POLICY_JSON and raw[at : at + 1] in b" \n" and _json(flipped) == _json(raw):
        return  # White space turned into other white space: the content is what it was.
    (folder / name).write_bytes(flipped)
    with pytest.raises(UserError) as caught:
        read_policy(folder)
    assert "\n" not in str(caught.value)


def _json(raw: bytes) -> object:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def test_everything_wrong_is_reported_at_once(make_folder) -> None:
    folder = make_folder()
    tensors = load_file(folder / TENSORS)
    del tensors["head_bias"]
    tensors["head"] = tensors["head"][:, :3].contiguous()
    tensors["trunk.goal"][0] = float("nan")
    tensors["surplus"] = torch.zeros(1)
    save_file(tensors, folder / TENSORS)
    with pytest.raises(UserError) as caught:
        read_policy(folder)
    parts = ("SHA-256", "policy.json names", "head_bias is missing", "head is float32 [6, 3]", "trunk.goal contains", "surplus is unknown")
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b: b.update(kind="oracle"), "kind is 'oracle'; this version knows gcbc, flow, inverse"),
        (lambda b: b.update(kind="flow"), "options.goal_drop is missing"),
        (lambda b: b["options"].update(spread="wide"), "options.spread must be float"),
        (lambda b: b["options"].update(spread=-1.0), "spread is -1.0"),
        (lambda b: b["options"].update(guidance=1.0), "options.guidance is unknown"),
        (lambda b: b["network"].update(width=17), "multiple of heads"),
        (lambda b: b["network"].update(depth=2), "tensor trunk.blocks.1.mix is missing"),
        (lambda b: b.update(proprio=1), "proprio must be bool"),
        (lambda b: b.update(proprio=True), "tensor trunk.proprio is missing"),
        (lambda b: b.update(num_tokens=0), "num_tokens is 0"),
        (lambda b: b.update(action_mean=[0.0]), "action_mean has 1 entries, must have 2"),
        (lambda b: b.update(latent_scale=0), "latent_scale"),
        (lambda b: b.update(surprise=1), "surprise is unknown"),
        (lambda b: b.pop("data_hash"), "data_hash is missing"),
        (lambda b: b.update(schema=2), "schema 2"),
        (lambda b: b.update(format="goalward-model"), "not the description of a Goalward policy"),
    ],
)
def test_wrong_entries_are_named(make_folder, change, said: str) -> None:
    folder = make_folder()
    rewrite(folder, change)
    with pytest.raises(UserError) as caught:
        read_policy(folder)
    assert said in str(caught.value)


def test_an_edit_by_hand_is_noticed(make_folder) -> None:
    folder = make_folder()
    text = (folder / POLICY_JSON).read_text()
    (folder / POLICY_JSON).write_text(text.replace('"latent_scale": 0.3', '"latent_scale": 0.4'))
    with pytest.raises(UserError, match="checksum"):
        read_policy(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 10_000, b'{"a":NaN}', b"\xff\xfe"])
def test_a_description_that_is_not_one(make_folder, content: bytes) -> None:
    folder = make_folder()
    (folder / POLICY_JSON).write_bytes(content)
    with pytest.raises(UserError):
        read_policy(folder)


def test_a_folder_without_a_policy_says_so(tmp_path) -> None:
    with pytest.raises(UserError, match=r"no policy\.json.*goalward imitate"):
        read_policy(tmp_path)


def test_a_full_disk_keeps_the_old_policy(make_folder, make_description, monkeypatch) -> None:
    folder = make_folder()
    description, network, mean = read_policy(folder)
    real = durable.os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) > 500:
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(durable.os, "write", full)
    with pytest.raises(UserError, match="disk is full"):
        save_policy(folder, dataclasses.replace(description, latent_scale=0.9), dict(network.named_parameters()), mean)
    monkeypatch.undo()
    assert read_policy(folder)[0] == description
