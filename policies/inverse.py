"""Goal-conditioned inverse dynamics: which actions lead from here to there in k steps?

    min  E || f(z_t, z_{t+k}, k) - (a_t .. a_{t+H-1}) ||^2  -  log p(k | z_t, z_{t+k}),    k evenly over 1 .. K, hindsight

Nobody says how far away a goal is, so a second head learns how long the episodes took between two such frames. Acting asks for a low
quantile of that distribution: faster than usual, but as fast as has been seen. Asking for less than what is possible gives actions beyond
the bounds, which are clipped; asking for more gives slow ones. The rule `fixed` asks for the same k at any distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from goalward import UserError
from goalward.policies.base import Options
from goalward.policies.hindsight import HindsightBatch, HindsightConfig
from goalward.policies.network import ModulatedHead, PolicyNetwork, Shape, normal, scattered, waves
from goalward.wm.predictor import PredictorConfig

_WAVES = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class InverseOptions(Options):
    """Of inverse dynamics."""

    max_steps: int = 24
    """K, the farthest goal that is learned from and asked for, steps."""
    time_weight: float = 0.1
    """Weight of the likelihood of k."""
    rule: str = "quantile"
    """How k is chosen: quantile of the learned distribution, or fixed."""
    quantile: float = 0.1
    """Which quantile; lower is faster."""
    fixed_steps: int = 3
    """k of the rule `fixed`."""
    spread: float = 0.5
    """Standard deviation of the noise on further samples, as a multiple of the training actions' own."""

    ADJUSTABLE: ClassVar[tuple[str, ...]] = ("rule", "quantile", "fixed_steps", "spread")

    def __post_init__(self) -> None:
        """Checks every field."""
        if not 2 <= self.max_steps <= 4096:
            raise UserError(f"max_steps is {self.max_steps}; must lie in 2 .. 4096")
        if not 0 <= self.time_weight <= 100:
            raise UserError(f"time_weight is {self.time_weight}; must lie in [0, 100]")
        if self.rule not in ("quantile", "fixed"):
            raise UserError(f"rule is {self.rule!r}; choose quantile or fixed")
        if not 0 < self.quantile < 1:
            raise UserError(f"quantile is {self.quantile}; must lie in (0, 1)")
        if not 1 <= self.fixed_steps <= self.max_steps:
            raise UserError(f"fixed_steps is {self.fixed_steps}; must lie in 1 .. {self.max_steps} (max_steps)")
        if not 0 <= self.spread <= 10:
            raise UserError(f"spread is {self.spread}; must lie in [0, 10]")


class Inverse(PolicyNetwork):
    """Regression of a chunk on both ends and the time between them."""

    default_size: ClassVar[PredictorConfig] = PredictorConfig(depth=3, horizon=3)
    default_hindsight: ClassVar[HindsightConfig] = HindsightConfig(rule="within", max_steps=24)
    options: InverseOptions

    def __init__(self, size: PredictorConfig, options: InverseOptions, shape: Shape, generator: torch.Generator | None = None) -> None:
        """See `PolicyNetwork`."""
        super().__init__(size, options, shape, generator)
        width = size.width
        self.actions = ModulatedHead(width, 2 * _WAVES + 1, size.horizon * shape.action_dim, width=width, depth=1, generator=generator)
        self.time = nn.Parameter(normal((options.max_steps, width), 0.1 * width**-0.5, generator))
        self.time_bias = nn.Parameter(torch.zeros(options.max_steps))

    def loss(self, batch: HindsightBatch, generator: torch.Generator) -> Tensor:
        """Squared error of the actions under the true k, and the likelihood of that k; nothing is drawn."""
        summary_CW = self._summary(batch.z_CTND, batch.z_goal_CND, batch.proprio_CP)
        steps_C = batch.steps_C.clamp(max=self.options.max_steps)
        likelihood = F.cross_entropy(self._times(summary_CW), steps_C - 1)
        return F.mse_loss(self._chunk(summary_CW, steps_C), batch.actions_CHA) + self.options.time_weight * likelihood

    def act(
        self,
        z_BTND: Tensor,
        z_goal_BND: Tensor,
        proprio_BP: Tensor | None,
        *,
        options: Options,
        generator: torch.Generator | None,
        num_samples: int,
    ) -> Tensor:
        """The chunk for the k that the rule chooses, then the same with noise."""
        assert isinstance(options, InverseOptions)
        summary_BW = self._summary(z_BTND, z_goal_BND, proprio_BP)
        steps_B = self.chosen_steps(summary_BW, options)
        return scattered(self._chunk(summary_BW, steps_B), num_samples, options.spread, generator)

    def chosen_steps(self, summary_BW: Tensor, options: InverseOptions) -> Tensor:
        """Says in how many steps to be there, int64 [B]."""
        if options.rule == "fixed":
            return torch.full((len(summary_BW),), options.fixed_steps, dtype=torch.int64, device=summary_BW.device)
        reached_BK = self._times(summary_BW).softmax(-1).cumsum(-1) >= options.quantile
        # The first that reaches the quantile; the last where rounding leaves none.
        return torch.where(reached_BK.any(-1), reached_BK.int().argmax(-1), reached_BK.shape[-1] - 1) + 1

    def _summary(self, z_BTND: Tensor, z_goal_BND: Tensor, proprio_BP: Tensor | None) -> Tensor:
        summary_BW: Tensor = self.trunk(z_BTND, self.trunk.see_goal(z_goal_BND), proprio_BP)
        return summary_BW

    def _times(self, summary_BW: Tensor) -> Tensor:
        return F.linear(summary_BW, self.time, self.time_bias).float()

    def _chunk(self, summary_BW: Tensor, steps_B: Tensor) -> Tensor:
        # Actions fall with 1 / k: the logarithm spreads the small k, where they differ most.
        far_B = steps_B.float().log() / math.log(self.options.max_steps)
        flat: Tensor = self.actions(summary_BW, waves(far_B, _WAVES))
        return flat.float().reshape(-1, self.size.horizon, self.action_dim)
