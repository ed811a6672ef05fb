"""iCEM: the cross-entropy method for few samples (Pinneri et al. 2020, arXiv 2008.06389).

    candidates_i ~ mean + std * coloured noise,  S_i = max(S / decay^i, 2 E) of them       (sections 3.1, 3.2)
    elites       <- the cheapest of these and of the elites kept from the iteration before       (section 3.3)
    next step    : the elites, shifted, compete in its first iteration                           (section 3.3)

Differences, each for a reason. Kept elites keep their costs instead of being rolled out again: the model is deterministic. The mean
competes in every iteration, not in the last alone: a warm start is then never worse than the plan it continues, whenever the search
stops. The noise is normalised by its analytic spectrum, see `noise.py`.

Letters: B problems, S candidates, E elites, K variables in time (horizon steps, or knots), A action dimensions.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from goalward.planners.checks import require_number
from goalward.planners.methods.cem import CEM, CEMConfig, CEMParams
from goalward.planners.methods.search import Clock, Start


@dataclass(frozen=True, kw_only=True, slots=True)
class ICEMConfig(CEMConfig):
    """Budget and spread of an iCEM search. Spreads are fractions of half the range of each action entry."""

    num_samples: int = 64
    """Candidates of the first iteration."""
    noise_exponent: float = 1.0
    """Correlation of the noise in time: its power spectrum falls as 1 / frequency^exponent; 0 is white, 2 to 3 is smooth."""
    decay: float = 1.25
    """Each iteration has this many times fewer candidates than the one before, but no fewer than twice the elites."""
    shift_elites: bool = True
    """Whether the kept elites also compete in the next control step."""

    def __post_init__(self) -> None:
        """Checks every field."""
        CEMConfig.__post_init__(self)  # super() does not work in dataclasses with slots
        require_number("decay", self.decay, low=1.0, high=10.0)


class ICEM(CEM):
    """The cross-entropy method with a shrinking population and elites that live on; see the top of this file."""

    config: ICEMConfig

    def __init__(self, config: ICEMConfig | None = None, *, clock: Clock = time.perf_counter) -> None:
        super().__init__(config or ICEMConfig(), clock=clock)

    def propose(self, params: CEMParams, start: Start) -> Tensor:
        """Draws fewer candidates every time; the elites of the step before stand in for the last ones of the first iteration."""
        c = self.config
        num = max(round(c.num_samples * c.decay**-params.num_updates), min(2 * c.num_elites, c.num_samples))
        variables_BSKA = self._drawn(params, start, num)
        others_BEKA = start.others_BEKA
        if params.num_updates == 0 and c.shift_elites and others_BEKA is not None:
            # Never the first two, which are the warm and the cold start.
            free = min(others_BEKA.shape[1], num - 2)
            if free > 0:
                old_BEKA, warm_B111 = others_BEKA[:, :free], start.warm_B[:, None, None, None]
                variables_BSKA[:, -free:] = torch.where(warm_B111, old_BEKA, variables_BSKA[:, -free:])
        return variables_BSKA

    def others_BEKA(self, params: CEMParams) -> Tensor | None:
        """The kept elites."""
        return params.kept_BEKA if self.config.shift_elites and self.config.num_kept_elites else None
