"""From uint8 frames to what a pretrained network saw in its own training, with torch alone.

Letters: M loose frames, h = w side in pixels.

    uint8 [M,h,w,3] -> resize -> central square -> / 255 -> (x - mean) / std -> float32 [M,3,s,s]

The published transforms resize with Pillow: antialiased, first along the rows, then along the columns, each time rounded to whole grey
levels. So does this, and the result is Pillow's within one grey level (in all but a few pixels exactly).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from goalward import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """How square frames become a network's input."""

    resize_px: int
    """Side after resizing, pixels."""
    crop_px: int
    """Side of the central square that is kept, pixels."""
    resample: Literal["bilinear", "bicubic"] = "bilinear"
    """Interpolation, antialiased."""
    rounded: bool = True
    """Whether resized pixels are whole grey levels, as Pillow's are; DINOv3 resizes in floating point."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Subtracted from each colour, of brightness 0 to 1."""
    std: tuple[float, ...] = IMAGENET_STD
    """Divides each colour then."""

    def __post_init__(self) -> None:
        """Checks every field."""
        if not 1 <= self.crop_px <= self.resize_px <= 4096:
            raise UserError(f"crop_px = {self.crop_px}, resize_px = {self.resize_px}: must be 1 <= crop_px <= resize_px <= 4096")
        if self.resample not in ("bilinear", "bicubic"):
            raise UserError(f"resample = {self.resample!r}: must be bilinear or bicubic")
        finite = all(math.isfinite(value) for value in (*self.mean, *self.std))
        if len(self.mean) != 3 or len(self.std) != 3 or not finite or min(self.std) <= 0:
            raise UserError(f"mean = {self.mean}, std = {self.std}: must be three finite numbers each, std above 0")

    def apply(self, frames_Mhw3: Tensor) -> Tensor:
        """Prepares frames.

        Args:
            frames_Mhw3: uint8, square, any size.

        Returns:
            float32 [M, 3, crop_px, crop_px] on the frames' device.
        """
        x = frames_Mhw3.permute(0, 3, 1, 2).float()
        if x.shape[-1] != self.resize_px:
            x = self._resized(x, (x.shape[-2], self.resize_px))
            x = self._resized(x, (self.resize_px, self.resize_px))
        start = round((self.resize_px - self.crop_px) / 2)
        x = x[..., start : start + self.crop_px, start : start + self.crop_px]
        mean, std = (x.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (x / 255.0 - mean) / std

    def _resized(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Resizes along one axis."""
        x = F.interpolate(x, size=size, mode=self.resample, antialias=True, align_corners=False)
        # Half a level up, as Pillow rounds; only bicubic interpolation leaves the range.
        return (x + 0.5).floor().clamp(0, 255) if self.rounded else x
