"""V-JEPA 2's two formats: Meta's tensor names, and the folder that `VJEPA2Model` of transformers reads.

    patch_embed.proj              encoder.embeddings.patch_embeddings.proj
    blocks.N.attn.qkv             encoder.layer.N.attention.query, .key, .value
    blocks.N.attn.proj            encoder.layer.N.attention.proj
    blocks.N.norm1, norm2, mlp    encoder.layer.N.norm1, norm2, mlp
    norm                          encoder.layernorm

Both share the rotary positions, so nothing but names changes and latents are the same. Only the encoder is written; in the place of the
predictor of masked patches, which nothing here runs, stands one of zero layers, so that the folder loads with no tensor missing.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from goalward import UserError
from goalward.datasets.durable import explain
from goalward.wm.encoders.folder import write_atomically
from goalward.wm.encoders.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from goalward.wm.encoders.tensor_files import SINGLE

HEADS = {1024: 16, 1280: 16, 1408: 22}
"""Attention heads of the published widths: ViT-L, ViT-H, ViT-g."""
_PREFIX = re.compile(r"^(module\.|backbone\.)+")
_POSITIONS = "pos_embed"  # stored, but not used where positions are rotary
_STUB_WIDTH = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class VJepa2Shape:
    """Sizes of an encoder."""

    width: int
    """Latent width D."""
    depth: int
    """Blocks."""
    heads: int
    """Attention heads."""
    hidden: int
    """Width inside the feed-forward layers."""
    patch_px: int
    """Side of a patch, pixels."""
    tubelet: int
    """Frames of a tubelet."""
    image_px: int
    """Side of the input, pixels."""

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Meta's names of all tensors, with their shapes."""
        D = self.width
        found: dict[str, tuple[int, ...]] = {"patch_embed.proj.weight": (D, 3, self.tubelet, self.patch_px, self.patch_px)}
        found |= {"patch_embed.proj.bias": (D,), "norm.weight": (D,), "norm.bias": (D,)}
        for block in range(self.depth):
            for name, shape in (
                ("norm1", (D,)), ("attn.qkv", (3 * D, D)), ("attn.proj", (D, D)), ("norm2", (D,)), ("mlp.fc1", (self.hidden, D)),
                ("mlp.fc2", (D, self.hidden)),
            ):  # fmt: skip
                found |= {f"blocks.{block}.{name}.weight": shape, f"blocks.{block}.{name}.bias": shape[:1]}
        return found


def meta_encoder(
    tensors: Mapping[str, Tensor], *, heads: int | None = None, image_px: int | None = None
) -> tuple[dict[str, Tensor], VJepa2Shape]:
    """Takes the encoder out of Meta's tensors.

    Args:
        tensors: By the names of the file.
        heads: Attention heads; None: those of the published width.
        image_px: Side of the input, pixels; None: read from the positions where they are stored, else 256.

    Returns:
        The tensors under their names without prefixes, float32, and their sizes.

    Raises:
        UserError: Another architecture; names every tensor that is missing, surplus or of another shape.
    """
    named = {_PREFIX.sub("", name): value for name, value in tensors.items()}
    positions = named.pop(_POSITIONS, None)
    first, fc1 = named.get("patch_embed.proj.weight"), named.get("blocks.0.mlp.fc1.weight")
    if first is None or first.ndim != 5 or fc1 is None or fc1.ndim != 2:
        some = ", ".join(sorted(named)[:6])
        needed = "patch_embed.proj.weight (5 axes) and blocks.0.mlp.fc1.weight"
        raise UserError(f"not a V-JEPA 2 encoder: {needed} must be there, found {some}, ...; name another entry of it, or another file")
    width, patch, tubelet = int(first.shape[0]), int(first.shape[3]), int(first.shape[2])
    depth = 1 + max(int(found.group(1)) for name in named if (found := re.match(r"blocks\.(\d{1,3})\.", name)))
    heads = heads or HEADS.get(width)
    if heads is None or width % heads:
        raise UserError(f"heads: {heads} for a width of {width}; name a divisor of it with --heads, as the encoder was trained")
    if image_px is None:
        image_px = 256 if positions is None else _side(positions, patch)
    shape = VJepa2Shape(
        width=width, depth=depth, heads=heads, hidden=int(fc1.shape[0]), patch_px=patch, tubelet=tubelet, image_px=image_px
    )  # fmt: skip
    want = shape.tensors()
    faults = [f"tensor {name} is missing" for name in sorted(want.keys() - named.keys())]
    faults += [f"tensor {name} is surplus" for name in sorted(named.keys() - want.keys())]
    for name in sorted(want.keys() & named.keys()):
        value = named[name]
        if tuple(value.shape) != want[name] or not value.is_floating_point():
            faults.append(f"tensor {name} is {str(value.dtype).removeprefix('torch.')} {list(value.shape)}, must be {list(want[name])}")
        elif not bool(torch.isfinite(value).all()):
            faults.append(f"tensor {name} holds values that are not finite")
    if faults:
        raise UserError(
            f"not a V-JEPA 2 encoder of width {width}: {'; '.join(faults)}; V-JEPA 2.1 has another architecture, which is not read"
        )
    return {name: value.float() for name, value in named.items()}, shape


def to_transformers(tensors: Mapping[str, Tensor], shape: VJepa2Shape) -> dict[str, Tensor]:
    """Renames Meta's tensors to those of `VJEPA2Model`."""
    named: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if ".attn.qkv." in name:
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                named[_renamed(name).replace("attention.qkv", f"attention.{part}")] = third
        else:
            named[_renamed(name)] = value
    P, D = _STUB_WIDTH, shape.width
    named |= {
        "predictor.embeddings.mask_tokens": torch.zeros(1, 1, 1, P),
        "predictor.embeddings.predictor_embeddings.weight": torch.zeros(P, D),
        "predictor.embeddings.predictor_embeddings.bias": torch.zeros(P),
        "predictor.layernorm.weight": torch.ones(P),
        "predictor.layernorm.bias": torch.zeros(P),
        "predictor.proj.weight": torch.zeros(D, P),
        "predictor.proj.bias": torch.zeros(D),
    }
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in sorted(named.items())}


def write_vjepa2_folder(
    folder: Path, tensors: Mapping[str, Tensor], shape: VJepa2Shape, *, cropped: bool, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a folder that `VJEPA2Model.from_pretrained` reads: the weights first, the configuration last.

    Args:
        folder: Made where missing.
        tensors: Under Meta's names.
        shape: Their sizes.
        cropped: Whether frames are resized and cropped as V-JEPA 2 publishes it, or taken whole.
        metadata: Texts for the header of the weights.

    Raises:
        UserError: The folder cannot be written.
    """
    target, temporary = folder / SINGLE, folder / f".{SINGLE}.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").unlink(missing_ok=True)
        save_file(to_transformers(tensors, shape), str(temporary), metadata={"format": "pt", **(metadata or {})})
        os.replace(temporary, target)
    except (OSError, SafetensorError) as error:  # a full disk comes as either
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise explain(error if isinstance(error, OSError) else OSError(str(error)), folder) from error
    for name, content in (("video_preprocessor_config.json", _processor(shape, cropped)), ("config.json", _config(shape))):
        write_atomically(folder / name, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def _renamed(name: str) -> str:
    for ours, theirs in (
        (r"^patch_embed\.proj\.", "encoder.embeddings.patch_embeddings.proj."),
        (r"^blocks\.(\d+)\.attn\.", r"encoder.layer.\1.attention."),
        (r"^blocks\.(\d+)\.", r"encoder.layer.\1."),
        (r"^norm\.", "encoder.layernorm."),
    ):
        name, changed = re.subn(ours, theirs, name)
        if changed:
            break
    return name


def _side(positions: Tensor, patch: int) -> int:
    """Side of the input from a table of positions [1, frames / 2 * patches, D], of 64 frames as published, or of one."""
    count = positions.shape[1] if positions.ndim == 3 else 0
    if count < 1:
        raise UserError(f"tensor {_POSITIONS} has shape {list(positions.shape)}, must be [1, patches, width]; give --image-size-px")
    side = math.isqrt(count // 32) if count % 32 == 0 and math.isqrt(count // 32) ** 2 == count // 32 else math.isqrt(count)
    return side * patch


def _config(shape: VJepa2Shape) -> dict[str, Any]:
    ratio = shape.hidden / shape.width
    while int(shape.width * ratio) < shape.hidden:  # transformers multiplies and cuts off
        ratio = math.nextafter(ratio, math.inf)
    return {
        "architectures": ["VJEPA2Model"],
        "model_type": "vjepa2",
        "attention_dropout": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "crop_size": shape.image_px,
        "drop_path_rate": 0.0,
        "dtype": "float32",
        "frames_per_clip": 64,
        "hidden_act": "gelu",
        "hidden_size": shape.width,
        "in_chans": 3,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-6,
        "mlp_ratio": ratio,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.depth,
        "patch_size": shape.patch_px,
        "pred_hidden_size": _STUB_WIDTH,
        "pred_mlp_ratio": 4.0,
        "pred_num_attention_heads": 1,
        "pred_num_hidden_layers": 0,
        "pred_num_mask_tokens": 1,
        "pred_zero_init_mask_tokens": True,
        "qkv_bias": True,
        "tubelet_size": shape.tubelet,
    }


def _processor(shape: VJepa2Shape, cropped: bool) -> dict[str, Any]:
    side = shape.image_px
    return {
        "video_processor_type": "VJEPA2VideoProcessor",
        "crop_size": {"height": side, "width": side},
        "do_center_crop": cropped,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": cropped,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": side * 256 // 224},
    }
