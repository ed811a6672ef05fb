"""Meta's original files: converted once, nothing executed, the same latents; whatever else they hold is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from goalward import UserError
from goalward.experiments.bench.vjepa2_ac.synthetic import weights
from goalward.experiments.convert import ConvertCommand, run
from goalward.wm.conversion import unpickle
from goalward.wm.encoders import load_encoder
from goalward.wm.encoders.vjepa2_format import VJepa2Shape, meta_encoder
from goalward.wm.vjepa2_ac.config import VJepa2ACConfig
from goalward.wm.vjepa2_ac.folder import read_predictor

SHAPE = VJepa2Shape(width=48, depth=2, heads=2, hidden=209, patch_px=16, tubelet=2, image_px=64)


def meta_tensors(seed: int = 0, shape: VJepa2Shape = SHAPE) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.2 * torch.randn(size, generator=generator) for name, size in shape.tensors().items()}


def prefixed(tensors: dict[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    """As the training script saves them: wrapped twice, with a table of positions that rotary attention does not use."""
    wrapped = OrderedDict((f"module.backbone.{name}", value) for name, value in tensors.items())
    wrapped["module.backbone.pos_embed"] = torch.zeros(1, 32 * 16, 48)
    return wrapped


def save(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def convert(path: Path, out: Path, **options: Any) -> int:
    return run(ConvertCommand(checkpoint=path, out=out, heads=2, **options))


@pytest.mark.parametrize("legacy", [False, True])
def test_the_encoder_is_taken_out_and_gives_the_original_s_latents(
    tmp_path: Path, pictures: Any, legacy: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = meta_tensors()
    file = save(
        tmp_path / "vit.pt",
        {"encoder": prefixed(tensors), "predictor": {"x": torch.zeros(2)}, "opt": {"lr": 0.1}, "epoch": 3},
        _use_new_zipfile_serialization=not legacy,
    )
    assert convert(file, tmp_path / "model") == 0
    said = capsys.readouterr().err
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert sha256 in said
    assert "width 48, 2 blocks, 2 heads, 64 px, 16 patch tokens" in said
    encoder: Any = load_encoder(f"{tmp_path / 'model'}#tokens=all", dtype=torch.float32)
    assert (encoder.image_size_px, encoder.dim, encoder.preprocessing.resize_px) == (64, 48, 73)
    assert encoder.origin.num_parameters == sum(value.numel() for value in tensors.values())
    assert bool(torch.isfinite(encoder.encode(pictures(1, 64))).all())
    with safe_open(str(tmp_path / "model" / "model.safetensors"), "pt") as stored:
        assert stored.metadata()["source_sha256"] == sha256
        qkv = tensors["blocks.1.attn.qkv.weight"]
        for index, part in enumerate(("query", "key", "value")):
            split = stored.get_tensor(f"encoder.layer.1.attention.{part}.weight")
            assert torch.equal(split, qkv[48 * index : 48 * (index + 1)])


def test_transformers_finds_every_tensor_in_the_converted_folder(tmp_path: Path) -> None:
    import transformers

    convert(save(tmp_path / "vit.pt", {"encoder": prefixed(meta_tensors())}), tmp_path / "model", quiet=True)
    _, info = transformers.VJEPA2Model.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"config.json", "model.safetensors", "video_preprocessor_config.json"}


def test_a_published_width_needs_no_heads_and_the_mlp_ratio_survives(tmp_path: Path) -> None:
    shape = VJepa2Shape(width=1408, depth=1, heads=22, hidden=6144, patch_px=16, tubelet=2, image_px=384)
    tensors = {name: torch.zeros(1).expand(size) for name, size in shape.tensors().items()}
    found = meta_encoder(tensors | {"pos_embed": torch.zeros(1, 32 * 24 * 24, 1)})[1]
    assert found == shape
    assert meta_encoder(tensors)[1].image_px == 256
    from goalward.wm.encoders.vjepa2_format import _config

    assert int(1408 * _config(shape)["mlp_ratio"]) == 6144
    assert int(48 * _config(SHAPE)["mlp_ratio"]) == 209


def test_everything_that_does_not_fit_is_listed_at_once(tmp_path: Path) -> None:
    tensors = meta_tensors()
    del tensors["norm.weight"], tensors["blocks.1.norm1.bias"]
    tensors |= {"spare": torch.zeros(1), "blocks.0.mlp.fc2.bias": torch.zeros(3), "norm.bias": torch.full((48,), float("nan"))}
    with pytest.raises(UserError) as caught:
        convert(save(tmp_path / "vit.pt", {"encoder": tensors}), tmp_path / "model")
    said = str(caught.value)
    for part in (
        "norm.weight is missing", "blocks.1.norm1.bias is missing", "spare is surplus", "V-JEPA 2.1 has another architecture",
        "blocks.0.mlp.fc2.bias is float32 [3], must be [48]", "norm.bias holds values that are not finite",
    ):  # fmt: skip
        assert part in said
    assert "\n" not in said
    assert not (tmp_path / "model").exists()


class Bomb:
    """Unpickled by a careless reader, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.path),)


def a_bomb(path: Path) -> None:
    save(path, {"encoder": {"weight": Bomb(path.parent / "executed")}})


def a_bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(path.parent / "executed")))


def a_module(path: Path) -> None:
    save(path, {"encoder": torch.nn.Linear(2, 2)})


def a_truncated_file(path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"encoder": meta_tensors()}, buffer)
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])


def not_a_checkpoint(path: Path) -> None:
    path.write_text("<html>404</html>")


def an_empty_file(path: Path) -> None:
    path.write_bytes(b"")


def another_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")


def a_script(path: Path) -> None:
    path.write_bytes(b"\x80\x02cos\nmkdir\nX" + len(str(path.parent / "executed")).to_bytes(4, "little"))


def numbers_beside_tensors(path: Path) -> None:
    save(path, {"encoder": {"weight": torch.zeros(2), "depth": 3}})


def sparse(path: Path) -> None:
    save(path, {"encoder": {"weight": torch.eye(3).to_sparse()}})


def a_list(path: Path) -> None:
    save(path, [torch.zeros(2)])


def another_entry(path: Path) -> None:
    save(path, {"target_encoder": meta_tensors(), "epoch": 1})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (a_bomb, "nothing of it was run"),
        (a_bare_pickle, "nothing of it was run"),
        (a_module, "nothing of it was run"),
        (a_truncated_file, "is truncated"),
        (not_a_checkpoint, "cannot be read|is damaged"),
        (an_empty_file, "cannot be read"),
        (another_archive, "cannot be read"),
        (a_script, "nothing of it was run"),
        (numbers_beside_tensors, r"no plain tensor: depth \(int\)"),
        (sparse, r"no plain tensor: weight \(Tensor\)"),
        (a_list, "holds a list; must hold a mapping"),
        (another_entry, "holds no mapping 'encoder' of tensors; it has epoch, target_encoder"),
    ],
)
def test_files_that_are_not_plain_tensors_are_refused_and_nothing_is_executed(
    tmp_path: Path, make: Callable[[Path], None], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.pt"
    make(file)
    assert unpickle.main([str(file), str(tmp_path / "tensors.safetensors"), "encoder"]) == 3
    assert re.search(said, json.loads(capsys.readouterr().out)["fault"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pt"]


def test_a_refusal_is_one_line_and_comes_out_of_another_process(tmp_path: Path) -> None:
    a_bomb(tmp_path / "bad.pt")
    with pytest.raises(UserError, match=r"no plain tensor; nothing of it was run; download it again") as caught:
        convert(tmp_path / "bad.pt", tmp_path / "model")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pt"]


def test_the_predictor_of_the_same_file_is_converted_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = VJepa2ACConfig(dim=12, width=96, depth=1, heads=4, hidden=192)
    file = save(tmp_path / "ac.pt", {"encoder": meta_tensors(), "predictor": {f"module.{k}": v for k, v in weights(config).items()}})
    assert convert_part(file, tmp_path / "ac", heads=4) == 0
    assert "V-JEPA 2-AC predictor" in capsys.readouterr().err
    assert read_predictor(tmp_path / "ac").config.width == 96
    with pytest.raises(UserError, match="already holds a predictor"):
        convert_part(file, tmp_path / "ac", heads=4)
    with pytest.raises(UserError, match="leave them out with --part predictor"):
        convert_part(file, tmp_path / "other", image_size_px=384)
    with pytest.raises(UserError, match=r"not 0{64}; download it again"):
        convert_part(file, tmp_path / "other", sha256="0" * 64)
    assert not (tmp_path / "other").exists()


def convert_part(path: Path, out: Path, **options: Any) -> int:
    return run(ConvertCommand(checkpoint=path, out=out, part="predictor", **options))


def test_wrong_options_are_named(tmp_path: Path) -> None:
    file = save(tmp_path / "vit.pt", {"encoder": meta_tensors(), "target_encoder": meta_tensors(1)})
    with pytest.raises(UserError, match="no such file"):
        convert(tmp_path / "nothing.pt", tmp_path / "model")
    with pytest.raises(UserError, match=r"sha256: .* has [0-9a-f]{64}, not 0{64}"):
        convert(file, tmp_path / "model", sha256="0" * 64)
    with pytest.raises(UserError, match="heads: None for a width of 48"):
        run(ConvertCommand(checkpoint=file, out=tmp_path / "model"))
    for change, said in (
        ({"heads": 0}, "heads is 0"), ({"image_size_px": 40}, "image_size_px is 40"), ({"sha256": "xyz"}, "64 hexadecimal digits")
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            ConvertCommand(**({"checkpoint": file, "out": tmp_path / "model"} | change))
    assert convert(file, tmp_path / "model", entry="target_encoder", quiet=True, sha256=hashlib.sha256(file.read_bytes()).hexdigest()) == 0
    with pytest.raises(UserError, match="already holds a model"):
        convert(file, tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["crop_size"] == 256


def test_other_architectures_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a V-JEPA 2 encoder: .*found cls_token, head"):
        convert(save(tmp_path / "a.pt", {"encoder": {"cls_token": torch.zeros(1), "head": torch.zeros(2)}}), tmp_path / "model")


def test_an_output_that_is_a_file_and_positions_that_are_none_are_refused_at_once(tmp_path: Path) -> None:
    file = save(tmp_path / "vit.pt", {"encoder": meta_tensors()})
    (tmp_path / "taken").write_text("x")
    with pytest.raises(UserError, match="taken is a file; choose a folder"):
        convert(file, tmp_path / "taken")
    for positions in (torch.zeros(0), torch.zeros(()), torch.zeros(1, 0, 48)):
        odd = save(tmp_path / "odd.pt", {"encoder": meta_tensors() | {"pos_embed": positions}})
        with pytest.raises(UserError, match="pos_embed has shape"):
            convert(odd, tmp_path / "model")


def test_weights_that_a_kill_left_without_their_configuration_are_written_again(tmp_path: Path) -> None:
    file = save(tmp_path / "vit.pt", {"encoder": meta_tensors()})
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"half")
    assert convert(file, tmp_path / "model", quiet=True, image_size_px=64) == 0
    assert load_encoder(tmp_path / "model").dim == 48


def test_a_section_may_have_a_slash_in_its_name(tmp_path: Path) -> None:
    file = save(tmp_path / "vit.pt", {"a/b": meta_tensors()})
    assert convert(file, tmp_path / "model", entry="a/b", quiet=True, image_size_px=64) == 0
