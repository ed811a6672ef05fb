"""Model predictive path integral control (Williams et al. 2017, "Information theoretic MPC", ICRA; algorithm 2).

    candidates ~ mean + std * noise
    w_s        =  exp(-(cost_s - min cost) / (temperature * spread of the costs))        normalised to sum 1
    mean      <-  sum of w_s candidate_s

The minimum is subtracted, so nothing overflows. The temperature is in units of the standard deviation of the costs, so that it means the
same for every encoder and objective, and near the goal as far from it. Weights belong to the feasible candidates, not to the noise before
projection. Between iterations the spread shrinks, as in DIAL-MPC (Xue et al. 2024, arXiv 2409.15610).

Letters: B problems, S candidates, K variables in time (horizon steps, or knots), A action dimensions.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from goalward.planners.checks import require_count, require_number
from goalward.planners.methods.evaluation import Evaluation, Incumbent
from goalward.planners.methods.noise import coloring
from goalward.planners.methods.search import Clock, Search, Start


@dataclass(frozen=True, kw_only=True, slots=True)
class MPPIConfig:
    """Budget and spread of MPPI. Spreads are fractions of half the range of each action entry."""

    num_samples: int = 64
    """Candidates per iteration."""
    num_iterations: int = 4
    """Iterations, at most."""
    temperature: float = 0.1
    """How much worse a candidate may be and still count, in standard deviations of the costs."""
    init_std: float = 0.6
    """Spread of the first iteration."""
    decay: float = 0.6
    """Factor on the spread from one iteration to the next."""
    min_std: float = 0.02
    """Floor under the spread."""
    noise_exponent: float = 0.0
    """Correlation of the noise in time: its power spectrum falls as 1 / frequency^exponent; 0 is white, 2 to 3 is smooth."""
    stop_tolerance: float = 0.0
    """Stop when two iterations in a row improve the best cost by less than this fraction; 0 never stops early."""

    def __post_init__(self) -> None:
        """Checks every field."""
        require_count("num_samples", self.num_samples)
        require_count("num_iterations", self.num_iterations)
        require_number("temperature", self.temperature, low=0.0, high=100.0, open_low=True)
        require_number("init_std", self.init_std, low=0.0, high=10.0, open_low=True)
        require_number("decay", self.decay, low=0.0, high=1.0, open_low=True)
        require_number("min_std", self.min_std, low=0.0, high=10.0)
        require_number("noise_exponent", self.noise_exponent, low=0.0, high=10.0)
        require_number("stop_tolerance", self.stop_tolerance, low=0.0, high=1.0)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MPPIParams:
    """The mean, and how many iterations were done."""

    mean_BKA: Tensor
    iteration: int = 0


class MPPI(Search[MPPIParams]):
    """Path integral control; see the top of this file."""

    def __init__(self, config: MPPIConfig | None = None, *, clock: Clock = time.perf_counter) -> None:
        self.config = c = config or MPPIConfig()
        super().__init__(num_candidates=c.num_samples, num_iterations=c.num_iterations, tolerance=c.stop_tolerance, clock=clock)

    def begin(self, start: Start) -> MPPIParams:
        """Centres the search on the warm start."""
        return MPPIParams(mean_BKA=start.mean_BKA)

    def propose(self, params: MPPIParams, start: Start) -> Tensor:
        """Draws candidates; the first is the mean itself, and a warm-started search also tries the cold start."""
        c = self.config
        std = max(c.init_std * c.decay**params.iteration, c.min_std)
        variables_BSKA = torch.addcmul(params.mean_BKA[:, None], std * start.unit_A, start.noise_BSKA(c.num_samples))
        variables_BSKA[:, 0] = params.mean_BKA
        if params.iteration == 0 and c.num_samples > 1:
            variables_BSKA[:, 1] = torch.where(start.warm_B[:, None, None], start.cold_BKA, variables_BSKA[:, 1])
        return variables_BSKA

    def update(self, params: MPPIParams, evaluation: Evaluation, incumbent: Incumbent, start: Start) -> MPPIParams:
        """Averages the candidates with finite cost by their weights; where there is none, the mean stays."""
        share_BS = weights(evaluation.cost_BS, evaluation.finite_BS, self.config.temperature)
        mean_BKA = (share_BS[..., None, None] * evaluation.variables_BSKA).sum(dim=1)
        any_B11 = evaluation.finite_BS.any(dim=1)[:, None, None]
        return MPPIParams(mean_BKA=torch.where(any_B11, mean_BKA, params.mean_BKA), iteration=params.iteration + 1)

    def coloring_HH(self, horizon: int) -> Tensor | None:
        """Colours the noise in time."""
        return coloring(horizon, self.config.noise_exponent)


def weights(cost_BS: Tensor, finite_BS: Tensor, temperature: float) -> Tensor:
    """Softmax of the negated costs, in units of `temperature` standard deviations; 0 for candidates without a finite cost.

    Args:
        cost_BS: +inf where not finite.
        finite_BS: Where it is finite.
        temperature: Above 0.

    Returns:
        Weights [B, S] that sum to 1 in each problem with a finite cost, and are 0 in the others.
    """
    least_B1 = cost_BS.amin(dim=1, keepdim=True)
    # Halved before the difference, and scaled by the largest before the squares: huge costs must not overflow.
    above_BS = torch.where(finite_BS, 0.5 * cost_BS - 0.5 * least_B1, 0.0)
    largest_B1 = above_BS.amax(dim=1, keepdim=True)
    flat_B1 = ~(largest_B1 > 0)
    above_BS = above_BS / torch.where(flat_B1, 1.0, largest_B1)
    num_B1 = finite_BS.sum(dim=1, keepdim=True).clamp(min=1)
    mean_B1 = above_BS.sum(dim=1, keepdim=True) / num_B1
    std_B1 = (torch.where(finite_BS, above_BS - mean_B1, 0.0).square().sum(dim=1, keepdim=True) / num_B1).sqrt()
    scaled_BS = above_BS / (temperature * torch.where(std_B1 > 0, std_B1, 1.0))
    raw_BS = torch.where(finite_BS, torch.exp(-scaled_BS), 0.0)
    return raw_BS / raw_BS.sum(dim=1, keepdim=True).clamp(min=1.0)
