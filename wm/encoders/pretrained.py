"""A pretrained vision transformer as a frozen encoder: prepare, run, keep the patch tokens, normalise, pool.

Letters: M loose frames, h = w side in pixels, G patch tokens of one frame, N tokens kept, D latent width.

    uint8 [M,h,w,3] -> Preprocessing -> transformers -> [M,G,D] -> layer norm? -> fixed pooling -> float32 [M,N,D]

On a CPU every frame is computed alone, so that it gets the same bits in any batch; with hundreds of tokens a frame that costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from goalward import UserError
from goalward.wm.base import inference_dtype
from goalward.wm.encoders.families import Family
from goalward.wm.encoders.pooling import pooling_matrix
from goalward.wm.encoders.preprocessing import Preprocessing
from goalward.wm.encoders.spec import EncoderSpec, ReadOut

_GPU_CHUNK = 32  # frames per pass on a GPU: bounds the memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a pretrained encoder came from, and what it is."""

    spec: EncoderSpec
    """As the user wrote it."""
    folder: Path
    """Folder the files were read from."""
    licence: str
    """Licence of the weights, from the folder's model card or the family's."""
    weights_sha256: str
    """Over the tensors that decide the latents."""
    fingerprint: str
    """Over weights, architecture, preprocessing and read-out."""
    num_parameters: int
    """Of the part that is run."""


class PretrainedEncoder:
    """A model of `transformers` behind the `Encoder` protocol: weights never change, no gradient, each frame alone."""

    def __init__(
        self,
        model: Any,
        family: Family,
        origin: Origin,
        preprocessing: Preprocessing,
        read_out: ReadOut,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        compiled: bool = False,
    ) -> None:
        """Freezes the model; most users call `load_encoder`.

        Args:
            model: A model of the family's class; it is changed: frozen, moved, cast.
            family: Which family it belongs to.
            origin: Where it came from.
            preprocessing: What frames go through before.
            read_out: What tokens go through after.
            device: Where to compute.
            dtype: Precision of the weights; None picks bfloat16 where the hardware is fast at it. Latents are float32 anyway.
            compiled: Compile the network: tens of seconds at the first frame, then somewhat faster; needs a C++ compiler on a CPU.

        Raises:
            UserError: The read-out asks for more tokens than there are patches.
        """
        self.family = family
        self.origin = origin
        self.preprocessing = preprocessing
        self.read_out = read_out
        self.device = torch.device(device)
        self.dtype = dtype or inference_dtype(self.device)
        self.grid = preprocessing.crop_px // int(model.config.patch_size)
        pooling = pooling_matrix(self.grid, read_out.tokens)
        self._pooling_NG = None if pooling is None else pooling.to(self.device)
        self._model = model.to(self.device, self.dtype).eval().requires_grad_(False)
        patches: Callable[[Tensor], Tensor] = lambda x: family.patches(self._model, x)  # noqa: E731 - compiled as it is
        self._patches = torch.compile(patches, dynamic=False) if compiled else patches

    @property
    def name(self) -> str:
        """The last part of its place, with the options that were given."""
        source = self.origin.spec.source if self.origin.spec.is_hub_id else Path(self.origin.spec.source).resolve().name
        return str(EncoderSpec(source=source, revision=self.origin.spec.revision, options=self.origin.spec.options))

    @property
    def licence(self) -> str:
        """Licence of the weights."""
        return self.origin.licence

    @property
    def fingerprint(self) -> str:
        """SHA-256 over weights, architecture, preprocessing and read-out."""
        return self.origin.fingerprint

    @property
    def image_size_px(self) -> int:
        """Side of the square frames taken, pixels."""
        return self.read_out.frame or self.preprocessing.crop_px

    @property
    def tokens_per_view(self) -> int:
        """Latent tokens of one frame, row by row."""
        return self.read_out.tokens or self.grid**2

    @property
    def dim(self) -> int:
        """Latent width D."""
        return int(self._model.config.hidden_size)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns copies of the weights, by name."""
        return {name: value.detach().clone() for name, value in self._model.state_dict().items()}

    @torch.no_grad()
    def patch_tokens(self, frames: Tensor | NDArray[np.uint8]) -> Tensor:
        """Maps frames to all their patch tokens, before any pooling.

        Args:
            frames: uint8 [M, h, w, 3], red-green-blue, h = w = `image_size_px`.

        Returns:
            float32 [M, G, D] on the encoder's device, layer-normalised where the read-out says so.

        Raises:
            UserError: Another dtype, rank or size.
        """
        return self._filled(frames, self.grid**2, None)

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
        return self._filled(frames, self.tokens_per_view, self._pooling_NG)

    def _filled(self, frames: Tensor | NDArray[np.uint8], tokens: int, pooling_NG: Tensor | None) -> Tensor:
        frames = self._checked(frames)
        z_MND = torch.empty(len(frames), tokens, self.dim, dtype=torch.float32, device=self.device)
        size = 1 if self.device.type == "cpu" else _GPU_CHUNK
        for start in range(0, len(frames), size):
            # A copy: kernels may round by the alignment of memory, and a slice of a batch may lie anywhere.
            chunk = frames[start : start + size].to(self.device, copy=True)
            z_mGD = self._patches(self.preprocessing.apply(chunk).to(self.dtype)).float()
            if self.read_out.norm == "layer":
                z_mGD = F.layer_norm(z_mGD, (self.dim,))
            z_MND[start : start + size] = z_mGD if pooling_NG is None else pooling_NG @ z_mGD
        return z_MND

    def _checked(self, frames: Tensor | NDArray[np.uint8]) -> Tensor:
        if isinstance(frames, np.ndarray):  # torch warns of memory that is read-only: copy that
            frames = torch.from_numpy(np.require(frames, requirements=["C", "W"]))
        size = self.image_size_px
        if frames.dtype != torch.uint8:
            raise UserError(f"frames have dtype {str(frames.dtype).removeprefix('torch.')}: must be uint8 in 0..255; convert")
        if frames.ndim != 4 or tuple(frames.shape[1:]) != (size, size, 3):
            raise UserError(
                f"frames have shape {tuple(frames.shape)}: encoder {self.name!r} takes [M, {size}, {size}, 3]; render at "
                f"image_size_px={size}, or write #frame= behind the encoder"
            )
        return frames
