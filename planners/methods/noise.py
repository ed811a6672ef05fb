"""Random numbers of a plan: one generator per problem, derived from that problem's seed and step; and time-correlated noise.

Letters: B problems, S candidates, H horizon steps, A action dimensions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def generators(seeds: Sequence[int], steps: Sequence[int]) -> list[torch.Generator]:
    """Derives one generator per problem by hashing (seed, step).

    They live on the CPU whatever the model's device, so that a seed means the same numbers everywhere.
    """
    made = []
    for seed, step in zip(seeds, steps, strict=True):
        digest = hashlib.blake2b(f"{seed}:{step}".encode(), digest_size=8).digest()
        made.append(torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1))
    return made


def standard_normal_BSHA(
    sources: Sequence[torch.Generator], shape_SHA: tuple[int, int, int], *, device: torch.device, coloring_HH: Tensor | None = None
) -> Tensor:
    """Draws noise of unit variance, each problem from its own generator and by itself, so that no problem feels the others.

    Args:
        sources: B generators; they advance.
        shape_SHA: Candidates, steps, action entries.
        device: Where the result goes.
        coloring_HH: From `coloring_matrix_HH`, on the CPU; None leaves steps independent.
    """
    drawn = [torch.randn(shape_SHA, generator=source) for source in sources]
    if coloring_HH is not None:
        drawn = [torch.matmul(coloring_HH, white_SHA) for white_SHA in drawn]
    return torch.stack(drawn).to(device, non_blocking=True)


@lru_cache(maxsize=16)
def coloring(horizon: int, exponent: float) -> Tensor | None:
    """`coloring_matrix_HH`, computed once."""
    return coloring_matrix_HH(horizon, exponent)


def coloring_matrix_HH(horizon: int, exponent: float) -> Tensor | None:
    """The matrix that turns white noise over H steps into noise with the power spectrum 1 / f^exponent and unit variance per step.

    It is the circulant matrix of the square root of the spectrum, normalised by the analytic variance. Normalising every sequence by its
    own deviation instead, as is common, gives heavy tails. The lowest frequency is 1 / H, as in Timmer and Koenig (1995) and iCEM
    (Pinneri et al. 2020, arXiv 2008.06389).
    """
    if exponent == 0.0 or horizon == 1:
        return None
    frequency = torch.fft.fftfreq(horizon, dtype=torch.float64).abs().clamp(min=1.0 / horizon)
    amplitude = frequency ** (-exponent / 2)
    amplitude = amplitude / amplitude.square().mean().sqrt()
    response_H = torch.fft.ifft(amplitude).real
    lag_HH = (torch.arange(horizon)[:, None] - torch.arange(horizon)[None, :]) % horizon
    coloring_HH: Tensor = response_H[lag_HH].to(torch.float32)
    return coloring_HH
