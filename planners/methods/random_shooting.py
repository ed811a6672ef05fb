"""Random shooting: draw plans evenly from the action bounds, keep the cheapest. The baseline that every search must beat.

Letters: B problems, S candidates, K variables in time (horizon steps, or knots), A action dimensions.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from goalward.planners.checks import require_count, require_number
from goalward.planners.methods.evaluation import Evaluation, Incumbent
from goalward.planners.methods.search import Clock, Search, Start


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomShootingConfig:
    """Budget of random shooting."""

    num_samples: int = 64
    """Candidates per iteration."""
    num_iterations: int = 4
    """Iterations, at most; the deadline is looked at between them."""
    stop_tolerance: float = 0.0
    """Stop when two iterations in a row improve the best cost by less than this fraction; 0 never stops early."""

    def __post_init__(self) -> None:
        """Checks every field."""
        require_count("num_samples", self.num_samples)
        require_count("num_iterations", self.num_iterations)
        require_number("stop_tolerance", self.stop_tolerance, low=0.0, high=1.0)


class RandomShooting(Search[bool]):
    """Draws evenly; its parameters say whether this is the first iteration."""

    def __init__(self, config: RandomShootingConfig | None = None, *, clock: Clock = time.perf_counter) -> None:
        self.config = c = config or RandomShootingConfig()
        super().__init__(num_candidates=c.num_samples, num_iterations=c.num_iterations, tolerance=c.stop_tolerance, clock=clock)

    def begin(self, start: Start) -> bool:
        """The first iteration is to come."""
        return True

    def propose(self, params: bool, start: Start) -> Tensor:
        """Draws candidates; the first two of all are the warm start and, if there is one, the cold start."""
        # The normal distribution function makes even draws of normal ones, so that all planners share one kind of noise.
        even_BSKA = torch.erf(start.noise_BSKA(self.config.num_samples) * math.sqrt(0.5))
        bounds = start.evaluate.problem.action_set
        variables_BSKA = torch.lerp(bounds.low_A, bounds.high_A, (even_BSKA + 1) * 0.5)
        if params:
            variables_BSKA[:, 0] = start.mean_BKA
            if self.config.num_samples > 1:
                variables_BSKA[:, 1] = torch.where(start.warm_B[:, None, None], start.cold_BKA, variables_BSKA[:, 1])
        return variables_BSKA

    def update(self, params: bool, evaluation: Evaluation, incumbent: Incumbent, start: Start) -> bool:
        """Learns nothing."""
        return False
