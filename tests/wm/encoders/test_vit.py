"""The vision transformer that is pretrained here: its latents survive the way into V-JEPA 2's format and back, to rounding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from goalward import UserError
from goalward.wm.encoders import PretrainedEncoder, load_encoder
from goalward.wm.encoders.hub import require
from goalward.wm.encoders.vit import VisionTransformerConfig, VisionTransformerNetwork, rotary_tables, rotate
from goalward.wm.encoders.vit_folder import export_vision_transformer

TINY = VisionTransformerConfig(image_size_px=64, dim=48, depth=2, heads=2)


def network(config: VisionTransformerConfig = TINY, seed: int = 0) -> VisionTransformerNetwork:
    """A network with lively weights: after its usual draw all tokens would look alike."""
    made = VisionTransformerNetwork(config, torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    for weight in made.parameters():
        weight.data += 0.15 * torch.randn(weight.shape, generator=generator)
    return made


def export(folder: Path, made: VisionTransformerNetwork, licence: str = "Apache-2.0") -> PretrainedEncoder:
    return export_vision_transformer(folder, made, licence=licence, provenance={"command": "goalward pretrain"})


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        VisionTransformerConfig(image_size_px=128, dim=192, depth=3, heads=3, tokens=16),
        VisionTransformerConfig(image_size_px=48, dim=22, depth=1, heads=1, tokens=9),
        VisionTransformerConfig(image_size_px=56, patch_px=8, dim=64, depth=2, heads=2, tokens=16),
    ],
)
def test_export_then_vjepa2model_gives_the_same_latents(tmp_path: Path, pictures: Any, config: VisionTransformerConfig) -> None:
    import transformers

    made = network(config)
    export(tmp_path / "vit", made)
    x = torch.from_numpy(pictures(3, config.image_size_px))
    with torch.no_grad():
        ours_MND = made(x)
    encoder = load_encoder(tmp_path / "vit", dtype=torch.float32)
    assert (encoder.tokens_per_view, encoder.dim, encoder.image_size_px) == (config.tokens, config.dim, config.image_size_px)
    assert float((encoder.encode(x) - ours_MND).abs().max()) < 1e-5
    assert float(ours_MND.std()) > 0.1
    # And without any of our code: transformers alone, frame by frame in doubled tubelets.
    model, info = transformers.VJEPA2Model.from_pretrained(tmp_path / "vit", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        clip = made._prepare.apply(x)[:, None].expand(-1, 2, -1, -1, -1)
        theirs_MGD = model.eval().get_vision_features(clip)
        assert float((made._pooling @ theirs_MGD - ours_MND).abs().max()) < 1e-5


def test_what_is_written_tells_where_it_comes_from(tmp_path: Path, pictures: Any) -> None:
    encoder = export(tmp_path / "vit", network(), licence="CC-BY-4.0")
    assert sorted(path.name for path in (tmp_path / "vit").iterdir()) == [
        "README.md", "config.json", "encoder.json", "model.safetensors", "video_preprocessor_config.json"
    ]  # fmt: skip
    described = json.loads((tmp_path / "vit" / "encoder.json").read_text())
    assert (described["kind"], described["source"], described["read_out"]["tokens"]) == ("pretrained", ".", 4)
    assert described["provenance"] == {"command": "goalward pretrain"}
    assert load_encoder(tmp_path / "vit").licence == encoder.licence == "CC-BY-4.0"
    assert load_encoder(tmp_path / "vit").fingerprint == encoder.fingerprint == described["fingerprint"]
    # Tokens may be chosen anew; the folder may move.
    assert load_encoder(f"{tmp_path / 'vit'}#tokens=all").tokens_per_view == 16
    (tmp_path / "vit").rename(tmp_path / "moved")
    assert load_encoder(tmp_path / "moved").fingerprint == encoder.fingerprint
    # Exported again over the old one, it is the new one.
    assert export(tmp_path / "moved", network(seed=5)).fingerprint == load_encoder(tmp_path / "moved").fingerprint != encoder.fingerprint


def test_frames_are_taken_whole_as_in_training(tmp_path: Path, pictures: Any) -> None:
    encoder = export(tmp_path / "vit", network())
    assert (encoder.preprocessing.resize_px, encoder.preprocessing.crop_px) == (64, 64)


def test_a_folder_whose_weights_were_exchanged_is_refused(tmp_path: Path) -> None:
    export(tmp_path / "one", network())
    export(tmp_path / "two", network(seed=7))
    (tmp_path / "two" / "model.safetensors").replace(tmp_path / "one" / "model.safetensors")
    with pytest.raises(UserError, match=r"has fingerprint [0-9a-f]{12}, .*refers to [0-9a-f]{12}: other weights"):
        load_encoder(tmp_path / "one")
    with pytest.raises(UserError, match=r"has weights of SHA-256 [0-9a-f]{12}, .*refers to [0-9a-f]{12}; give the folder"):
        load_encoder(f"{tmp_path / 'one'}#tokens=1")  # options change the fingerprint, and must not hide other weights


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": ""}, "source must be texts"),
        ({"fingerprint": 3}, "fingerprint must be texts"),
        ({"read_out": {}}, "read_out must hold exactly tokens, frame, input, fit, norm"),
        ({"read_out": {"tokens": "4", "frame": 0, "input": 0, "fit": "whole", "norm": "none"}}, "read_out.tokens is '4', must be int"),
        ({"kind": "huge"}, "kind 'huge'"),
        ({"source": "/nowhere"}, "was at /nowhere, and is not there any more; say where it is now with --encoder"),
    ],
)
def test_a_damaged_reference_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    export(tmp_path / "vit", network())
    file = tmp_path / "vit" / "encoder.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError) as caught:
        load_encoder(tmp_path / "vit")
    assert said in str(caught.value)


def test_rotation_keeps_lengths_and_turns_neighbours() -> None:
    cos_Gd, sin_Gd = rotary_tables(3, 16)
    assert cos_Gd.shape == sin_Gd.shape == (9, 16)
    assert torch.allclose(cos_Gd**2 + sin_Gd**2, torch.ones(9, 16))
    assert bool((sin_Gd[:, :4] == 0).all())  # time
    assert bool((sin_Gd[:, 12:] == 0).all())  # left over
    assert torch.equal(sin_Gd[5, 4:8], torch.tensor([1.0, 0.01, 1.0, 0.01]).sin())  # row 1: tiled, not interleaved
    assert torch.equal(sin_Gd[5, 8:12], torch.tensor([2.0, 0.02, 2.0, 0.02]).sin())  # column 2
    x = torch.arange(4.0).reshape(1, 1, 1, 4)
    quarter = rotate(x, torch.zeros(1, 4), torch.ones(1, 4))
    assert quarter.flatten().tolist() == [-1.0, 0.0, -3.0, 2.0]
    assert rotate(x.bfloat16(), torch.ones(1, 4), torch.zeros(1, 4)).dtype == torch.bfloat16


def test_drawing_weights_leaves_the_caller_s_random_numbers_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, again = (VisionTransformerNetwork(TINY, torch.Generator().manual_seed(3)).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert set(one) == set(TINY.shape.tensors())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patch_px": 3}, "patch_px = 3"),
        ({"image_size_px": 100}, "image_size_px = 100: must be a multiple of 16"),
        ({"dim": 50}, "dim = 50, heads = 2"),
        ({"dim": 8}, "dim = 8, heads = 2"),
        ({"depth": 0}, "depth = 0"),
        ({"tokens": 3}, "tokens = 3: must be a square number up to 16"),
        ({"tokens": 25}, "tokens = 25"),
    ],
)
def test_bad_configurations_name_the_field(change: dict[str, int], said: str) -> None:
    with pytest.raises(UserError) as caught:
        VisionTransformerConfig(**({"image_size_px": 64, "dim": 48, "depth": 2, "heads": 2} | change))
    assert said in str(caught.value)


def test_the_extra_is_named() -> None:
    with pytest.raises(UserError, match=r"pip install goalward\[hf\]"):
        require("no_such_module_of_the_extra")
