"""Normalisation: the numbers that stand between physical units and what the predictor sees. They live in the checkpoint.

Letters in array names: N tokens per frame, D latent width, A action dimensions, P proprioception dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from goalward import UserError

_CONSTANT = 1e-8


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentStatistics:
    """Latents are centred per token and dimension and divided by one scalar, so that distances keep their proportions.

    A scale per dimension would blow up the dimensions that hardly move, which are mostly noise.
    """

    mean_ND: Tensor
    """Mean of the training latents, float32 [N, D]."""
    scale: float
    """Root mean square of the centred training latents."""

    def normalise(self, z: Tensor) -> Tensor:
        """Encoder's latents [..., N, D] to the predictor's."""
        return (z - self.mean_ND.to(z.device)) / self.scale

    def denormalise(self, z: Tensor) -> Tensor:
        """Undoes `normalise`."""
        return z * self.scale + self.mean_ND.to(z.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorStatistics:
    """Mean and standard deviation of each entry of a vector in physical units (an action, a proprioceptive state)."""

    mean: Tensor
    """float32 [A] or [P]."""
    std: Tensor
    """float32 [A] or [P], positive; 1 for an entry that never changed."""

    def normalise(self, x: Tensor) -> Tensor:
        """Physical units [..., A] to z-scores."""
        return (x - self.mean.to(x.device, x.dtype)) / self.std.to(x.device, x.dtype)

    def denormalise(self, x: Tensor) -> Tensor:
        """Undoes `normalise`."""
        return x * self.std.to(x.device, x.dtype) + self.mean.to(x.device, x.dtype)


def latent_statistics(z_FND: Tensor) -> LatentStatistics:
    """Measures latents of F frames, in float64.

    Raises:
        UserError: The latents are constant (a collapsed encoder, or pictures that never change) or not finite.
    """
    mean = torch.zeros(z_FND.shape[1:], dtype=torch.float64)
    parts = [z_FND[i : i + 4096] for i in range(0, len(z_FND), 4096)]
    for part in parts:  # Bounded memory: a float64 copy of everything is twice the latents.
        mean += part.double().sum(0)
    mean /= len(z_FND)
    square = math.fsum(float((part.double() - mean).square().sum()) for part in parts)
    scale = (square / z_FND.numel()) ** 0.5
    if not scale < float("inf"):
        raise UserError("latents are not finite; check the encoder (goalward pretrain) and the images")
    if scale < _CONSTANT:
        raise UserError("latents are all equal: the encoder has collapsed or the images never change; use another encoder or other data")
    return LatentStatistics(mean_ND=mean.float(), scale=scale)


def vector_statistics(x_FA: Tensor, name: str) -> VectorStatistics:
    """Measures F vectors, in float64.

    Raises:
        UserError: A value is not finite.
    """
    x = x_FA.double()
    mean, std = x.mean(0), x.std(0, correction=0)
    if not bool(torch.isfinite(mean).all() and torch.isfinite(std).all()):
        raise UserError(f"{name} contains values that are not finite; collect the data again")
    return VectorStatistics(mean=mean.float(), std=torch.where(std > _CONSTANT, std, 1.0).float())
