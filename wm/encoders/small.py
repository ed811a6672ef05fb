"""The embedded encoder: a small convolutional network that reads one frame into a 2x2 grid of latent tokens.

Letters: M loose frames, h = w image side in pixels, N tokens per frame (2 x 2, row by row), D latent width.

    uint8 [M,h,w,3] -> stem /4 -> residual stage -> /2 -> stage -> /2 (+ learned position) -> stage -> patch merging
    -> [M,4,D]

Normalisation is per frame (GroupNorm): no statistic of other frames enters, so a frame's tokens depend on that frame
alone. The position
embedding is added where the map is still 8 x 8, since *where* the arm is, is what planning needs most.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from goalward import UserError
from goalward.wm.base import inference_dtype

_STRIDE = 16  # of the last feature map
_GROUPS = 8  # channels of a stage must divide by it
_GRID = 2  # tokens along one side of a frame
_CHUNK = 2  # frames per forward pass at inference: fixed, so that results cannot depend on the number of frames asked for
_PREPROCESSING = "rgb uint8 / 127.5 - 1"


@dataclass(frozen=True, kw_only=True, slots=True)
class SmallEncoderConfig:
    """Shape of the embedded encoder."""

    image_size_px: int = 128
    """Side of the square input frames, pixels; a multiple of 32."""
    widths: tuple[int, int, int] = (32, 64, 128)
    """Channels at 1/4, 1/8 and 1/16 of the input resolution; multiples of 8."""
    blocks: tuple[int, int, int] = (1, 1, 2)
    """Residual blocks at 1/4, 1/8 and 1/16 of the input resolution."""
    dim: int = 64
    """Latent width D of each of the four tokens."""

    def __post_init__(self) -> None:
        """Checks every field."""
        if not 32 <= self.image_size_px <= 1024 or self.image_size_px % (_STRIDE * _GRID):
            raise UserError(f"image_size_px = {self.image_size_px}: must be a multiple of 32 in 32..1024; use 128")
        if len(self.widths) != 3 or any(not _GROUPS <= width <= 1024 or width % _GROUPS for width in self.widths):
            raise UserError(f"widths = {self.widths}: must be three multiples of {_GROUPS} in {_GROUPS}..1024; use (32, 64, 128)")
        if len(self.blocks) != 3 or any(not 0 <= count <= 32 for count in self.blocks):
            raise UserError(f"blocks = {self.blocks}: must be three counts in 0..32; use (1, 1, 2)")
        if not 1 <= self.dim <= 4096:
            raise UserError(f"dim = {self.dim}: must be in 1..4096; use 64")

    @property
    def tokens_per_view(self) -> int:
        """Tokens of one frame."""
        return _GRID * _GRID


class Residual(nn.Module):
    """Pre-activation residual block; the identity at initialisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Maps [M, C, h, w] to the same shape."""
        y: Tensor = self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))
        return x + y


class SmallEncoderNetwork(nn.Module):
    """The trainable network inside `SmallEncoder`; `goalward pretrain` trains it, everything else uses it frozen."""

    def __init__(self, config: SmallEncoderConfig, generator: torch.Generator | None = None) -> None:
        """Builds the network.

        Args:
            config: Its shape.
            generator: Draws the initial weights; None leaves them to be loaded (the draw is then fixed, seed 0).
        """
        super().__init__()
        self.config = config
        low, mid, high = config.widths
        side = config.image_size_px // _STRIDE
        # Modules draw from the global generator when made: fork it, so that the caller's stays untouched.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0 if generator is None else int(torch.randint(2**62, (), generator=generator)))
            self.stem = nn.Conv2d(3, low, 4, stride=4)
            self.stage1 = nn.Sequential(*(Residual(low) for _ in range(config.blocks[0])))
            self.down2 = nn.Conv2d(low, mid, 2, stride=2)
            self.stage2 = nn.Sequential(*(Residual(mid) for _ in range(config.blocks[1])))
            self.down3 = nn.Conv2d(mid, high, 2, stride=2)
            self.position = nn.Parameter(0.02 * torch.randn(1, high, side, side))
            self.stage3 = nn.Sequential(*(Residual(high) for _ in range(config.blocks[2])))
            self.merge = nn.Conv2d(high, 2 * high, side // _GRID, stride=side // _GRID)
            self.head = nn.Conv2d(2 * high, config.dim, 1, bias=False)
            # One offset per token: what is always in a quadrant is not worth a latent entry.
            self.offset = nn.Parameter(torch.zeros(config.tokens_per_view, config.dim))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in the stubs

    def forward(self, frames_Mhw3: Tensor) -> Tensor:
        """Maps uint8 [M, h, w, 3] to tokens [M, N, D]; the dtype is float32, or autocast's."""
        # The permuted view of height-width-channel data *is* channels-last: no copy.
        x = frames_Mhw3.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        x = self.stage1(self.stem(x))
        x = self.stage2(self.down2(x))
        x = self.stage3(self.down3(x) + self.position)
        tokens: Tensor = self.head(F.silu(self.merge(x)))
        return tokens.flatten(2).transpose(1, 2) + self.offset


class SmallEncoder:
    """The frozen encoder of the `Encoder` protocol: weights never change, no gradient, each frame alone."""

    def __init__(
        self,
        network: SmallEncoderNetwork,
        *,
        name: str = "goalward-small",
        licence: str = "Apache-2.0",
        device: str | torch.device = "cpu",
    ) -> None:
        """Freezes a copy of the network.

        Args:
            network: Its weights are copied.
            name: Short name.
            licence: SPDX identifier of the licence of the weights.
            device: Where to compute.
        """
        self.config = network.config
        self.name = name
        self.licence = licence
        self.device = torch.device(device)
        self._network = SmallEncoderNetwork(network.config)
        self._network.load_state_dict(network.state_dict())
        self._network.to(self.device).eval().requires_grad_(False)
        self._dtype = inference_dtype(self.device)
        self.fingerprint = fingerprint_of(self._network)

    @property
    def image_size_px(self) -> int:
        """Side of the square frames taken, pixels."""
        return self.config.image_size_px

    @property
    def tokens_per_view(self) -> int:
        """Latent tokens of one frame: 4, the quadrants row by row."""
        return self.config.tokens_per_view

    @property
    def dim(self) -> int:
        """Latent width D."""
        return self.config.dim

    def state_dict(self) -> dict[str, Tensor]:
        """Returns copies of the weights, by name."""
        return {name: value.detach().clone() for name, value in self._network.state_dict().items()}

    def network(self) -> SmallEncoderNetwork:
        """Returns a trainable copy; the encoder itself stays frozen."""
        copy = SmallEncoderNetwork(self.config)
        copy.load_state_dict(self._network.state_dict())
        return copy

    @torch.no_grad()
    def encode(self, frames: Tensor | NDArray[np.uint8]) -> Tensor:
        """Maps frames to latent tokens.

        Args:
            frames: uint8 [M, h, w, 3], red-green-blue, h = w = `image_size_px`.

        Returns:
            float32 [M, tokens_per_view, D] on the encoder's device. A frame's tokens do not depend on the other frames.

        Raises:
            UserError: Another dtype, rank or size.
        """
        if isinstance(frames, np.ndarray):  # torch warns of memory that is read-only: copy that
            frames = torch.from_numpy(np.require(frames, requirements=["C", "W"]))
        frames_Mhw3 = frames
        size = self.config.image_size_px
        if frames_Mhw3.dtype != torch.uint8:
            raise UserError(f"frames have dtype {str(frames_Mhw3.dtype).removeprefix('torch.')}: must be uint8 in 0..255; convert")
        if tuple(frames_Mhw3.shape[1:]) != (size, size, 3) or frames_Mhw3.ndim != 4:
            raise UserError(
                f"frames have shape {tuple(frames_Mhw3.shape)}: encoder {self.name!r} takes [M, {size}, {size}, 3]; "
                f"render at image_size_px={size} or resize"
            )
        count = frames_Mhw3.shape[0]
        z_MND = torch.empty(count, self.tokens_per_view, self.dim, dtype=torch.float32, device=self.device)
        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype is torch.bfloat16):
            for start in range(0, count, _CHUNK):
                chunk = frames_Mhw3[start : start + _CHUNK].to(self.device)
                if (missing := _CHUNK - len(chunk)) > 0:  # kernels may round differently for other batch sizes: fill up
                    chunk = torch.cat([chunk, chunk[:1].expand(missing, -1, -1, -1)])
                z_MND[start : start + _CHUNK] = self._network(chunk)[: count - start].float()
        return z_MND


def fingerprint_of(network: SmallEncoderNetwork) -> str:
    """Hashes weights, shape and preprocessing.

    Returns:
        SHA-256 in hexadecimal digits; equal for equal latents, whatever the file looked like.
    """
    digest = hashlib.sha256(json.dumps([_PREPROCESSING, asdict(network.config)], sort_keys=True).encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
