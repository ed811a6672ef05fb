"""Sizes of V-JEPA 2-AC's predictor; the defaults are those of the published checkpoint `vjepa2-ac-vitg`."""

from __future__ import annotations

from dataclasses import dataclass

from goalward import UserError

STATE_DIM = 7
"""P: position xyz in metres, Euler angles xyz in radians, closedness of the gripper from 0 (open) to 1."""
EXTRINSICS_DIM = 6
"""Position and Euler angles of the camera."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VJepa2ACConfig:
    """Sizes of the predictor."""

    dim: int = 1408
    """D, width of the encoder's tokens; 1408 for ViT-g."""
    width: int = 1024
    """W, width inside; a multiple of twice the heads."""
    depth: int = 24
    """Layers."""
    heads: int = 16
    """Attention heads."""
    hidden: int = 4096
    """Width of the feed-forward part."""
    rows: int = 16
    """Rows of the grid of patches: image height over patch size, 256 / 16."""
    columns: int = 16
    """Columns of the grid of patches."""
    extrinsics: bool = False
    """Whether the camera's pose is a token of every frame; the published model was trained without, though its weights are in the file."""
    duplicated_frequencies: bool = True
    """Rotary positions with the published fault, in which the two channels of a pair turn at different frequencies; see `rotary.py`."""

    def __post_init__(self) -> None:
        """Checks ranges and divisibility."""
        limits = {"dim": 65536, "width": 16384, "depth": 256, "heads": 256, "hidden": 65536, "rows": 256, "columns": 256}
        for name, limit in limits.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
                raise UserError(f"{name} is {value!r}; must be a whole number in 1 .. {limit}")
        if self.width % (2 * self.heads) or self.width // self.heads < 6:
            raise UserError(f"width is {self.width}; must be a multiple of twice the heads ({self.heads}), and at least 6 per head")

    @property
    def num_patches(self) -> int:
        """N, tokens of the encoder per frame."""
        return self.rows * self.columns

    @property
    def num_conditions(self) -> int:
        """Tokens before the patches: action, state and, where it is used, the camera's pose."""
        return 3 if self.extrinsics else 2

    @property
    def num_tokens(self) -> int:
        """L, tokens of one frame inside the predictor."""
        return self.num_conditions + self.num_patches

    @property
    def head_width(self) -> int:
        """E."""
        return self.width // self.heads
