"""Goal-conditioned behaviour cloning: regression of the next actions on the present and a goal from the future of the same episode.

    min  E || f(z_t, z_goal) - (a_t .. a_{t+H-1}) ||^2,   goal evenly from the future        (Park et al. 2025, OGBench, arXiv 2410.20092)

The answer is the mean of what the episodes did on their way to such a goal, over slow and fast, straight and wandering ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from goalward import UserError
from goalward.policies.base import Options
from goalward.policies.hindsight import HindsightBatch, HindsightConfig
from goalward.policies.network import PolicyNetwork, Shape, normal, scattered
from goalward.wm.predictor import PredictorConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class GCBCOptions(Options):
    """Of behaviour cloning."""

    loss: str = "mse"
    """mse regresses the mean, smooth_l1 something nearer to the median; normalised units."""
    spread: float = 0.5
    """Standard deviation of the noise on further samples, as a multiple of the training actions' own."""

    ADJUSTABLE: ClassVar[tuple[str, ...]] = ("spread",)

    def __post_init__(self) -> None:
        """Checks every field."""
        if self.loss not in ("mse", "smooth_l1"):
            raise UserError(f"loss is {self.loss!r}; choose mse or smooth_l1")
        if not 0 <= self.spread <= 10:
            raise UserError(f"spread is {self.spread}; must lie in [0, 10]")


class GCBC(PolicyNetwork):
    """Regression of a chunk."""

    default_size: ClassVar[PredictorConfig] = PredictorConfig(depth=4, horizon=3)
    default_hindsight: ClassVar[HindsightConfig] = HindsightConfig(rule="uniform")
    options: GCBCOptions

    def __init__(self, size: PredictorConfig, options: GCBCOptions, shape: Shape, generator: torch.Generator | None = None) -> None:
        """See `PolicyNetwork`."""
        super().__init__(size, options, shape, generator)
        hidden, outputs = 2 * size.width, size.horizon * shape.action_dim
        self.widen = nn.Parameter(normal((hidden, size.width), size.width**-0.5, generator))
        self.widen_bias = nn.Parameter(torch.zeros(hidden))
        self.head = nn.Parameter(torch.zeros(outputs, hidden))
        self.head_bias = nn.Parameter(torch.zeros(outputs))

    def _mean(self, z_BTND: Tensor, z_goal_BND: Tensor, proprio_BP: Tensor | None) -> Tensor:
        summary = self.trunk(z_BTND, self.trunk.see_goal(z_goal_BND), proprio_BP)
        flat = F.linear(F.gelu(F.linear(summary, self.widen, self.widen_bias)), self.head, self.head_bias)
        return flat.float().reshape(-1, self.size.horizon, self.action_dim)

    def loss(self, batch: HindsightBatch, generator: torch.Generator) -> Tensor:
        """Mean over the batch, the steps and the entries; nothing is drawn."""
        distance = F.mse_loss if self.options.loss == "mse" else F.smooth_l1_loss
        return distance(self._mean(batch.z_CTND, batch.z_goal_CND, batch.proprio_CP), batch.actions_CHA)

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
        """The mean, then the mean with noise."""
        assert isinstance(options, GCBCOptions)
        return scattered(self._mean(z_BTND, z_goal_BND, proprio_BP), num_samples, options.spread, generator)
