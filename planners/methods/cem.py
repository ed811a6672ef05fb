"""The cross-entropy method, with the improvements of iCEM (Pinneri et al. 2020, arXiv 2008.06389).

    candidates ~ mean + std * noise
    mean, std <- mean and standard deviation of the E cheapest candidates, blended with the old ones

Letters: B problems, S candidates, E elites, K variables in time (horizon steps, or knots), A action dimensions.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.checks import require_count, require_number
from goalward.planners.methods.evaluation import Evaluation, Incumbent
from goalward.planners.methods.noise import coloring
from goalward.planners.methods.screening import Screening
from goalward.planners.methods.search import Clock, Search, Start


@dataclass(frozen=True, kw_only=True, slots=True)
class CEMConfig:
    """Budget and spread of a CEM search. Spreads are fractions of half the range of each action entry."""

    num_samples: int = 64
    """Candidates per iteration."""
    num_iterations: int = 4
    """Iterations, at most."""
    num_elites: int = 6
    """Cheapest candidates that shape the next iteration."""
    init_std: float | tuple[float, ...] = 0.8
    """Spread of the first iteration; one number, or one per action entry."""
    warm_std: float | None = None
    """Spread of the first iteration after a warm start; the same as init_std if not given."""
    min_std: float = 0.02
    """Floor under the spread."""
    momentum: float | tuple[float, ...] = 0.0
    """Share of the old mean and spread in the new ones; one number, or one per action entry."""
    std_momentum: float | tuple[float, ...] | None = None
    """Share of the old spread alone in the new one; the same as momentum if not given."""
    unbiased: bool = False
    """Divide the elites' squared deviations by their number less one, not by their number."""
    mean_competes: bool = True
    """Whether the mean itself, and the cold start beside a warm one, are among the candidates."""
    num_kept_elites: int = 3
    """Elites that also compete in the next iteration, at no cost in rollouts."""
    noise_exponent: float = 0.0
    """Correlation of the noise in time: its power spectrum falls as 1 / frequency^exponent; 0 is white, 2 to 3 is smooth."""
    return_mean: bool = False
    """Return the final mean rather than the best candidate seen; the mean is evaluated, and must have a finite cost."""
    screening: Screening | None = None
    """Look at all candidates coarsely first, and roll out the most promising in full; None: roll out all in full."""
    stop_tolerance: float = 0.0
    """Stop when two iterations in a row improve the best cost by less than this fraction; 0 never stops early."""

    def __post_init__(self) -> None:
        """Checks every field."""
        require_count("num_samples", self.num_samples)
        require_count("num_iterations", self.num_iterations)
        require_count("num_elites", self.num_elites, high=self.num_samples, why="no more than num_samples")
        require_count("num_kept_elites", self.num_kept_elites, low=0, high=self.num_elites, why="no more than num_elites")
        for number in _numbers("init_std", self.init_std):
            require_number("init_std", number, low=0.0, high=10.0, open_low=True)
        if self.warm_std is not None:
            require_number("warm_std", self.warm_std, low=0.0, high=10.0, open_low=True)
        require_number("min_std", self.min_std, low=0.0, high=10.0)
        for name in ("momentum", "std_momentum"):
            if name == "std_momentum" and self.std_momentum is None:
                continue
            for number in _numbers(name, getattr(self, name)):
                require_number(name, number, low=0.0, high=1.0, open_high=True)
        require_number("noise_exponent", self.noise_exponent, low=0.0, high=10.0)
        require_number("stop_tolerance", self.stop_tolerance, low=0.0, high=1.0)
        if self.return_mean and self.stop_tolerance > 0:
            # In a batch, the mean of a problem that has converged would depend on how long the others go on.
            raise UserError("stop_tolerance: cannot be combined with return_mean; set stop_tolerance to 0, or return_mean to False")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CEMParams:
    """The distribution that candidates are drawn from, and the elites that compete again."""

    mean_BKA: Tensor
    std_BKA: Tensor
    kept_BEKA: Tensor | None = None
    kept_cost_BE: Tensor | None = None
    num_updates: int = 0


class CEM(Search[CEMParams]):
    """Cross-entropy search; see the top of this file."""

    def __init__(self, config: CEMConfig | None = None, *, clock: Clock = time.perf_counter) -> None:
        self.config = c = config or CEMConfig()
        self.updates_after_last = c.return_mean
        self.screening, self.num_learned_from = c.screening, c.num_elites
        super().__init__(num_candidates=c.num_samples, num_iterations=c.num_iterations, tolerance=c.stop_tolerance, clock=clock)

    def begin(self, start: Start) -> CEMParams:
        """Centres the search on the warm start, with the full spread."""
        c = self.config
        warm_B11 = start.warm_B[:, None, None]
        init = per_entry("init_std", c.init_std, start.unit_A)
        std_B1A = torch.where(warm_B11, init if c.warm_std is None else c.warm_std, init)
        return CEMParams(mean_BKA=start.mean_BKA, std_BKA=(std_B1A * start.unit_A).expand_as(start.mean_BKA))

    def propose(self, params: CEMParams, start: Start) -> Tensor:
        """Draws candidates; the first is the mean itself, and a warm-started search also tries the cold start."""
        return self._drawn(params, start, self.config.num_samples)

    def _drawn(self, params: CEMParams, start: Start, num_samples: int) -> Tensor:
        variables_BSKA = torch.addcmul(params.mean_BKA[:, None], params.std_BKA[:, None], start.noise_BSKA(num_samples))
        if not self.config.mean_competes:
            return variables_BSKA
        variables_BSKA[:, 0] = params.mean_BKA
        if params.kept_BEKA is None and num_samples > 1:
            variables_BSKA[:, 1] = torch.where(start.warm_B[:, None, None], start.cold_BKA, variables_BSKA[:, 1])
        return variables_BSKA

    def update(self, params: CEMParams, evaluation: Evaluation, incumbent: Incumbent, start: Start) -> CEMParams:
        """Refits to the elites with finite cost; where there is none, everything stays."""
        c = self.config
        variables_BSKA, cost_BS = evaluation.variables_BSKA, evaluation.cost_BS
        if params.kept_BEKA is not None and params.kept_cost_BE is not None:
            variables_BSKA = torch.cat([variables_BSKA, params.kept_BEKA], dim=1)
            cost_BS = torch.cat([cost_BS, params.kept_cost_BE], dim=1)
        cost_BE, index_BE = cost_BS.topk(c.num_elites, dim=1, largest=False)
        rows_B1 = torch.arange(cost_BS.shape[0], device=cost_BS.device)[:, None]
        elite_BEKA = variables_BSKA[rows_B1, index_BE]
        finite_BE11 = torch.isfinite(cost_BE)[..., None, None]
        num_B111 = finite_BE11.sum(dim=1, keepdim=True)
        share_BE11 = finite_BE11 / num_B111.clamp(min=1)
        mean_BKA = (share_BE11 * elite_BEKA).sum(dim=1)
        squared_BKA = (share_BE11 * (elite_BEKA - mean_BKA[:, None]).square()).sum(dim=1)
        if c.unbiased:
            squared_BKA = squared_BKA * (num_B111 / (num_B111 - 1).clamp(min=1)).squeeze(1)
        std_BKA = squared_BKA.sqrt()
        momentum = per_entry("momentum", c.momentum, start.unit_A)
        std_momentum = momentum if c.std_momentum is None else per_entry("std_momentum", c.std_momentum, start.unit_A)
        any_B11 = finite_BE11.any(dim=1)
        return CEMParams(
            mean_BKA=torch.where(any_B11, torch.lerp(mean_BKA, params.mean_BKA, momentum), params.mean_BKA),
            std_BKA=torch.where(any_B11, torch.lerp(std_BKA, params.std_BKA, std_momentum), params.std_BKA).maximum(
                c.min_std * start.unit_A
            ),
            kept_BEKA=elite_BEKA[:, : c.num_kept_elites],
            kept_cost_BE=cost_BE[:, : c.num_kept_elites],
            num_updates=params.num_updates + 1,
        )

    def conclude(self, params: CEMParams, incumbent: Incumbent, start: Start) -> Incumbent:
        """Returns the incumbent, or the final mean where that is wanted and its cost is finite."""
        if not self.config.return_mean:
            return incumbent
        mean = start.evaluate(params.mean_BKA[:, None])
        chosen = replace(incumbent, cost_B=torch.full_like(incumbent.cost_B, float("inf"))).challenged(mean)
        # Where the mean's cost is not finite, `chosen` kept the incumbent's actions; give it back its cost.
        return replace(chosen, cost_B=torch.where(mean.finite_BS[:, 0], chosen.cost_B, incumbent.cost_B))

    def coloring_HH(self, horizon: int) -> Tensor | None:
        """Colours the noise in time."""
        return coloring(horizon, self.config.noise_exponent)


def _numbers(name: str, value: float | tuple[float, ...]) -> tuple[float, ...]:
    if value == ():
        raise UserError(f"{name}: no number; give one for all action entries, or one each")
    return value if isinstance(value, tuple) else (value,)


def per_entry(name: str, value: float | tuple[float, ...], like_A: Tensor) -> Any:
    """One number for all action entries as it is, or one for each as a tensor [A] of their dtype and device.

    Raises:
        UserError: Another number of numbers than there are entries.
    """
    if not isinstance(value, tuple):
        return value
    if len(value) != len(like_A):
        raise UserError(f"{name}: {len(value)} numbers for {len(like_A)} action entries; give one for all, or one each")
    return torch.tensor(value, dtype=like_A.dtype, device=like_A.device)
