"""Pixels themselves as latents: no weights at all. What a learned encoder must beat, under the same predictor and planner.

Letters: M loose frames, h = w image side in pixels, N tokens per frame, D latent width.

    uint8 [M,h,w,3] -> mean over blocks of pixels -> [M,s,s,3] -> squares of a 2 x 2 grid, row by row -> [M,4,3 (s/2)^2]
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goalward import UserError

_PREPROCESSING = "mean over blocks of rgb uint8 / 127.5 - 1; tokens are squares row by row, in them row, column, colour"
_CHUNK = 64  # frames at once: bounds the memory of the widened pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelEncoderConfig:
    """How frames are made small and cut."""

    image_size_px: int = 128
    """Side of the square input frames, pixels; a multiple of `side_px`."""
    side_px: int = 16
    """Side of the small picture, pixels; a multiple of `grid`."""
    grid: int = 2
    """Tokens along one side of a frame; 2 gives as many tokens as the embedded encoder."""

    def __post_init__(self) -> None:
        """Checks every field."""
        if not 1 <= self.image_size_px <= 1024:
            raise UserError(f"image_size_px = {self.image_size_px}: must be in 1..1024; use 128")
        if not 1 <= self.side_px <= self.image_size_px or self.image_size_px % self.side_px:
            raise UserError(f"side_px = {self.side_px}: must divide image_size_px ({self.image_size_px}); use 16")
        if not 1 <= self.grid <= self.side_px or self.side_px % self.grid:
            raise UserError(f"grid = {self.grid}: must divide side_px ({self.side_px}); use 2")


class PixelEncoder:
    """Area averages of the pixels, as tokens; see `goalward.wm.base.Encoder`."""

    name = "pixels"
    licence = "Apache-2.0"

    def __init__(self, config: PixelEncoderConfig | None = None, *, device: str | torch.device = "cpu") -> None:
        """Has nothing to load.

        Args:
            config: None: 16 x 16 pixels of frames of 128 x 128, in four tokens.
            device: Where to compute.
        """
        self.config = config or PixelEncoderConfig()
        self.device = torch.device(device)
        self.fingerprint = hashlib.sha256(json.dumps([_PREPROCESSING, asdict(self.config)], sort_keys=True).encode()).hexdigest()

    @property
    def image_size_px(self) -> int:
        """Side of the square frames taken, pixels."""
        return self.config.image_size_px

    @property
    def tokens_per_view(self) -> int:
        """Latent tokens of one frame, row by row."""
        return self.config.grid**2

    @property
    def dim(self) -> int:
        """Latent width D: pixels of a token's square, three colours each."""
        return 3 * (self.config.side_px // self.config.grid) ** 2

    @torch.no_grad()
    def encode(self, frames: Tensor | NDArray[np.uint8]) -> Tensor:
        """Maps frames to tokens.

        Args:
            frames: uint8 [M, h, w, 3], red-green-blue, h = w = `image_size_px`.

        Returns:
            float32 [M, tokens_per_view, D], brightness from -1 to 1. Sums are of whole numbers: exact, in any batch.

        Raises:
            UserError: Another dtype, rank or size.
        """
        if isinstance(frames, np.ndarray):  # torch warns of memory that is read-only: copy that
            frames = torch.from_numpy(np.require(frames, requirements=["C", "W"]))
        size, grid = self.config.image_size_px, self.config.grid
        if frames.dtype != torch.uint8:
            raise UserError(f"frames have dtype {str(frames.dtype).removeprefix('torch.')}: must be uint8 in 0..255; convert")
        if frames.ndim != 4 or tuple(frames.shape[1:]) != (size, size, 3):
            raise UserError(f"frames have shape {tuple(frames.shape)}: encoder 'pixels' takes [M, {size}, {size}, 3]; render at that size")
        inside, block = self.config.side_px // grid, size // self.config.side_px
        z_MND = torch.empty(len(frames), self.tokens_per_view, self.dim, dtype=torch.float32, device=self.device)
        for start in range(0, len(frames), _CHUNK):
            chunk = frames[start : start + _CHUNK].to(self.device)
            sums = chunk.reshape(-1, grid, inside, block, grid, inside, block, 3).sum((3, 6), dtype=torch.int32)
            tokens = sums.transpose(2, 3).reshape(len(chunk), self.tokens_per_view, self.dim)  # row, column | row, column, colour
            z_MND[start : start + _CHUNK] = tokens.float() / (127.5 * block**2) - 1.0
        return z_MND
