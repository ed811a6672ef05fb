"""The arithmetic of an optimiser step: parameter groups, learning-rate schedule, weight average."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def make_adamw(module: nn.Module, *, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays matrices only; embeddings, modulation constants and biases are left alone."""
    decayed = [p for name, p in module.named_parameters() if p.ndim == 2 and name != "token"]
    plain = [p for name, p in module.named_parameters() if not (p.ndim == 2 and name != "token")]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


def warmup_cosine(step: int, *, steps: int, warmup: int, peak: float, floor: float = 0.01) -> float:
    """Learning rate of a step: linear warm-up to `peak`, then half a cosine down to `floor * peak` at the last step.

    Args:
        step: 0 for the first.
        steps: Steps in all.
        warmup: Steps of the warm-up.
        peak: Highest rate.
        floor: Last rate as a share of the peak.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


@torch.no_grad()
def update_average(average: Sequence[Tensor], current: Sequence[Tensor], *, step: int, decay: float) -> None:
    """Moves the average towards the current weights; young averages forget faster, so that no start-up bias remains."""
    torch._foreach_lerp_(list(average), list(current), 1 - min(decay, (1 + step) / (10 + step)))
