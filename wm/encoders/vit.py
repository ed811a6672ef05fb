"""A small vision transformer in V-JEPA 2's architecture: `goalward pretrain --architecture vit` trains it, `VJEPA2Model` reads it.

Letters: M loose frames, h = w image side in pixels, G patch tokens (g x g, row by row), N tokens kept, D latent width, d channels of a
head.

    uint8 [M,h,w,3] -> patches [M,G,D] -> blocks with rotary positions -> norm -> fixed pooling -> [M,N,D]

Our own embedded encoder is convolutional and has no place in that format; this one does, and its latents are the same there to rounding.
A frame is its own tubelet (doubled), so all tokens stand at the same time and only rows and columns are rotated. Names are Meta's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from goalward import UserError
from goalward.wm.encoders.pooling import pooling_matrix
from goalward.wm.encoders.preprocessing import Preprocessing
from goalward.wm.encoders.vjepa2_format import VJepa2Shape

_TUBELET = 2
_MLP = 4  # width inside the feed-forward layers, in widths
_EPS = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class VisionTransformerConfig:
    """Shape of the network."""

    image_size_px: int = 128
    """Side of the square input frames, pixels; a multiple of `patch_px`."""
    patch_px: int = 16
    """Side of a patch, pixels."""
    dim: int = 192
    """Latent width D of every token; a multiple of `heads`."""
    depth: int = 6
    """Blocks."""
    heads: int = 3
    """Attention heads."""
    tokens: int = 4
    """Tokens of a frame after fixed pooling, a square number: what is trained, and what is used by default later."""

    def __post_init__(self) -> None:
        """Checks every field."""
        if not 4 <= self.patch_px <= 64:
            raise UserError(f"patch_px = {self.patch_px}: must be in 4..64; use 16")
        if not self.patch_px <= self.image_size_px <= 1024 or self.image_size_px % self.patch_px:
            raise UserError(f"image_size_px = {self.image_size_px}: must be a multiple of {self.patch_px} up to 1024; use 128")
        if not 1 <= self.heads <= 64 or not 8 * self.heads <= self.dim <= 4096 or self.dim % (2 * self.heads):
            raise UserError(f"dim = {self.dim}, heads = {self.heads}: each head needs an even number of channels, 8 or more; use 192 and 3")
        if not 1 <= self.depth <= 64:
            raise UserError(f"depth = {self.depth}: must be in 1..64; use 6")
        if self.tokens < 1 or math.isqrt(self.tokens) ** 2 != self.tokens or self.tokens > self.grid**2:
            raise UserError(f"tokens = {self.tokens}: must be a square number up to {self.grid**2}, the patches of a frame; use 4")

    @property
    def grid(self) -> int:
        """Patches along one side of a frame."""
        return self.image_size_px // self.patch_px

    @property
    def tokens_per_view(self) -> int:
        """Tokens of one frame."""
        return self.tokens

    @property
    def shape(self) -> VJepa2Shape:
        """The same sizes in the terms of V-JEPA 2's format."""
        return VJepa2Shape(
            width=self.dim, depth=self.depth, heads=self.heads, hidden=_MLP * self.dim, patch_px=self.patch_px, tubelet=_TUBELET,
            image_px=self.image_size_px,
        )  # fmt: skip


class Attention(nn.Module):
    """Self-attention with rotary positions."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, cos_Gd: Tensor, sin_Gd: Tensor) -> Tensor:
        """Maps [M, G, D] to the same shape."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = (rotate(part, cos_Gd, sin_Gd) for part in (query, key))
        y: Tensor = self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return y


class FeedForward(nn.Module):
    """Two layers with a GELU between."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, _MLP * dim)
        self.fc2 = nn.Linear(_MLP * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [..., D] to the same shape."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class Block(nn.Module):
    """Attention and feed-forward layers, each behind a norm and beside a shortcut."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=_EPS)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=_EPS)
        self.mlp = FeedForward(dim)

    def forward(self, x: Tensor, cos_Gd: Tensor, sin_Gd: Tensor) -> Tensor:
        """Maps [M, G, D] to the same shape."""
        x = x + self.attn(self.norm1(x), cos_Gd, sin_Gd)
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class PatchEmbedding(nn.Module):
    """Patches of a doubled frame, as tokens."""

    def __init__(self, dim: int, patch_px: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, dim, (_TUBELET, patch_px, patch_px), stride=(_TUBELET, patch_px, patch_px))

    def forward(self, x_M3hw: Tensor) -> Tensor:
        """Maps prepared frames to [M, G, D]; a kernel over two equal frames is the sum of its halves over one."""
        kernel = self.proj.weight.sum(2)
        return F.conv2d(x_M3hw, kernel, self.proj.bias, stride=kernel.shape[-1]).flatten(2).transpose(1, 2)


class VisionTransformerNetwork(nn.Module):
    """The trainable network; frozen, it is used through `transformers` (`load_encoder` on the folder that was exported)."""

    cos_Gd: Tensor
    sin_Gd: Tensor
    _pooling: Tensor

    def __init__(self, config: VisionTransformerConfig, generator: torch.Generator | None = None) -> None:
        """Builds the network.

        Args:
            config: Its shape.
            generator: Draws the initial weights; None leaves them to be loaded (the draw is then fixed, seed 0).
        """
        super().__init__()
        self.config = config
        side = config.image_size_px
        self._prepare = Preprocessing(resize_px=side, crop_px=side)
        # Modules draw from the global generator when made: fork it, so that the caller's stays untouched.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0 if generator is None else int(torch.randint(2**62, (), generator=generator)))
            self.patch_embed = PatchEmbedding(config.dim, config.patch_px)
            self.blocks = nn.ModuleList(Block(config.dim, config.heads) for _ in range(config.depth))
            self.norm = nn.LayerNorm(config.dim, eps=_EPS)
            for name, weight in self.named_parameters():
                if weight.ndim > 1:
                    nn.init.trunc_normal_(weight, std=0.02)
                elif name.endswith("bias"):
                    nn.init.zeros_(weight)
        cos_Gd, sin_Gd = rotary_tables(config.grid, config.dim // config.heads)
        self.register_buffer("cos_Gd", cos_Gd, persistent=False)
        self.register_buffer("sin_Gd", sin_Gd, persistent=False)
        pooling = pooling_matrix(config.grid, config.tokens)
        self.register_buffer("_pooling", torch.eye(config.tokens) if pooling is None else pooling, persistent=False)

    def forward(self, frames_Mhw3: Tensor) -> Tensor:
        """Maps uint8 [M, h, w, 3] to tokens [M, N, D]; the dtype is float32, or autocast's."""
        x = self.patch_embed(self._prepare.apply(frames_Mhw3))
        for block in self.blocks:
            x = block(x, self.cos_Gd, self.sin_Gd)
        pooled: Tensor = self._pooling @ self.norm(x)
        return pooled


def rotary_tables(grid: int, channels: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary positions of one frame.

    A third of a head's channels each for time, row and column, made even; what is left over is not rotated. Frequencies are tiled, although
    channels are rotated in neighbouring pairs: a peculiarity of V-JEPA 2's code that its weights depend on.

    Args:
        grid: Patches along one side.
        channels: d.

    Returns:
        Two float32 [G, d].
    """
    third = 2 * ((channels // 3) // 2)
    omega = 10000.0 ** -(torch.arange(third // 2, dtype=torch.float64) / max(1, third // 2))
    rows, columns = torch.arange(grid).repeat_interleave(grid).double(), torch.arange(grid).repeat(grid).double()
    angle_Gd = torch.zeros(grid * grid, channels, dtype=torch.float64)  # at time 0 nothing is rotated
    for part, position in ((1, rows), (2, columns)):
        angle_Gd[:, part * third : (part + 1) * third] = (position[:, None] * omega).repeat(1, 2)
    return angle_Gd.cos().float(), angle_Gd.sin().float()


def rotate(x: Tensor, cos_Gd: Tensor, sin_Gd: Tensor) -> Tensor:
    """Rotates neighbouring pairs of channels; [M, heads, G, d] to the same shape and dtype."""
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = torch.stack((-odd, even), dim=-1).flatten(-2)
    return (x * cos_Gd + turned * sin_Gd).to(x.dtype)
