"""The families of pretrained encoders: for each, which class of `transformers` it is, what its publishers do to a picture, and its licence.

Letters: M loose frames, h = w side in pixels, G patch tokens of one frame (row by row), D latent width.

A new family is one entry in `FAMILIES`. Class and register tokens are left out: what plans is where things are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

DINOV3_NOTICE = (
    "Commercial use is allowed; military, nuclear and weapons use is not. Whoever passes the weights or a fine-tuned encoder on must do so "
    "under the same licence, with a copy of it, and publications must acknowledge it"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """One architecture."""

    name: str
    """As users know it."""
    model_types: tuple[str, ...]
    """`model_type` in the config.json of its checkpoints."""
    model_class: str
    """Class in `transformers`."""
    licence: str
    """Licence of the published weights, where a folder has no model card that says another."""
    notice: str = ""
    """What a licence that is not permissive asks for."""
    used: str
    """Pattern of the tensors that decide the latents."""
    ignored: str = "$^"
    """Pattern of tensors that a checkpoint may have or lack: they do not reach the patch tokens."""
    resample: Literal["bilinear", "bicubic"] = "bilinear"
    """Interpolation of the published transform, where the folder has no preprocessor configuration."""
    rounded: bool = True
    """Whether the published transform resizes to whole grey levels."""
    margin: tuple[int, int] = (1, 1)
    """Side after resizing over the side that is kept, as a fraction, in the published transform."""
    imagenet: bool = True
    """Whether colours are normalised by ImageNet's statistics, or else to -1 .. 1."""
    input_px: Callable[[Any], int]
    """Side of the published input, from the model's configuration."""
    architecture: tuple[str, ...]
    """Fields of the model's configuration that decide the latents beside the weights."""
    patches: Callable[[Any, Tensor], Tensor] = field(repr=False)
    """Maps a model and prepared frames [M, 3, h, w] to patch tokens [M, G, D]."""

    def is_used(self, tensor: str) -> bool:
        """Whether a tensor of a checkpoint decides the latents."""
        return re.match(self.used, tensor) is not None and not self.is_ignored(tensor)

    def is_ignored(self, tensor: str) -> bool:
        """Whether a tensor may be missing or surplus."""
        return re.match(self.ignored, tensor) is not None


def _doubled_frame(model: Any, x: Tensor) -> Tensor:
    """One frame, repeated until it fills a tubelet, as V-JEPA 2-AC does; the model's own predictor is never run."""
    clip = x[:, None].expand(-1, model.config.tubelet_size, -1, -1, -1)
    tokens: Tensor = model.encoder(pixel_values_videos=clip).last_hidden_state
    return tokens


def _after_registers(model: Any, x: Tensor) -> Tensor:
    """Patch tokens stand behind the class token and the registers, if there are any."""
    tokens: Tensor = model(pixel_values=x).last_hidden_state
    return tokens[:, 1 + getattr(model.config, "num_register_tokens", 0) :]


def _interpolated(model: Any, x: Tensor) -> Tensor:
    """No class token; positions are learned, and are interpolated for another size."""
    other = x.shape[-1] != model.config.image_size
    tokens: Tensor = model(pixel_values=x, interpolate_pos_encoding=other).last_hidden_state
    return tokens


def _naflex(model: Any, x: Tensor) -> Tensor:
    """Pixels arrive cut into patches, with the number of rows and columns beside them."""
    size, side = model.config.patch_size, x.shape[-1] // model.config.patch_size
    cut = x.unfold(2, size, size).unfold(3, size, size)  # M, colour, row, column, y, x
    patches = cut.permute(0, 2, 3, 4, 5, 1).reshape(len(x), side * side, -1)
    mask = torch.ones(len(x), side * side, dtype=torch.int64, device=x.device)
    shapes = torch.full((len(x), 2), side, dtype=torch.int64, device=x.device)
    tokens: Tensor = model(pixel_values=patches, pixel_attention_mask=mask, spatial_shapes=shapes).last_hidden_state
    return tokens


_DINO = ("patch_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps")
_SIGLIP = ("patch_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps")

_ALL = (
    Family(
        name="vjepa2",
        model_types=("vjepa2",),
        model_class="VJEPA2Model",
        licence="MIT",
        used=r"encoder\.",
        ignored=r"predictor\.",
        margin=(256, 224),
        input_px=lambda config: int(config.crop_size),
        architecture=(*_DINO, "tubelet_size", "mlp_ratio", "qkv_bias"),
        patches=_doubled_frame,
    ),
    Family(
        name="dinov2",
        model_types=("dinov2",),
        model_class="Dinov2Model",
        licence="Apache-2.0",
        used=r"embeddings\.|encoder\.|layernorm\.",
        ignored=r"embeddings\.mask_token$",
        resample="bicubic",
        margin=(256, 224),
        input_px=lambda config: 16 * int(config.patch_size),  # 224; `image_size` is that of the last, larger training phase
        architecture=(*_DINO, "mlp_ratio", "use_swiglu_ffn", "qkv_bias"),
        patches=_after_registers,
    ),
    Family(
        name="dinov2-registers",
        model_types=("dinov2_with_registers",),
        model_class="Dinov2WithRegistersModel",
        licence="Apache-2.0",
        used=r"embeddings\.|encoder\.|layernorm\.",
        ignored=r"embeddings\.mask_token$",
        resample="bicubic",
        margin=(256, 224),
        input_px=lambda config: 16 * int(config.patch_size),
        architecture=(*_DINO, "mlp_ratio", "use_swiglu_ffn", "qkv_bias", "num_register_tokens"),
        patches=_after_registers,
    ),
    Family(
        name="dinov3",
        model_types=("dinov3_vit",),
        model_class="DINOv3ViTModel",
        licence="DINOv3-License",
        notice=DINOV3_NOTICE,
        used=r"",
        ignored=r"embeddings\.mask_token$",
        rounded=False,
        input_px=lambda config: int(config.image_size),
        architecture=(*_DINO, "intermediate_size", "use_gated_mlp", "num_register_tokens", "rope_theta"),
        patches=_after_registers,
    ),
    Family(
        name="siglip2",
        model_types=("siglip", "siglip_vision_model"),
        model_class="SiglipVisionModel",
        licence="Apache-2.0",
        used=r"(vision_model\.)?(embeddings|encoder|post_layernorm)\.",
        ignored=r"(vision_model\.)?head\.|text_model\.|logit_(scale|bias)$",
        imagenet=False,
        input_px=lambda config: int(config.image_size),
        architecture=(*_SIGLIP, "image_size"),
        patches=_interpolated,
    ),
    Family(
        name="siglip2-naflex",
        model_types=("siglip2", "siglip2_vision_model"),
        model_class="Siglip2VisionModel",
        licence="Apache-2.0",
        used=r"(vision_model\.)?(embeddings|encoder|post_layernorm)\.",
        ignored=r"(vision_model\.)?head\.|text_model\.|logit_(scale|bias)$",
        imagenet=False,
        input_px=lambda config: int(config.patch_size) * math.isqrt(config.num_patches),
        architecture=(*_SIGLIP, "num_patches"),
        patches=_naflex,
    ),
)
FAMILIES: dict[str, Family] = {model_type: family for family in _ALL for model_type in family.model_types}
