"""Balls: bounds on the length of one action, whatever its direction.

V-JEPA 2-AC plans "in an L1 ball of radius 0.075": its paper says so, its code clips every axis by itself. The ball that reproduces its
results is therefore `Ball("linf", 0.075, ...)`; a true L1 ball of that radius allows no more than 7.5 cm in all axes together.

Letters: B problems, S candidates, A action dimensions, M entries that the ball bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from goalward import UserError

_HALVINGS = 42
"""Of the bracket around the multiplier: well below the precision of float32."""
_A_LITTLE_INSIDE = 1 - 2.0**-22
"""Where projections end, so that rounding to float32 does not leave the ball."""


@dataclass(frozen=True, slots=True)
class Ball:
    """Bounds the norm of some entries of every action: l1 sum of sizes, l2 length, linf largest size."""

    norm: Literal["l1", "l2", "linf"]
    """Which norm."""
    radius: float
    """Largest norm, in the unit of the entries, which they must share."""
    action_dims: tuple[int, ...] = (0, 1, 2)
    """Which entries."""

    def __post_init__(self) -> None:
        """Checks every field."""
        if self.norm not in ("l1", "l2", "linf"):
            raise UserError(f"ball: norm {self.norm!r} is unknown; choose l1, l2 or linf")
        if not 0.0 < self.radius < 1e9:
            raise UserError(f"ball: radius {self.radius!r} is not allowed; give a number above 0 and below 1e9")
        if not self.action_dims or len(set(self.action_dims)) != len(self.action_dims) or min(self.action_dims) < 0:
            raise UserError(f"ball: action entries {self.action_dims}; give at least one, none twice")

    def pull(self, action_BSA: Tensor, low_BSA: Tensor, high_BSA: Tensor, wanted_BSA: Tensor) -> Tensor:
        """Moves actions into the ball, staying in the interval of each entry as far as the two agree.

        The result is the point nearest to what was wanted among those in both. Where the two do not meet, the ball holds, and the action
        goes as far toward the interval as it permits.

        Args:
            action_BSA: Inside the interval.
            low_BSA: Lower end of the interval.
            high_BSA: Upper end.
            wanted_BSA: The action before it was moved into the interval.
        """
        dims = list(self.action_dims)
        inside_BSM, low, high = action_BSA[..., dims], low_BSA[..., dims], high_BSA[..., dims]
        if self.norm == "linf":
            edge = self.radius * _A_LITTLE_INSIDE
            moved_BSM = torch.where(inside_BSM.double().abs() <= self.radius, inside_BSM, inside_BSM.clamp(-edge, edge))
        else:
            fits_BS = self.length(inside_BSM) <= self.radius
            if not inside_BSM.is_cuda and bool(fits_BS.all()):  # on a GPU, looking would cost more than the work
                return action_BSA
            moved_BSM = self._nearest(wanted_BSA[..., dims].double(), low.double(), high.double()).to(inside_BSM.dtype)
            moved_BSM = torch.where(fits_BS[..., None], inside_BSM, moved_BSM)
        pulled_BSA = action_BSA.clone()
        pulled_BSA[..., dims] = moved_BSM
        return pulled_BSA

    def length(self, values_BSM: Tensor) -> Tensor:
        """The norm [B, S] of entries, in float64: what the radius bounds."""
        values_BSM = values_BSM.double()
        match self.norm:
            case "l1":
                return values_BSM.abs().sum(-1)
            case "l2":
                return values_BSM.square().sum(-1).sqrt()
            case _:
                return values_BSM.abs().amax(-1)

    def _nearest(self, wanted: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Nearest point of the ball and the interval, in float64.

        Minimising |a - w|^2 / 2 over the ball and low <= a <= high gives, with the multiplier u of the ball,

            l2: a = clip(w / (1 + u), low, high)          l1: a = clip(sign(w) max(|w| - u, 0), low, high)

        whose norm falls with u; it is found by bisection, over 1 / (1 + u) in 0 .. 1 and over u / max |w| in 1 .. 0 respectively.
        """
        radius = self.radius * _A_LITTLE_INSIDE
        largest = wanted.abs().amax(-1, keepdim=True)
        # Of a wanted action of 1e30 only the direction matters, and its squares must not overflow.
        wanted = wanted / largest.clamp(min=1.0)
        scale = largest.clamp(min=1.0)

        def at(share: Tensor) -> Tensor:
            if self.norm == "l2":
                free = wanted * share * scale
            else:
                free = (wanted.abs() - (1 - share) * wanted.abs().amax(-1, keepdim=True)).clamp(min=0.0) * wanted.sign() * scale
            return torch.minimum(torch.maximum(free, low), high)

        smallest = at(torch.zeros_like(largest))
        below, above = torch.zeros_like(largest), torch.ones_like(largest)
        for _ in range(_HALVINGS):
            middle = (below + above) * 0.5
            fits = self.length(at(middle))[..., None] <= radius
            below, above = torch.where(fits, middle, below), torch.where(fits, above, middle)
        least = self.length(smallest)[..., None]
        return torch.where(least > radius, smallest * (radius / least.clamp(min=1e-300)), at(below))
