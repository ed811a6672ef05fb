"""Bounds on every action entry. Letters: B problems, S candidates, H horizon steps, A action dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.actions.base import Situation

_LARGEST_BOUND = 1e9
"""Squares of actions must be finite in float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """Bounds on every action entry; use `Box.of` to make one."""

    low_A: Tensor
    """Smallest action, float32 [A]."""
    high_A: Tensor
    """Largest action, float32 [A]; equal to the smallest for an entry that is frozen."""

    def __post_init__(self) -> None:
        """Refuses bounds that are not finite, crossed or of different shapes."""
        low, high = self.low_A, self.high_A
        if low.ndim != 1 or low.shape != high.shape or not low.numel():
            raise UserError(f"action bounds: shapes {tuple(low.shape)} and {tuple(high.shape)}; give two vectors with one entry per action")
        if not bool(torch.isfinite(low).all() & torch.isfinite(high).all() & (low <= high).all()):
            raise UserError(f"action bounds: low {low.tolist()}, high {high.tolist()}; must be finite with low <= high in every entry")
        if bool(torch.maximum(low.abs(), high.abs()).amax() > _LARGEST_BOUND):
            raise UserError(f"action bounds: {low.tolist()} .. {high.tolist()}; none may exceed {_LARGEST_BOUND:g}; use other units")

    @classmethod
    def of(cls, low: Tensor | Sequence[float], high: Tensor | Sequence[float], *, device: torch.device | str = "cpu") -> Box:
        """Makes a box from anything that holds A numbers."""
        return cls(*(torch.as_tensor(bound, dtype=torch.float32, device=device).detach().clone() for bound in (low, high)))

    def frozen(self, values: Mapping[int, float]) -> Box:
        """A box with some entries frozen: each at its value.

        Raises:
            UserError: An entry that does not exist.
        """
        low, high = self.low_A.clone(), self.high_A.clone()
        for dim, value in values.items():
            if not 0 <= dim < low.shape[0]:
                raise UserError(f"frozen: action entry {dim}; there are entries 0 .. {low.shape[0] - 1}")
            low[dim] = high[dim] = value
        return Box(low, high)

    def project(self, actions_BSHA: Tensor, situation: Situation) -> Tensor:
        """Clips every entry: the nearest feasible action."""
        return torch.clamp(actions_BSHA, self.low_A, self.high_A)
