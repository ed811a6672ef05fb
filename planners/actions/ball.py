"""Balls: bounds on the length of one action, whatever its direction.

V-JEPA 2-AC plans "in an L1 ball of radius 0.075": its paper says so, its code clips every axis by itself. The ball that reproduces its
results is therefore `Ball("linf", 0.075)`; a true L1 ball of that radius allows no more than 7.5 cm in all axes together.

Letters: B problems, S candidates, A action dimensions, M entries that the ball bounds, K corners of a path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.actions.entries import put, take
from goalward.planners.actions.rounding import float32_at_most

if TYPE_CHECKING:
    from collections.abc import Sequence

    from goalward.planners.actions.base import Interval, StepLimit
    from goalward.planners.actions.box import Box

_A_LITTLE_INSIDE = 1 - 2.0**-22
"""Where moved actions end, as a share of the radius, so that neither rounding them nor computing their norm in float32 exceeds it."""
_LARGEST = torch.finfo(torch.float32).max


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
        if not 1e-9 <= self.radius <= 1e9:  # below it, float32 gets coarse
            raise UserError(f"ball: radius {self.radius!r} is not allowed; give a number from 1e-9 to 1e9")
        if not self.action_dims or len(set(self.action_dims)) != len(self.action_dims) or min(self.action_dims) < 0:
            raise UserError(f"ball: action entries {self.action_dims}; give at least one, none twice, none below 0")

    def check(self, box: Box, limits: Sequence[StepLimit]) -> None:
        """Refuses a box in which the ball may leave no action at all."""
        bounds = [(float(box.low_A[dim]), float(box.high_A[dim])) for dim in self.action_dims]
        if any(low > 0 or high < 0 for low, high in bounds):
            shown = ", ".join(f"{low:g} .. {high:g}" for low, high in bounds)
            raise UserError(f"action set: a ball around 0 and bounds {shown} of its entries; every one of them must contain 0")

    def pull(self, action_BSA: Tensor, wanted_BSA: Tensor, interval: Interval) -> Tensor:
        """Moves actions into the ball, staying in the interval of each entry as far as the two agree.

        The result is the point nearest to what was wanted, in Euclidean distance, among those in both: exactly, up to rounding. Where the
        two do not meet, the ball holds, and the action goes as far toward the interval's point nearest to 0 as the ball permits. Actions
        whose norm, in float64, is at most the radius are left alone.

        Args:
            action_BSA: Inside the interval.
            wanted_BSA: The action before it was moved into the interval.
            interval: Gives the lower and upper ends, [B, S, A].
        """
        if self.norm == "linf" or len(self.action_dims) == 1:
            edge = float32_at_most(self.radius)
            return put(action_BSA, self.action_dims, take(action_BSA, self.action_dims).clamp(-edge, edge))
        inside_BSM = take(action_BSA, self.action_dims)
        fits_BS = self.length(inside_BSM) <= self.radius
        if not inside_BSM.is_cuda and bool(fits_BS.all()):  # on a GPU, looking would cost more than the work
            return action_BSA
        low_BSM, high_BSM = (take(end_BSA, self.action_dims) for end_BSA in interval())
        wanted_BSM = take(wanted_BSA, self.action_dims).abs().clamp(max=_LARGEST)  # infinities have no differences
        floor_BSM = torch.clamp(torch.zeros_like(inside_BSM), low_BSM, high_BSM).abs()
        size_BSM = self._sizes(wanted_BSM.double(), floor_BSM.double(), inside_BSM.abs().double())
        moved_BSM = torch.where(fits_BS[..., None], inside_BSM, torch.copysign(size_BSM.to(inside_BSM.dtype), inside_BSM))
        return put(action_BSA, self.action_dims, moved_BSM)

    def length(self, values_BSM: Tensor) -> Tensor:
        """The norm [B, S] of entries, in float64: what the radius bounds."""
        sizes_BSM = values_BSM.double().abs()
        return sizes_BSM.amax(-1) if self.norm == "linf" else self._root(self._mass(sizes_BSM))

    def _mass(self, size_BSM: Tensor) -> Tensor:
        """The sum of sizes (l1) or of their squares (l2)."""
        return _sum(size_BSM if self.norm == "l1" else size_BSM * size_BSM)

    def _root(self, mass_BS: Tensor) -> Tensor:
        return mass_BS if self.norm == "l1" else mass_BS.sqrt()

    def _sizes(self, wanted_BSM: Tensor, floor_BSM: Tensor, top_BSM: Tensor) -> Tensor:
        """Sizes of the nearest point's entries, given the sizes wanted and the smallest and largest allowed; float64.

        Minimising |a - w|^2 / 2 over the ball and low <= a <= high gives, with the multiplier u >= 0 of the ball and
        v = 1 / (1 + u) or v = max |w| - u,

            l2: |a| = clip(v |w|, floor, top)          l1: |a| = clip(|w| - max |w| + v, floor, top)

        (the Karush-Kuhn-Tucker conditions; for l1 without an interval, Duchi et al. 2008, ICML, figure 1). As v rises every |a| rises from
        floor to top, along a straight line between the values of v at which an entry leaves its floor or reaches its top: the corners of
        the path. Where the norm reaches the radius lies between the last corner inside the ball and the first one outside.
        """
        radius = self.radius * _A_LITTLE_INSIDE
        mass = radius if self.norm == "l1" else radius * radius
        corner_BSK = torch.cat([floor_BSM, top_BSM], dim=-1)
        wanted_BSK = torch.cat([wanted_BSM, wanted_BSM], dim=-1)
        if self.norm == "l2":
            path_BSKM = (corner_BSK / wanted_BSK.clamp(min=1e-200))[..., None] * wanted_BSM[..., None, :]
        else:  # differences first: a tenth would be lost beside 1e30
            path_BSKM = (wanted_BSM[..., None, :] - wanted_BSK[..., None]) + corner_BSK[..., None]
        floor_BS1M, top_BS1M = floor_BSM[..., None, :], top_BSM[..., None, :]
        path_BSKM = torch.minimum(torch.maximum(path_BSKM, floor_BS1M), top_BS1M)
        fits_BSK1 = (self._mass(path_BSKM) <= mass)[..., None]
        # No entry ever falls along the path, so that the last corner inside is the largest of those inside, entry by entry.
        last_BSM = torch.where(fits_BSK1, path_BSKM, floor_BS1M).amax(-2)
        way_BSM = torch.where(fits_BSK1, top_BS1M, path_BSKM).amin(-2) - last_BSM
        left_BS, far_BS = (mass - self._mass(last_BSM)).clamp(min=0.0), self._mass(way_BSM)
        if self.norm == "l2":  # |last + share way|^2 = radius^2, solved without cancellation: none of its terms is below 0
            along_BS = _sum(last_BSM * way_BSM)
            far_BS = along_BS + (along_BS * along_BS + far_BS * left_BS).sqrt()
        share_BS = (left_BS / far_BS.clamp(min=1e-200)).clamp(max=1.0)
        # A floor outside the ball contradicts it; one that only the little above leaves outside is itself what both allow.
        floor_BS = self._root(self._mass(floor_BSM))
        scale_BS = torch.where(floor_BS > self.radius, radius / floor_BS.clamp(min=radius), 1.0)
        sized_BSM = last_BSM + share_BS[..., None] * way_BSM
        return torch.where((floor_BS > radius)[..., None], floor_BSM * scale_BS[..., None], sized_BSM)


def _sum(values_BSM: Tensor) -> Tensor:
    """Sums the last axis, entry by entry: a reduction may round differently in another batch."""
    first, *others = values_BSM.unbind(-1)
    for other in others:
        first = first + other
    return first
