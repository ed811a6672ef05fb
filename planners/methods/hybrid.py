"""Sampling, then gradients: a cross-entropy search whose few best candidates go on downhill, each accepting improvements only.

    first   :  cross-entropy search                                           (`cem.py`)
    then    :  a'_k = project(a_k - step_k * gradient_k / rms(gradient_k))                         k = 1 .. R
               cost(a'_k) < cost(a_k):   a_k <- a'_k,  step_k <- the length that the curvature just seen suggests
               otherwise             :                 step_k <- shrink * step_k

After CEM-GD (Huang et al. 2021, arXiv 2112.07746), whose line search it keeps: a gradient that misleads costs an evaluation and nothing
else. The length of a step is that of Barzilai and Borwein (1988, IMA J. Numer. Anal. 8, equation 6), |s|^2 / s.y with the change of
variables s and of gradients y, within bounds of the last one: projected, it is the spectral gradient method (Birgin et al. 2000), which
learns the scale of a valley from two points, as L-BFGS does, without its memory.

Letters: B problems, S candidates, R refined candidates, K variables in time (horizon steps, or knots), A action dimensions.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.checks import require_count, require_number
from goalward.planners.methods.cem import CEM, CEMConfig, CEMParams
from goalward.planners.methods.evaluation import Evaluation, Incumbent
from goalward.planners.methods.search import Clock, Search, Start


@dataclass(frozen=True, kw_only=True, slots=True)
class HybridConfig(CEMConfig):
    """Budget of a search that samples first and refines then. Spreads and steps are fractions of half the range of each action entry."""

    num_samples: int = 32
    """Candidates per iteration of the sampling part."""
    num_iterations: int = 6
    """Iterations of both parts together, at most."""
    num_elites: int = 6
    """Cheapest candidates that shape the next iteration."""
    num_sampling: int = 2
    """How many of the iterations, the first ones, draw candidates; the others go downhill."""
    num_refined: int = 4
    """Candidates that go downhill, the cheapest of the sampling part; at most num_elites."""
    step: float = 0.2
    """First step downhill: root mean square change of the variables."""
    grow: float = 10.0
    """By how much a step may be longer than the one before."""
    shrink: float = 0.2
    """Factor on the step after a failure."""

    def __post_init__(self) -> None:
        """Checks every field."""
        CEMConfig.__post_init__(self)  # super() does not work in dataclasses with slots
        require_count("num_refined", self.num_refined, high=self.num_elites, why="no more than num_elites")
        require_count("num_sampling", self.num_sampling)
        require_number("step", self.step, low=0.0, high=10.0, open_low=True)
        require_number("grow", self.grow, low=1.0, high=100.0)
        require_number("shrink", self.shrink, low=0.0, high=1.0, open_low=True, open_high=True)
        if self.return_mean:
            raise UserError("return_mean: refined candidates have no mean; set return_mean to False")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Descent:
    """Candidates on their way down."""

    variables_BRKA: Tensor
    """The best of each so far."""
    cost_BR: Tensor
    """Its cost; +inf before the first evaluation."""
    gradient_BRKA: Tensor
    """Of its cost, with respect to variables in units of half their range; 0 before the first evaluation."""
    step_BR: Tensor
    """How far to go: root mean square change, in the same units."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HybridParams:
    """The sampling distribution, and then the descent."""

    sampling: CEMParams
    descent: Descent | None = None
    iteration: int = 0


class Hybrid(Search[HybridParams]):
    """Samples, then refines; see the top of this file."""

    def __init__(self, config: HybridConfig | None = None, *, clock: Clock = time.perf_counter) -> None:
        self.config = c = config or HybridConfig()
        kept = max(c.num_kept_elites, c.num_refined)
        self._sampling = CEM(replace(c, num_kept_elites=kept), clock=clock)
        self.screening, self.num_learned_from = c.screening, c.num_elites
        super().__init__(num_candidates=c.num_samples, num_iterations=c.num_iterations, tolerance=c.stop_tolerance, clock=clock)

    def begin(self, start: Start) -> HybridParams:
        """Begins to sample."""
        return HybridParams(sampling=self._sampling.begin(start))

    def wants_gradient(self, params: HybridParams) -> bool:
        """Only on the way down."""
        return params.descent is not None

    def propose(self, params: HybridParams, start: Start) -> Tensor:
        """Draws candidates, or takes one step with each of the refined ones."""
        if params.descent is None:
            return self._sampling.propose(params.sampling, start)
        d = params.descent
        return d.variables_BRKA - d.step_BR[..., None, None] * _unit(d.gradient_BRKA) * start.unit_A

    def update(self, params: HybridParams, evaluation: Evaluation, incumbent: Incumbent, start: Start) -> HybridParams:
        """Refits the distribution, or accepts and rejects steps."""
        iteration = params.iteration + 1
        if params.descent is not None:
            return replace(params, descent=self._descended(params.descent, evaluation, start), iteration=iteration)
        sampling = self._sampling.update(params.sampling, evaluation, incumbent, start)
        if iteration < self.config.num_sampling:
            return HybridParams(sampling=sampling, iteration=iteration)
        assert sampling.kept_BEKA is not None
        elite_BRKA = sampling.kept_BEKA[:, : self.config.num_refined]
        # Their gradients are not known yet: the first step of the descent stays where it is and looks.
        descent = Descent(
            variables_BRKA=elite_BRKA,
            cost_BR=torch.full_like(elite_BRKA[..., 0, 0], float("inf")),
            gradient_BRKA=torch.zeros_like(elite_BRKA),
            step_BR=torch.full_like(elite_BRKA[..., 0, 0], self.config.step),
        )
        return HybridParams(sampling=sampling, descent=descent, iteration=iteration)

    def _descended(self, d: Descent, evaluation: Evaluation, start: Start) -> Descent:
        c = self.config
        assert evaluation.gradient_BSKA is not None
        gradient_BRKA = evaluation.gradient_BSKA * start.unit_A
        began_BR, better_BR = torch.isfinite(d.cost_BR), evaluation.cost_BS < d.cost_BR
        unit_A = torch.where(start.unit_A > 0, start.unit_A, 1.0)
        moved_BRKA = (evaluation.variables_BSKA - d.variables_BRKA) / unit_A
        curved = (moved_BRKA * _unit(gradient_BRKA - d.gradient_BRKA)).sum(dim=(-2, -1))
        # Every length in units of a root mean square, so that gradients of any size give finite steps.
        ratio_BR = _rms(gradient_BRKA) / _rms(gradient_BRKA - d.gradient_BRKA).clamp(min=torch.finfo(torch.float32).tiny)
        suggested_BR = moved_BRKA.square().sum(dim=(-2, -1)) / curved.clamp(min=torch.finfo(torch.float32).tiny) * ratio_BR
        suggested_BR = torch.where(curved > 0, suggested_BR, float("inf")).nan_to_num(nan=0.0)
        accepted_BR = suggested_BR.clamp(d.step_BR * c.shrink, d.step_BR * c.grow)
        better_BR11 = better_BR[..., None, None]
        return Descent(
            variables_BRKA=torch.where(better_BR11, evaluation.variables_BSKA, d.variables_BRKA),
            cost_BR=torch.where(better_BR, evaluation.cost_BS, d.cost_BR),
            gradient_BRKA=torch.where(better_BR11, gradient_BRKA, d.gradient_BRKA),
            step_BR=torch.where(began_BR, torch.where(better_BR, accepted_BR, d.step_BR * c.shrink), d.step_BR),
        )

    def coloring_HH(self, horizon: int) -> Tensor | None:
        """Colours the noise in time."""
        return self._sampling.coloring_HH(horizon)


def _rms(values_BRKA: Tensor) -> Tensor:
    """Root mean square [B, R]; scaled by the largest entry first, whose square might overflow."""
    largest_BR11 = values_BRKA.abs().amax(dim=(-2, -1), keepdim=True)
    scaled_BRKA = values_BRKA / torch.where(largest_BR11 > 0, largest_BR11, 1.0)
    return scaled_BRKA.square().mean(dim=(-2, -1)).sqrt() * largest_BR11[..., 0, 0]


def _unit(values_BRKA: Tensor) -> Tensor:
    """The same direction with a root mean square of 1; 0 stays 0."""
    rms_BR11 = _rms(values_BRKA)[..., None, None]
    return torch.where(rms_BR11 > 0, values_BRKA / torch.where(rms_BR11 > 0, rms_BR11, 1.0), 0.0)
