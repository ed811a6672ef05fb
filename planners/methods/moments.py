"""Adam's moments of a gradient (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1), as an immutable value.

m <- b1 m + (1 - b1) g          v <- b2 v + (1 - b2) g^2          direction = m / (1 - b1^i) / (sqrt(v / (1 - b2^i)) + eps)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Moments:
    """Running means of a gradient and of its square."""

    mean: Tensor
    square: Tensor
    num_steps: int = 0
    beta1: float = 0.7
    """Memory of the mean; shorter than is usual in training, because a search is short."""
    beta2: float = 0.95
    """Memory of the square."""
    epsilon: float = 1e-8
    """Keeps flat directions from dividing by zero."""

    @classmethod
    def zeros_like(cls, values: Tensor, **constants: float) -> Moments:
        """Begins without memory."""
        zeros = torch.zeros_like(values)
        return cls(mean=zeros, square=zeros, **constants)  # type: ignore[arg-type]

    def after(self, gradient: Tensor) -> tuple[Tensor, Moments]:
        """Takes in a gradient; returns the direction of the step, of size about 1, and the new moments."""
        step = self.num_steps + 1
        mean = torch.lerp(gradient, self.mean, self.beta1)
        square = torch.lerp(gradient.square(), self.square, self.beta2)
        direction = mean / (1 - self.beta1**step) / ((square / (1 - self.beta2**step)).sqrt() + self.epsilon)
        return direction, replace(self, mean=mean, square=square, num_steps=step)

    def where(self, keep: Tensor) -> Moments:
        """Forgets what it knows of the other entries."""
        return replace(self, mean=torch.where(keep, self.mean, 0.0), square=torch.where(keep, self.square, 0.0))
