"""Preprocessing is the publishers': against transformers' own processors of Pillow, and against the published steps written out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from goalward import UserError
from goalward.wm.encoders import load_encoder
from goalward.wm.encoders.pooling import pooling_matrix
from goalward.wm.encoders.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

Checkpoint = Callable[..., Path]
LEVEL = 1 / 255


def by_hand(frame: np.ndarray, *, resize: int, crop: int, resample: Any, mean: Any, std: Any) -> np.ndarray:
    """The published steps on one frame, float64 [3, crop, crop]."""
    resized = np.asarray(Image.fromarray(frame).resize((resize, resize), resample=resample), dtype=np.float64)
    start = (resize - crop) // 2
    inner = resized[start : start + crop, start : start + crop] / 255
    return ((inner - np.array(mean)) / np.array(std)).transpose(2, 0, 1)


def in_floating_point(frame: np.ndarray, *, resize: int) -> np.ndarray:
    """DINOv3: brightness first, then resized without rounding; Pillow does it in its mode of floating point."""
    bands = [Image.fromarray(frame[..., c].astype(np.float32) / 255).resize((resize, resize), Image.Resampling.BILINEAR) for c in range(3)]
    brightness = np.stack([np.asarray(band, dtype=np.float64) for band in bands])
    return (brightness - np.array(IMAGENET_MEAN)[:, None, None]) / np.array(IMAGENET_STD)[:, None, None]


def assert_same_pixels(ours: torch.Tensor, theirs: np.ndarray, std: Any) -> None:
    """At most one grey level apart, and in nearly all pixels not at all."""
    levels = np.abs(ours.double().numpy() - theirs) * np.array(std)[:, None, None] / LEVEL
    assert levels.max() < 1.001
    assert (levels > 0.01).mean() < 5e-3


@pytest.mark.parametrize("size", [32, 64, 73, 96, 200])
@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_resizing_is_pillow_s(pictures: Any, size: int, resample: str) -> None:
    preprocessing = Preprocessing(resize_px=73, crop_px=64, resample=resample)
    x = pictures(2, size)
    ours = preprocessing.apply(torch.from_numpy(x))
    for frame, prepared in zip(x, ours, strict=True):
        filter_ = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[resample]
        theirs = by_hand(frame, resize=73, crop=64, resample=filter_, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        assert_same_pixels(prepared, theirs, IMAGENET_STD)


def test_v_jepa_2_at_full_size(pictures: Any) -> None:
    x = pictures(1, 256)
    ours = Preprocessing(resize_px=292, crop_px=256).apply(torch.from_numpy(x))
    theirs = by_hand(x[0], resize=292, crop=256, resample=Image.Resampling.BILINEAR, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert_same_pixels(ours[0], theirs, IMAGENET_STD)


@pytest.mark.parametrize(
    ("kind", "resize", "crop", "resample", "mean", "std"),
    [
        ("vjepa2", 73, 64, Image.Resampling.BILINEAR, IMAGENET_MEAN, IMAGENET_STD),
        ("dinov2", 64, 56, Image.Resampling.BICUBIC, IMAGENET_MEAN, IMAGENET_STD),
        ("siglip2", 64, 64, Image.Resampling.BILINEAR, (0.5,) * 3, (0.5,) * 3),
    ],
)
@pytest.mark.parametrize("described", [True, False])
def test_each_family_prepares_as_it_publishes(
    checkpoint: Checkpoint, pictures: Any, kind: str, resize: int, crop: int, resample: Any, mean: Any, std: Any, described: bool
) -> None:
    folder = checkpoint(kind)
    if not described:  # then the family's own publication decides; DINOv2's is 224 px
        for file in folder.glob("*preprocessor_config.json"):
            file.unlink()
        if kind == "dinov2":
            resize, crop = 256, 224
    encoder = load_encoder(f"{folder}#frame=96,tokens=4")
    x = pictures(2, 96)
    for frame, prepared in zip(x, encoder.preprocessing.apply(torch.from_numpy(x)), strict=True):
        assert_same_pixels(prepared, by_hand(frame, resize=resize, crop=crop, resample=resample, mean=mean, std=std), std)


def test_dinov3_resizes_in_floating_point(checkpoint: Checkpoint, pictures: Any) -> None:
    encoder = load_encoder(f"{checkpoint('dinov3')}#frame=96,tokens=4")
    x = pictures(1, 96)
    ours = encoder.preprocessing.apply(torch.from_numpy(x))[0].double().numpy()
    np.testing.assert_allclose(ours, in_floating_point(x[0], resize=64), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "processor"),
    [("dinov2", "BitImageProcessorPil"), ("siglip2", "SiglipImageProcessorPil"), ("siglip2-naflex", "Siglip2ImageProcessorPil")],
)
def test_transformers_own_processors_agree(checkpoint: Checkpoint, pictures: Any, kind: str, processor: str) -> None:
    import transformers

    folder = checkpoint(kind)
    encoder = load_encoder(f"{folder}#frame=96,tokens=4", dtype=torch.float32)
    x = pictures(2, 96)
    theirs = getattr(transformers, processor).from_pretrained(folder)(images=list(x), return_tensors="pt")
    ours = encoder.preprocessing.apply(torch.from_numpy(x))
    if kind == "siglip2-naflex":
        assert theirs["spatial_shapes"].tolist() == [[4, 4]] * 2
        cut = theirs["pixel_values"].reshape(2, 4, 4, 16, 16, 3)  # row, column, y, x, colour
        pixels = cut.permute(0, 5, 1, 3, 2, 4).reshape(2, 3, 64, 64)
    else:
        pixels = theirs["pixel_values"]
    for one, other in zip(ours, pixels, strict=True):
        assert_same_pixels(one, other.double().numpy(), (0.229, 0.224, 0.225) if kind == "dinov2" else (0.5,) * 3)


def test_latents_are_those_of_the_original_class(checkpoint: Checkpoint, facts: Any, pictures: Any) -> None:
    import transformers

    for kind, entry in facts.items():
        folder = checkpoint(kind, name=kind)
        encoder = load_encoder(f"{folder}#tokens=all", dtype=torch.float32)
        x = encoder.preprocessing.apply(torch.from_numpy(pictures(2, entry["input"])))
        original = getattr(transformers, entry["model"]).from_pretrained(folder).eval()
        with torch.no_grad():
            if kind == "vjepa2":
                theirs = original.get_vision_features(torch.stack([x, x], dim=1))
            elif kind == "siglip2":
                theirs = original.vision_model(pixel_values=x).last_hidden_state
            elif kind == "siglip2-naflex":
                patches = torch.stack([x[:, :, r : r + 16, c : c + 16] for r in range(0, 64, 16) for c in range(0, 64, 16)], dim=1)
                flat = patches.permute(0, 1, 3, 4, 2).flatten(2)
                shapes = torch.full((2, 2), 4)
                theirs = original.vision_model(flat, torch.ones(2, 16, dtype=torch.int64), shapes).last_hidden_state
            else:
                theirs = original(pixel_values=x).last_hidden_state[:, 1 + getattr(original.config, "num_register_tokens", 0) :]
        ours = encoder.encode(pictures(2, entry["input"]))
        assert float((ours - theirs).abs().max()) < 1e-5, kind


def test_whole_frames_are_only_resized(checkpoint: Checkpoint, pictures: Any) -> None:
    """As V-JEPA 2-AC sees its square frames: no border is cut away, and at the input's own size nothing is resized at all."""
    encoder = load_encoder(f"{checkpoint('vjepa2')}#fit=whole")
    x = pictures(1, 64)
    ours = encoder.preprocessing.apply(torch.from_numpy(x))[0].double().numpy()
    expected = (x[0] / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    np.testing.assert_allclose(ours, expected.transpose(2, 0, 1), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"resample": 1}, "resample is 1, must be 2"),
        ({"image_mean": [0.5, 0.5]}, "image_mean is .* three finite numbers"),
        ({"image_std": [0.5, 0.5, 0]}, "image_std .* above 0"),
        ({"do_normalize": False}, "do_normalize is False, must be true"),
        ({"do_rescale": 0, "rescale_factor": 1}, "do_rescale is 0.*rescale_factor must be 1 / 255"),
        ({"crop_size": {"height": 56, "width": 28}}, "crop_size .* must be a square"),
        ({"crop_size": "large"}, "crop_size is 'large'"),
        ({"size": {"shortest_edge": 32}}, "size 32 is below crop_size 56"),
        ({"size": {"longest_edge": 64}}, "size .* must be a square or a shortest edge"),
        ({"resample": [2]}, "resample is"),
        ({"image_mean": [10**400, 1, 1]}, "image_mean is"),
        ({"rescale_factor": 10**400}, "rescale_factor is"),
    ],
)
def test_a_preprocessor_that_cannot_be_followed_is_refused(checkpoint: Checkpoint, change: dict[str, Any], said: str) -> None:
    folder = checkpoint("dinov2")
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=said):
        load_encoder(f"{folder}#tokens=4")
    file.write_text("[]")
    with pytest.raises(UserError, match="not a JSON object"):
        load_encoder(folder)


@pytest.mark.parametrize(("grid", "tokens"), [(16, 16), (14, 16), (24, 16), (16, 9), (5, 4), (3, 1), (7, 36)])
def test_pooling_is_a_fair_share_of_the_picture(grid: int, tokens: int) -> None:
    matrix = pooling_matrix(grid, tokens)
    assert matrix is not None
    assert matrix.shape == (tokens, grid**2)
    assert torch.allclose(matrix.sum(1), torch.ones(tokens))
    assert torch.allclose(matrix.sum(0), torch.full((grid**2,), tokens / grid**2))  # every patch counts the same
    # A picture that grows evenly to the right is read off at the middle of each share.
    columns = torch.arange(grid).repeat(grid) + 0.5
    side = round(tokens**0.5)
    if grid % side == 0:
        assert torch.allclose((matrix @ columns)[:side], (torch.arange(side) + 0.5) * grid / side)


def test_pooling_to_every_patch_is_nothing() -> None:
    assert pooling_matrix(4, 16) is None
    assert pooling_matrix(4, 0) is None


def test_a_size_may_be_one_number(checkpoint: Checkpoint) -> None:
    """The older and commonest form."""
    folder = checkpoint("dinov2")
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 56}))
    encoder: Any = load_encoder(f"{folder}#tokens=4")
    assert (encoder.preprocessing.crop_px, encoder.preprocessing.resize_px) == (56, 56)
