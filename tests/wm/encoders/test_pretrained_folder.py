"""Folders that are not what they say: one error each, everything wrong in it, nothing half-loaded. And where encoders are looked for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from goalward import UserError
from goalward.wm.encoders import licences, load_encoder
from goalward.wm.encoders.families import FAMILIES
from goalward.wm.encoders.hub import fetch_snapshot
from goalward.wm.encoders.spec import EncoderSpec, ReadOut, parse_spec, read_out_of

Checkpoint = Callable[..., Path]
WEIGHTS = "model.safetensors"


def refused(source: Any, **options: Any) -> str:
    """The one line with which an encoder is refused."""
    with pytest.raises(UserError) as caught:
        load_encoder(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize("kind", ["vjepa2", "dinov2", "dinov3", "siglip2"])
def test_missing_surplus_and_misshapen_tensors_are_listed_at_once(checkpoint: Checkpoint, kind: str) -> None:
    folder = checkpoint(kind)
    names: list[str] = []

    def change(tensors: dict[str, torch.Tensor]) -> None:
        family = FAMILIES[json.loads((folder / "config.json").read_text())["model_type"]]
        used = sorted(name for name in tensors if family.is_used(name))
        names.extend([used[0], used[-1]])
        del tensors[used[0]]
        tensors[used[-1]] = tensors[used[-1]][:5].clone()
        tensors["spare.weight"] = torch.zeros(2)

    rewrite(folder, change)
    said = refused(folder)
    assert "spare.weight is surplus" in said
    said = said.replace("tensor model.", "tensor ").replace("tensor vision_model.", "tensor ")  # prefixes differ between versions
    for name, what in zip(names, ("is missing", "has shape [5"), strict=True):
        assert f"tensor {name.removeprefix('vision_model.')} {what}" in said


def test_weights_that_are_not_finite_are_named(checkpoint: Checkpoint) -> None:
    folder = checkpoint("dinov2")
    rewrite(folder, lambda tensors: tensors["layernorm.bias"].fill_(float("nan")))
    assert "tensors layernorm.bias hold values that are not finite" in refused(folder)


def test_what_does_not_reach_the_latents_may_be_missing_or_changed(checkpoint: Checkpoint) -> None:
    for kind, extra in (("vjepa2", "predictor."), ("siglip2", "text_model."), ("dinov2", "embeddings.mask_token")):
        folder = checkpoint(kind, name=kind)
        before = load_encoder(f"{folder}#tokens=4").fingerprint

        def drop(tensors: dict[str, torch.Tensor], extra: str = extra) -> None:
            for name in [name for name in tensors if name.startswith(extra)]:
                del tensors[name]

        rewrite(folder, drop)
        assert load_encoder(f"{folder}#tokens=4").fingerprint == before


@pytest.mark.parametrize("kind", ["vjepa2", "siglip2-naflex"])
def test_one_changed_byte_of_the_weights_changes_the_fingerprint(checkpoint: Checkpoint, kind: str) -> None:
    folder = checkpoint(kind)
    before: Any = load_encoder(f"{folder}#tokens=4")
    used = next(name for name in sorted(load_file(folder / WEIGHTS)) if before.family.is_used(name))

    def nudge(tensors: dict[str, torch.Tensor]) -> None:
        tensors[used].flatten()[:1] += 1e-3

    rewrite(folder, nudge)
    after: Any = load_encoder(f"{folder}#tokens=4")
    assert after.fingerprint != before.fingerprint
    assert after.origin.weights_sha256 != before.origin.weights_sha256


def test_shards_are_one_model(checkpoint: Checkpoint, pictures: Any) -> None:
    folder = checkpoint("dinov3")
    whole: Any = load_encoder(f"{folder}#tokens=4")
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    halves = {f"model-0000{i}-of-00002.safetensors": names[i - 1 :: 2] for i in (1, 2)}
    for file, members in halves.items():
        save_file({name: tensors[name] for name in members}, folder / file, metadata={"format": "pt"})
    (folder / WEIGHTS).unlink()
    weight_map = {name: file for file, members in halves.items() for name in members}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    sharded: Any = load_encoder(f"{folder}#tokens=4")
    assert sharded.fingerprint == whole.fingerprint
    assert torch.equal(sharded.encode(pictures(1, 64)), whole.encode(pictures(1, 64)))
    second = folder / "model-00002-of-00002.safetensors"
    shutil.copy(folder / "model-00001-of-00002.safetensors", second)
    assert "is in model-00001-of-00002.safetensors and in model-00002" in refused(folder)
    second.unlink()
    assert "model-00002-of-00002.safetensors named by model.safetensors.index.json but not there" in refused(folder)
    edit(folder / "model.safetensors.index.json", weight_map={"a": "../../etc/passwd"})
    assert "is not a safetensors file of this folder" in refused(folder)
    edit(folder / "model.safetensors.index.json", weight_map={})
    assert "weight_map must name a file" in refused(folder)


def test_truncated_weights_are_refused_before_anything_is_loaded(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    folder = checkpoint("dinov2")
    monkeypatch.setattr(transformers.Dinov2Model, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    raw = (folder / WEIGHTS).read_bytes()
    for length in (0, 4, 100, len(raw) // 2, len(raw) - 1):
        (folder / WEIGHTS).write_bytes(raw[:length])
        assert "truncated" in refused(folder)
    (folder / WEIGHTS).write_bytes(raw + b"x")
    assert "was changed" in refused(folder)
    (folder / WEIGHTS).write_bytes((2).to_bytes(8, "little") + b"[]")
    assert "is not a safetensors file" in refused(folder)
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}).encode()
    (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + b"1234")
    assert "not a tensor that can be read" in refused(folder)
    (folder / WEIGHTS).write_bytes((3).to_bytes(8, "little") + b"{{{")
    assert "not valid JSON" in refused(folder)


def test_only_safetensors_are_read(checkpoint: Checkpoint) -> None:
    folder = checkpoint("dinov2")
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    assert "only pytorch_model.bin, which are not read; model.safetensors must be there" in refused(folder)
    (folder / "pytorch_model.bin").unlink()
    assert "no weights" in refused(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "bert"}, "model_type is 'bert', which is no encoder that this version knows; must be one of vjepa2, dinov2"),
        ({"model_type": "vjepa2_1"}, "model_type is 'vjepa2_1'"),
        ({"model_type": None}, "model_type is 'None'"),
        ({"transformers_weights": "other.safetensors"}, "transformers_weights is not followed"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantization_config is not followed"),
        ({"num_hidden_layers": 1000000}, "num_hidden_layers is 1000000, and there are"),
        ({"patch_size": 0}, "patch_size is 0|describes no Dinov2Model|cannot be read"),
        ({"hidden_size": "wide"}, "cannot be read as Dinov2Config"),
        ({"hidden_act": "nonsense"}, "describes no Dinov2Model that can be made"),
        ({"hidden_size": 4800}, "describes .* parameters, the weights hold"),
        ({"hidden_size": 96}, "has shape .*, must be"),
        ({"num_hidden_layers": 3}, r"encoder\.layer\.2\.norm1\.weight is missing"),
        ({"num_hidden_layers": 1, "out_features": None, "out_indices": None}, r"encoder\.layer\.1\.norm1\.weight is surplus"),
    ],
)
def test_a_configuration_that_does_not_suit_is_refused(checkpoint: Checkpoint, change: dict[str, Any], said: str) -> None:
    folder = checkpoint("dinov2")
    edit(folder / "config.json", **change)
    assert re.search(said, refused(folder))


def test_a_checkpoint_of_another_architecture_is_refused(checkpoint: Checkpoint) -> None:
    one, other = checkpoint("vjepa2", name="one"), checkpoint("dinov2", name="other")
    shutil.copy(other / WEIGHTS, one / WEIGHTS)
    said = refused(one)
    assert "not the weights of this VJEPA2Model" in said
    assert "encoder.layer.1.attention.query.weight is missing" in said
    assert "embeddings.cls_token is surplus" in said


def test_folders_without_a_model(tmp_path: Path, checkpoint: Checkpoint) -> None:
    assert "not an encoder folder" in refused(tmp_path)
    assert "did you mean goalward-small" in refused("goalward-smal")
    said = refused("runs/missing")
    assert "neither a known name nor a folder" in said
    assert "a hub id needs the commit that is meant" in said
    folder = checkpoint("dinov2")
    (folder / "config.json").write_text("{")
    assert "not valid JSON" in refused(folder)
    folder = checkpoint("dinov3", name="adapted")
    (folder / "adapter_config.json").write_text("{}")
    assert "merge it into the weights" in refused(folder)


def test_a_hub_id_without_a_network_is_one_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    def unreachable(*_: Any, **__: Any) -> Any:
        raise ConnectionError("Name or service\nnot known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    said = refused(f"facebook/dinov2-small@{'a' * 40}#tokens=4")
    assert "encoder facebook/dinov2-small@aaaaaaaaaaaa: not in the local cache, and the hub cannot be reached" in said
    assert "give the folder instead" in said


def test_a_hub_id_is_fetched_by_commit_and_only_what_is_read(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    folder, asked = checkpoint("dinov2"), []

    def snapshot(repository: str, **options: Any) -> str:
        asked.append((repository, options))
        if options.get("local_files_only"):
            raise LocalEntryNotFoundError("not here")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: None)
    commit = "0123456789" * 4
    encoder = load_encoder(f"facebook/dinov2-small@{commit}#tokens=4")
    assert encoder.name == f"facebook/dinov2-small@{commit}#tokens=4"
    assert [repository for repository, _ in asked] == ["facebook/dinov2-small"] * 2
    assert all(options["revision"] == commit for _, options in asked)
    assert not any(pattern.endswith((".bin", ".pt", ".py", "*")) for _, options in asked for pattern in options["allow_patterns"])
    assert encoder.fingerprint == load_encoder(f"{folder}#tokens=4").fingerprint


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("GatedRepoError", "conditions have not been accepted"),
        ("RevisionNotFoundError", "no such commit"),
        ("RepositoryNotFoundError", "no such model"),
    ],
)
def test_the_hub_s_refusals_are_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str, said: str) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    kind = getattr(errors, error)

    def refuse(*_: Any, **__: Any) -> Any:
        raise kind.__new__(kind)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=said):
        fetch_snapshot("owner/name", "a" * 40)


def test_without_the_extra_the_error_says_how_to_install_it(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint("dinov2")
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "transformers.utils.logging", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install goalward[hf]" in refused(folder)
    with pytest.raises(UserError, match=r"pip install goalward\[hf\]"):
        fetch_snapshot("owner/name", "a" * 40)
    assert load_encoder("pixels").name == "pixels"


def test_nothing_of_the_extra_is_imported_until_it_is_needed_and_torchvision_never() -> None:
    code = (
        "import sys, goalward.wm.encoders as e; e.load_encoder('pixels')\n"
        "found = {'transformers', 'huggingface_hub', 'torchvision', 'timm', 'torchcodec'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_licence_that_is_not_permissive_is_said_once(
    checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(licences, "_announced", set())
    folder = checkpoint("dinov3")
    load_encoder(folder)
    said = capsys.readouterr().err
    assert said.startswith(f"licence of {folder}: DINOv3-License. Commercial use is allowed; military")
    load_encoder(f"{folder}#tokens=4")
    load_encoder(checkpoint("dinov2", name="free"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\ntags:\n- video\n---\n# V-JEPA 2\n", "MIT"),
        ("---\nlicense: cc-by-nc-4.0\n---\n", "cc-by-nc-4.0"),
        ("---\nlicense: other\nlicense_name: dinov3-license\n---\n", "dinov3-license"),
        ("---\nlicense: other\n---\n", "MIT"),
        ("# no front matter\nlicense: gpl\n", "MIT"),
        ("", "MIT"),
    ],
)
def test_the_model_card_says_the_licence(tmp_path: Path, card: str, licence: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_text(card)
    assert licences.licence_of(tmp_path, FAMILIES["vjepa2"]) == licence
    assert licences.is_permissive("Apache-2.0")
    assert not licences.is_permissive("cc-by-nc-4.0")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x#tokens", "is not an option with a value"),
        ("x#tokens=4,tokens=9", "is given twice"),
        ("x#colour=red", "write #tokens=16,fit=whole with any of tokens, frame, input, fit, norm"),
        ("x#tokens=5", "tokens = 5: must be a square number"),
        ("x#tokens=-4", "tokens is '-4'; must be a whole number, or all"),
        ("x#frame=0", "frame is '0'; must be a whole number of pixels"),
        ("x#frame=9999", "frame = 9999: must be a number of pixels in 1..2048"),
        ("x#fit=tight", "fit = 'tight': must be published or whole"),
        ("x#norm=batch", "norm = 'batch': must be none or layer"),
        ("facebook/dinov2-small@main", "is not a commit of 40 hexadecimal digits"),
    ],
)
def test_what_is_written_wrongly_is_named(text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_spec(text)
    assert said in str(caught.value)


def test_specs_are_read_and_written_alike(tmp_path: Path) -> None:
    commit = "ab" * 20
    for text in (f"owner/name@{commit}", f"owner/name@{commit}#tokens=all,norm=layer", "models/x#frame=128,fit=whole", "pixels"):
        assert str(parse_spec(text)) == text
    spec = parse_spec(f"owner/name@{commit}#tokens=all")
    assert (spec.source, spec.revision, spec.options, spec.is_hub_id) == ("owner/name", commit, {"tokens": 0}, True)
    odd = tmp_path / "a#b@c"
    odd.mkdir()
    assert parse_spec(str(odd)).source == parse_spec(odd).source == str(odd)
    assert parse_spec(f"{odd}#tokens=4") == EncoderSpec(source=str(odd), options={"tokens": 4})
    assert read_out_of({"norm": "layer"}, ReadOut(tokens=9)) == ReadOut(tokens=9, norm="layer")


def test_options_do_not_belong_to_our_own_folders(tmp_path: Path) -> None:
    from goalward.wm.encoders import SmallEncoder, SmallEncoderConfig, SmallEncoderNetwork, save_small_encoder

    shape = SmallEncoderConfig(image_size_px=32, widths=(8, 8, 8), blocks=(0, 0, 0), dim=4)
    save_small_encoder(tmp_path / "small", SmallEncoder(SmallEncoderNetwork(shape)))
    assert "options belong to encoders in transformers format" in refused(f"{tmp_path / 'small'}#tokens=4")
    assert "leave --encoder out" in refused(tmp_path / "small", at="elsewhere")
