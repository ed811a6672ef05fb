"""Small random checkpoints in the true format: the original architectures' own classes, a tiny configuration, `save_pretrained`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

BODY = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
PREDICTOR = {"pred_hidden_size": 12, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 1}
WIDE = BODY | {"intermediate_size": 96}
TEXT = WIDE | {"vocab_size": 49408}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
COMMON = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}

# Kind: class and configuration in transformers, the preprocessor file that its publishers ship, sides in pixels, tokens, licence.
KINDS: dict[str, dict[str, Any]] = {
    "vjepa2": {
        "model": "VJEPA2Model",
        "config": ("VJEPA2Config", BODY | PREDICTOR | {"crop_size": 64}),
        "file": "video_preprocessor_config.json",
        "processor": COMMON | IMAGENET | {"size": {"shortest_edge": 73}, "crop_size": {"height": 64, "width": 64}, "resample": 2},
        "input": 64, "grid": 4, "licence": "MIT",
    },
    "dinov2": {
        "model": "Dinov2Model",
        "config": ("Dinov2Config", BODY | {"image_size": 112, "patch_size": 14}),
        "file": "preprocessor_config.json",
        "processor": COMMON | IMAGENET | {"size": {"shortest_edge": 64}, "crop_size": {"height": 56, "width": 56}, "resample": 3},
        "input": 56, "grid": 4, "licence": "Apache-2.0",
    },
    "dinov2-registers": {
        "model": "Dinov2WithRegistersModel",
        "config": ("Dinov2WithRegistersConfig", BODY | {"image_size": 112, "patch_size": 14, "num_register_tokens": 4}),
        "file": "preprocessor_config.json",
        "processor": COMMON | IMAGENET | {"size": {"shortest_edge": 64}, "crop_size": {"height": 56, "width": 56}, "resample": 3},
        "input": 56, "grid": 4, "licence": "Apache-2.0",
    },
    "dinov3": {
        "model": "DINOv3ViTModel",
        "config": ("DINOv3ViTConfig", WIDE | {"image_size": 64, "num_register_tokens": 4}),
        "file": "preprocessor_config.json",
        "processor": COMMON | IMAGENET | {"size": {"height": 64, "width": 64}, "resample": 2},
        "input": 64, "grid": 4, "licence": "DINOv3-License",
    },
    "siglip2": {
        "model": "SiglipModel",
        "config": ("SiglipConfig", {"text_config": TEXT, "vision_config": WIDE | {"image_size": 64}}),
        "file": "preprocessor_config.json",
        "processor": COMMON | {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 64, "width": 64}, "resample": 2},
        "input": 64, "grid": 4, "licence": "Apache-2.0",
    },
    "siglip2-naflex": {
        "model": "Siglip2Model",
        "config": ("Siglip2Config", {"text_config": TEXT, "vision_config": WIDE | {"num_patches": 16}}),
        "file": "preprocessor_config.json",
        "processor": COMMON | {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "max_num_patches": 16, "patch_size": 16, "resample": 2},
        "input": 64, "grid": 4, "licence": "Apache-2.0",
    },
}  # fmt: skip


def _save(kind: str, folder: Path, seed: int = 0, **changes: Any) -> Path:
    import transformers

    entry = KINDS[kind]
    name, values = entry["config"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, entry["model"])(getattr(transformers, name)(**(values | changes)))
        for weight in model.parameters():  # biases and scales begin as zeros and ones, which would hide a mistake
            weight.data += 0.1 * torch.randn_like(weight)
    bars = transformers.utils.logging
    bars.disable_progress_bar()
    model.save_pretrained(folder)
    (folder / entry["file"]).write_text(json.dumps(entry["processor"]))
    return folder


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root, made = tmp_path_factory.mktemp("checkpoints"), {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = _save(kind, root / kind)
        return made[kind]

    return make


@pytest.fixture
def checkpoint(_made: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Gives a folder of its own with a checkpoint of a kind: `checkpoint("dinov2")`."""

    def give(kind: str, name: str = "model") -> Path:
        return Path(shutil.copytree(_made(kind), tmp_path / name))

    return give


@pytest.fixture
def save_checkpoint() -> Callable[..., Path]:
    """Makes a checkpoint with changes of its configuration: `save_checkpoint("vjepa2", folder, seed=1, hidden_size=96)`."""
    return _save


@pytest.fixture
def facts() -> dict[str, dict[str, Any]]:
    """What is known of each kind: sides, tokens, licence, how it is made."""
    return KINDS


@pytest.fixture
def pictures() -> Callable[..., np.ndarray]:
    """Smooth pictures with some noise, uint8 [M, h, w, 3]: `pictures(count, size, seed)`."""

    def draw(count: int, size: int, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        coarse = torch.from_numpy(rng.uniform(0, 255, (count, 3, 6, 6)))
        smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").permute(0, 2, 3, 1).numpy()
        return np.ascontiguousarray((smooth + rng.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8))

    return draw
