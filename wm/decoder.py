"""Latent tokens back to pixels: the decoder that a pixel objective trains beside the encoder. It mirrors `encoders/small.py`.

Letters: M loose frames, h = w image side in pixels, V camera views, N tokens, D latent width.

    [M,4,D] -> patch splitting (+ learned position) -> residual stage -> x2 -> stage -> x2 -> stage -> patches of 4 x 4 pixels
    -> [M,h,w,3]

Only a generative world model has one: a joint-embedding model never looks back at pixels. Brightness is 0 to 1, not clipped, so that
gradients survive at black and white.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from goalward import UserError
from goalward.wm.base import inference_dtype
from goalward.wm.encoders.small import Residual

_STRIDE = 16  # of the first feature map
_GROUPS = 8  # channels of a stage must divide by it
_GRID = 2  # tokens along one side of a frame
_PATCH = 4  # pixels along one side of what the last feature map's entries become
_CHUNK = 256  # frames per pass where results may depend on the batch; bounds memory


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderConfig:
    """Shape of the decoder; the defaults are those of the embedded encoder, the other way round."""

    image_size_px: int = 128
    """Side of the square frames given back, pixels; a multiple of 32."""
    dim: int = 64
    """Latent width D of each of the four tokens."""
    widths: tuple[int, int, int] = (128, 64, 32)
    """Channels at 1/16, 1/8 and 1/4 of the output resolution; multiples of 8."""
    blocks: tuple[int, int, int] = (1, 1, 1)
    """Residual blocks at 1/16, 1/8 and 1/4 of the output resolution."""

    def __post_init__(self) -> None:
        """Checks every field."""
        if not 32 <= self.image_size_px <= 1024 or self.image_size_px % (_STRIDE * _GRID):
            raise UserError(f"image_size_px = {self.image_size_px}: must be a multiple of 32 in 32..1024; use 128")
        if not 1 <= self.dim <= 4096:
            raise UserError(f"dim = {self.dim}: must be in 1..4096; use 64")
        if len(self.widths) != 3 or any(not _GROUPS <= width <= 1024 or width % _GROUPS for width in self.widths):
            raise UserError(f"widths = {self.widths}: must be three multiples of {_GROUPS} in {_GROUPS}..1024; use (128, 64, 32)")
        if len(self.blocks) != 3 or any(not 0 <= count <= 32 for count in self.blocks):
            raise UserError(f"blocks = {self.blocks}: must be three counts in 0..32; use (1, 1, 1)")

    @property
    def tokens_per_view(self) -> int:
        """Tokens of one frame."""
        return _GRID * _GRID


class DecoderNetwork(nn.Module):
    """The trainable network inside `Decoder`."""

    def __init__(self, config: DecoderConfig, generator: torch.Generator | None = None) -> None:
        """Builds the network.

        Args:
            config: Its shape.
            generator: Draws the initial weights; None leaves them to be loaded (the draw is then fixed, seed 0).
        """
        super().__init__()
        self.config = config
        high, mid, low = config.widths
        side = config.image_size_px // _STRIDE
        # Modules draw from the global generator when made: fork it, so that the caller's stays untouched.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0 if generator is None else int(torch.randint(2**62, (), generator=generator)))
            # Convolutions of one pixel and a shuffle are transposed convolutions whose stride is their size, and faster on CPUs.
            self.split = nn.Conv2d(config.dim, high * (side // _GRID) ** 2, 1)
            self.position = nn.Parameter(0.02 * torch.randn(1, high, side, side))
            self.stage1 = nn.Sequential(*(Residual(high) for _ in range(config.blocks[0])))
            self.up2 = nn.Conv2d(high, 4 * mid, 1)
            self.stage2 = nn.Sequential(*(Residual(mid) for _ in range(config.blocks[1])))
            self.up3 = nn.Conv2d(mid, 4 * low, 1)
            self.stage3 = nn.Sequential(*(Residual(low) for _ in range(config.blocks[2])))
            self.head = nn.Conv2d(low, 3 * _PATCH**2, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in the stubs

    def forward(self, z_MND: Tensor) -> Tensor:
        """Maps tokens [M, N, D] to brightness [M, h, w, 3], 0 to 1; the dtype is float32, or autocast's."""
        x = z_MND.transpose(1, 2).reshape(-1, self.config.dim, _GRID, _GRID).contiguous(memory_format=torch.channels_last)
        x = F.pixel_shuffle(self.split(x), self.config.image_size_px // (_STRIDE * _GRID))
        x = self.stage1(x + self.position)
        x = self.stage2(F.pixel_shuffle(self.up2(x), 2))
        x = self.stage3(F.pixel_shuffle(self.up3(x), 2))
        pixels_M3hw: Tensor = F.pixel_shuffle(self.head(F.silu(x)), _PATCH)
        return 0.5 + pixels_M3hw.permute(0, 2, 3, 1)


class Decoder:
    """A frozen decoder: weights never change, each frame alone, differentiable with respect to the tokens."""

    def __init__(
        self, network: DecoderNetwork, *, encoder: str, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
    ) -> None:
        """Freezes a copy of the network.

        Args:
            network: Its weights are copied.
            encoder: Fingerprint of the encoder whose tokens it was trained to read.
            device: Where to compute.
            dtype: Precision of the products; None picks bfloat16 where the hardware is fast at it. Pixels are float32 anyway.
        """
        self.config = network.config
        self.encoder = encoder
        self.device = torch.device(device)
        self._network = DecoderNetwork(network.config)
        self._network.load_state_dict(network.state_dict())
        self._network.to(self.device).eval().requires_grad_(False)
        self._dtype = dtype or inference_dtype(self.device)

    @property
    def num_parameters(self) -> int:
        """Weights in all."""
        return sum(value.numel() for value in self._network.parameters())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights, shape and the encoder it belongs to."""
        digest = hashlib.sha256(json.dumps([self.encoder, asdict(self.config)], sort_keys=True).encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def state_dict(self) -> dict[str, Tensor]:
        """Returns copies of the weights, by name."""
        return {name: value.detach().clone() for name, value in self._network.state_dict().items()}

    def decode(self, z: Tensor) -> Tensor:
        """Maps tokens to pixels.

        On a CPU, a frame's pixels do not depend on the other frames, to the last bit.

        Args:
            z: Tokens as the encoder gives them, [..., V * 4, D], of any number of views.

        Returns:
            Brightness, nominally 0 to 1, float32 [..., V, h, w, 3]; carries gradients if the tokens do.

        Raises:
            UserError: Another number of tokens, or another width.
        """
        tokens, dim = self.config.tokens_per_view, self.config.dim
        if z.ndim < 2 or z.shape[-1] != dim or z.shape[-2] == 0 or z.shape[-2] % tokens:
            raise UserError(f"latents have shape {list(z.shape)}: the decoder takes [..., views x {tokens}, {dim}]")
        z_MND = z.reshape(-1, tokens, dim).to(self.device, torch.float32)
        size = self.config.image_size_px
        shape = (*z.shape[:-2], z.shape[-2] // tokens, size, size, 3)
        if not len(z_MND):
            return torch.empty(shape, device=self.device)
        # On a CPU one by one: a frame's place in a pass would decide where threads share it out, and so how it rounds. That costs half as
        # much again in float32, and 0.8 times as much again in bfloat16.
        chunks = torch.split(z_MND, 1 if self.device.type == "cpu" else _CHUNK)
        return torch.cat([self._pass(chunk) for chunk in chunks]).reshape(shape)

    def _pass(self, z_MND: Tensor) -> Tensor:
        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype is torch.bfloat16):
            pixels: Tensor = self._network(z_MND)
        return pixels.float()
