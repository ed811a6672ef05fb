"""CMA-ES (Hansen 2016, arXiv 1604.00772), through the package `cma`: learns which variables move together.

Each problem has a search of its own, in units of half the action range around its start. Candidates are projected before they are rolled
out, and told to the search as drawn, at the cost of the projection plus a penalty on the distance to it, which keeps the search near
what is feasible (Hansen et al. 2009, "A method for handling uncertainty in evolutionary optimization", section IV-B, in simpler form).

The package keeps its state in an object that changes; it lives within one call of `plan`, and draws its numbers from the problem's own
generator, so plans are pure all the same.

Letters: B problems, S candidates, K variables in time (horizon steps, or knots), A action dimensions, M entries that are not frozen.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goalward.planners.checks import require_count, require_number
from goalward.planners.methods.evaluation import Evaluation, Incumbent
from goalward.planners.methods.proposals import proposed_BS
from goalward.planners.methods.search import Clock, Search, Start

_OPTIONS: dict[str, Any] = {"verbose": -9, "verb_log": 0, "verb_disp": 0, "seed": float("nan")}
"""Silent; and a seed of NaN leaves NumPy's global generator alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CMAESConfig:
    """Budget and spread of CMA-ES. Spreads are fractions of half the range of each action entry."""

    num_samples: int = 32
    """Candidates per iteration."""
    num_iterations: int = 8
    """Iterations, at most."""
    init_std: float = 0.4
    """Spread of the first iteration."""
    diagonal: bool = False
    """Learn the spread of each variable alone (Ros and Hansen 2008), not how they move together: quicker to learn."""
    penalty: float = 1.0
    """Weight of the squared distance to the feasible set, in units of the spread of the costs."""
    stop_tolerance: float = 0.0
    """Stop when two iterations in a row improve the best cost by less than this fraction; 0 never stops early."""

    def __post_init__(self) -> None:
        """Checks every field."""
        require_count("num_samples", self.num_samples, low=4, why="fewer cannot show a direction")
        require_count("num_iterations", self.num_iterations)
        require_number("init_std", self.init_std, low=0.0, high=10.0, open_low=True)
        require_number("penalty", self.penalty, low=0.0, high=1e6)
        require_number("stop_tolerance", self.stop_tolerance, low=0.0, high=1.0)


class _Draws:
    """The noise that a search will ask for; `cma` calls it as it would call `numpy.random.randn`."""

    def __init__(self, noise_KA: Tensor) -> None:
        self.next_SM: NDArray[np.float64] | None = None
        # Now and then cma draws a number more, to rescale a candidate; it comes from a stream that the problem's own generator began.
        self._more = np.random.default_rng(list(noise_KA.cpu().numpy().tobytes()))

    def __call__(self, *shape: int) -> NDArray[np.float64]:
        if self.next_SM is None or self.next_SM.shape != shape:
            return self._more.standard_normal(shape)
        noise_SM, self.next_SM = self.next_SM, None
        return noise_SM


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CMAESParams:
    """One search per problem, and what it drew last, in its own units."""

    searches: tuple[tuple[Any, _Draws], ...]
    drawn_BSM: list[NDArray[np.float64]] = field(default_factory=list)
    first: bool = True


class CMAES(Search[CMAESParams]):
    """Covariance matrix adaptation; see the top of this file."""

    def __init__(self, config: CMAESConfig | None = None, *, clock: Clock = time.perf_counter) -> None:
        self.config = c = config or CMAESConfig()
        super().__init__(num_candidates=c.num_samples, num_iterations=c.num_iterations, tolerance=c.stop_tolerance, clock=clock)

    def begin(self, start: Start) -> CMAESParams:
        """Begins one search per problem, centred on the warm start."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Could not import matplotlib")  # cma would like to plot; nothing here asks it to
            import cma

        c = self.config
        num_free = start.mean_BKA.shape[1] * int((start.unit_A > 0).sum())
        if not num_free:
            return CMAESParams(searches=())
        searches = []
        for noise_1KA in start.noise_BSKA(1):
            draws = _Draws(noise_1KA)
            options = {**_OPTIONS, "popsize": c.num_samples, "CMA_diagonal": c.diagonal, "randn": draws}
            searches.append((cma.CMAEvolutionStrategy(np.zeros(num_free), c.init_std, options), draws))
        return CMAESParams(searches=tuple(searches))

    def propose(self, params: CMAESParams, start: Start) -> Tensor:
        """Asks each search; the first two candidates of all are the warm start and, if there is one, the cold start."""
        noise_BSKA = start.noise_BSKA(self.config.num_samples)
        free_A = start.unit_A > 0
        step_BSKA = torch.zeros_like(noise_BSKA)
        params.drawn_BSM.clear()
        for b, (search, draws) in enumerate(params.searches):
            noise_SKA = noise_BSKA[b][..., free_A]
            draws.next_SM = noise_SKA.flatten(1).double().cpu().numpy()
            drawn_SM = np.asarray(search.ask(self.config.num_samples))
            params.drawn_BSM.append(drawn_SM)
            step_BSKA[b, ..., free_A] = torch.from_numpy(drawn_SM).to(noise_SKA).reshape(noise_SKA.shape)
        variables_BSKA = start.mean_BKA[:, None] + step_BSKA * start.unit_A
        if params.first:
            variables_BSKA[:, 0] = start.mean_BKA
            variables_BSKA[:, 1] = torch.where(start.warm_B[:, None, None], start.cold_BKA, variables_BSKA[:, 1])
            for b, drawn_SM in enumerate(params.drawn_BSM):
                first_2M = (variables_BSKA[b, :2] - start.mean_BKA[b])[..., free_A] / start.unit_A[free_A]
                drawn_SM[:2] = first_2M.flatten(1).double().cpu().numpy()
        return variables_BSKA

    def update(self, params: CMAESParams, evaluation: Evaluation, incumbent: Incumbent, start: Start) -> CMAESParams:
        """Tells each search its costs; one whose candidates all failed goes on as it was."""
        free_A = start.unit_A > 0
        chosen_BS = proposed_BS(start.evaluate.problem, self.config.num_samples) if params.first else None
        for b, (search, _) in enumerate(params.searches):
            drawn_SM = params.drawn_BSM[b]
            feasible_SKA = (evaluation.variables_BSKA[b] - start.mean_BKA[b])[..., free_A] / start.unit_A[free_A]
            feasible_SM = feasible_SKA.flatten(1).double().cpu().numpy()
            if chosen_BS is not None:  # these were never drawn, but proposed
                drawn_SM[chosen_BS[b].cpu().numpy()] = feasible_SM[chosen_BS[b].cpu().numpy()]
            off_S = np.square(drawn_SM - feasible_SM).sum(axis=1)
            costs = told_costs(evaluation.cost_BS[b].double().cpu().numpy(), off_S, self.config.penalty)
            if costs is not None:
                search.tell(list(drawn_SM), costs.tolist())
        return replace(params, first=False)


def told_costs(cost_S: NDArray[np.float64], off_S: NDArray[np.float64], penalty: float) -> NDArray[np.float64] | None:
    """Costs with the penalty on the distance to the feasible set; candidates without a finite cost come last. None: all have failed.

    Args:
        cost_S: +inf where not finite.
        off_S: Squared distance of each candidate to its projection.
        penalty: See `CMAESConfig.penalty`.
    """
    finite_S = np.isfinite(cost_S)
    if not finite_S.any():
        return None
    # Above the least cost: what all candidates share must not decide, through rounding, which of two is told to be better.
    above_S = np.where(finite_S, cost_S - cost_S[finite_S].min(), 0.0)
    spread = float(np.std(above_S[finite_S]))
    told_S = above_S + penalty * spread * off_S
    worst = float(told_S[finite_S].max())
    return np.where(finite_S, told_S, worst + max(spread, abs(worst), 1.0))
