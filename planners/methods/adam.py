"""Multi-start gradient search with Adam (Kingma and Ba 2015, arXiv 1412.6980), projected onto the action set after every step.

    a <- project(a - rate_i * direction(g))          direction: see `moments.py`

g is the gradient of the cost with respect to actions in units of half their range, so that the rate means the same for every entry.
Letters: B problems, S starts, K variables in time (horizon steps, or knots), A action dimensions.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from goalward.planners.checks import require_count, require_number
from goalward.planners.methods.evaluation import Evaluation, Incumbent
from goalward.planners.methods.moments import Moments
from goalward.planners.methods.search import Clock, Search, Start


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamConfig:
    """Budget and step sizes of a gradient search. Rates and spreads are fractions of half the range of each action entry."""

    num_starts: int = 4
    """Sequences that descend side by side: the warm start, and random ones."""
    num_iterations: int = 8
    """Evaluations of every sequence, at most."""
    learning_rate: float = 0.25
    """Size of the first step."""
    decay: float = 0.9
    """Factor on the step size from one iteration to the next."""
    init_std: float = 0.5
    """Spread of the random starts around the warm start."""
    beta1: float = 0.7
    """Memory of the gradient's mean; shorter than is usual in training, because the search is short."""
    beta2: float = 0.95
    """Memory of the gradient's square."""
    epsilon: float = 1e-8
    """Keeps flat directions from dividing by zero."""
    stop_tolerance: float = 0.0
    """Stop when two iterations in a row improve the best cost by less than this fraction; 0 never stops early."""

    def __post_init__(self) -> None:
        """Checks every field."""
        require_count("num_starts", self.num_starts)
        require_count("num_iterations", self.num_iterations)
        require_number("learning_rate", self.learning_rate, low=0.0, high=10.0, open_low=True)
        require_number("decay", self.decay, low=0.0, high=1.0, open_low=True)
        require_number("init_std", self.init_std, low=0.0, high=10.0)
        require_number("beta1", self.beta1, low=0.0, high=1.0, open_high=True)
        require_number("beta2", self.beta2, low=0.0, high=1.0, open_high=True)
        require_number("epsilon", self.epsilon, low=0.0, high=1.0, open_low=True)
        require_number("stop_tolerance", self.stop_tolerance, low=0.0, high=1.0)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AdamParams:
    """Where the sequences are, and the moments of their gradients."""

    variables_BSKA: Tensor
    moments: Moments


class Adam(Search[AdamParams]):
    """Projected multi-start Adam; see the top of this file."""

    uses_gradient: ClassVar[bool] = True

    def __init__(self, config: AdamConfig | None = None, *, clock: Clock = time.perf_counter) -> None:
        self.config = c = config or AdamConfig()
        super().__init__(num_candidates=c.num_starts, num_iterations=c.num_iterations, tolerance=c.stop_tolerance, clock=clock)

    def begin(self, start: Start) -> AdamParams:
        """Scatters the starts around the warm start, which is the first; a warm-started search also tries the cold start."""
        c = self.config
        variables_BSKA = start.mean_BKA[:, None] + start.noise_BSKA(c.num_starts) * (c.init_std * start.unit_A)
        variables_BSKA[:, 0] = start.mean_BKA
        if c.num_starts > 1:
            variables_BSKA[:, 1] = torch.where(start.warm_B[:, None, None], start.cold_BKA, variables_BSKA[:, 1])
        return AdamParams(
            variables_BSKA=variables_BSKA,
            moments=Moments.zeros_like(variables_BSKA, beta1=c.beta1, beta2=c.beta2, epsilon=c.epsilon),
        )

    def propose(self, params: AdamParams, start: Start) -> Tensor:
        """The sequences themselves."""
        return params.variables_BSKA

    def update(self, params: AdamParams, evaluation: Evaluation, incumbent: Incumbent, start: Start) -> AdamParams:
        """One step of Adam from the projected sequences; one whose cost is not finite goes on from the incumbent."""
        c = self.config
        assert evaluation.gradient_BSKA is not None
        direction_BSKA, moments = params.moments.after(evaluation.gradient_BSKA * start.unit_A)
        rate = c.learning_rate * c.decay**params.moments.num_steps
        variables_BSKA = evaluation.variables_BSKA - rate * start.unit_A * direction_BSKA
        sane_BSKA = evaluation.finite_BS[..., None, None] & torch.isfinite(variables_BSKA)
        return AdamParams(
            variables_BSKA=torch.where(sane_BSKA, variables_BSKA, incumbent.variables_BKA[:, None]), moments=moments.where(sane_BSKA)
        )
