"""Knots: a plan described by few values in absolute time, with its actions read off a spline through them.

    a_h = spline(knots)(start + h dt)              h = 0 .. H - 1

Knots stand at whole multiples of their spacing on the observations' clock, not at a fixed distance from the present. So the next plan
shares the knots that still lie ahead with the previous one, and a warm start repeats them exactly, however much time has passed (as in
MuJoCo MPC, Howell et al. 2022, arXiv 2212.00541, section III).

Fewer variables make the search easier, and the motion smoother. The spline is linear in the knots, hence one matrix per problem.

Letters: B problems, H horizon steps, K knots, A action dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goalward import UserError
from goalward.planners.checks import require_number

_SNAP = 1e-3
"""A time this near to a knot, in spacings, is on it: clocks round."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Knots:
    """How plans are parametrised."""

    spacing_s: float
    """Time from one knot to the next, seconds."""
    order: Literal["zero", "linear", "cubic"] = "linear"
    """zero: every action is that of the last knot; linear: between the neighbours; cubic: through them, with continuous velocity
    (Catmull and Rom 1974)."""

    def __post_init__(self) -> None:
        """Checks both fields."""
        require_number("spacing_s", self.spacing_s, low=0.0, open_low=True)
        if self.order not in ("zero", "linear", "cubic"):
            raise UserError(f"order: {self.order!r} is unknown; choose zero, linear or cubic")

    def num(self, horizon: int, dt_s: float) -> int:
        """K: enough for every phase of the grid."""
        last = math.floor((horizon - 1) * dt_s / self.spacing_s + 1.0 - _SNAP)  # the last step's cell when the first is as late as can be
        return last + 1 + (self.order != "zero")

    def first(self, start_time_s: float) -> int:
        """Number of the last knot not after this time."""
        return math.floor(start_time_s / self.spacing_s + _SNAP)

    def weights_BHK(self, start_times_s: Sequence[float], horizon: int, dt_s: float) -> Tensor:
        """How much each knot counts in each action; float32, every row sums to 1."""
        num = self.num(horizon, dt_s)
        rows = []
        for start_s in start_times_s:
            # Positions among the knots are found relative to the first one: times of day must not cost precision.
            phase = min(max(start_s / self.spacing_s - self.first(start_s), 0.0), 1.0)
            at_H = phase + np.arange(horizon) * (dt_s / self.spacing_s)
            cell_H = np.minimum(np.floor(at_H + _SNAP).astype(np.int64), num - 1)
            part_H = np.clip(at_H - cell_H, 0.0, 1.0)
            part_H[part_H < _SNAP] = 0.0
            rows.append(self._basis_HK(cell_H, part_H, num))
        return torch.from_numpy(np.stack(rows).astype(np.float32))

    def _basis_HK(self, cell_H: NDArray[np.int64], part_H: NDArray[np.float64], num: int) -> NDArray[np.float64]:
        knots_KK = np.eye(num)

        def knot(offset: int) -> NDArray[np.float64]:
            chosen: NDArray[np.float64] = knots_KK[np.clip(cell_H + offset, 0, num - 1)]
            return chosen

        if self.order == "zero":
            return knot(0)
        u: NDArray[np.float64] = part_H[:, None]
        linear: NDArray[np.float64] = (1 - u) * knot(0) + u * knot(1)
        if self.order == "linear":
            return linear
        leave, arrive = (knot(1) - knot(-1)) / 2, (knot(2) - knot(0)) / 2
        # Hermite's cubic, written as the straight line and what bends it.
        bend: NDArray[np.float64] = u * (1 - u) * ((1 - u) * (leave - knot(1) + knot(0)) + u * (knot(1) - knot(0) - arrive))
        return linear + bend
