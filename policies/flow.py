"""Action chunks by flow matching, guided by the goal: a sample of what the episodes did, sharpened toward what the goal explains.

    x_s = (1 - s) x_0 + s x_1,   x_0 ~ N(0, 1),   x_1 = (a_t .. a_{t+H-1}),   s evenly in 0 .. 1
    min  E || v(x_s, s, z_t, z_goal) - (x_1 - x_0) ||^2                    (Lipman et al. 2023, arXiv 2210.02747, eq. 23, sigma_min = 0)

In a tenth of the cases training hides the goal, so that one network knows both the chunks that lead to this goal and those that are usual
here, and acting may go further the way from the latter to the former:

    v = v_without + w (v_with - v_without)                 (Ho and Salimans 2022, arXiv 2207.12598, eq. 6, with w = 1 + theirs)
    x += v / steps                                          (Euler; x_0 of standard deviation `temperature`)

Goal-conditioned flow policies with guidance are CFGRL's (Frans et al. 2025, arXiv 2505.23458): w = 1 is plain imitation, w > 1 improves on
it as long as the guided chunk stays among those that were seen.
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
from goalward.policies.network import ModulatedHead, PolicyNetwork, Shape, demand, normal, waves
from goalward.wm.predictor import PredictorConfig

_WAVES = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowOptions(Options):
    """Of flow matching."""

    goal_drop: float = 0.1
    """Share of the training samples whose goal is hidden."""
    draws: int = 4
    """Times and noises drawn for each training sample; the trunk, which is most of the work, runs once for all of them."""
    guidance: float = 1.0
    """w: 0 ignores the goal, 1 imitates, more insists on the goal."""
    euler_steps: int = 8
    """Steps from noise to actions."""
    temperature: float = 1.0
    """Standard deviation of the initial noise; 0 always gives the most typical chunk."""

    ADJUSTABLE: ClassVar[tuple[str, ...]] = ("guidance", "euler_steps", "temperature")

    def __post_init__(self) -> None:
        """Checks every field."""
        if not 0 < self.goal_drop < 1:
            raise UserError(f"goal_drop is {self.goal_drop}; must lie in (0, 1)")
        for name, high in (("draws", 256), ("euler_steps", 1000)):
            if not 1 <= getattr(self, name) <= high:
                raise UserError(f"{name} is {getattr(self, name)}; must lie in 1 .. {high}")
        for name, high in (("guidance", 100), ("temperature", 10)):
            if not 0 <= getattr(self, name) <= high:
                raise UserError(f"{name} is {getattr(self, name)}; must lie in [0, {high}]")


class Flow(PolicyNetwork):
    """Draws chunks."""

    default_size: ClassVar[PredictorConfig] = PredictorConfig(depth=2, horizon=3)
    default_hindsight: ClassVar[HindsightConfig] = HindsightConfig(rule="uniform")
    options: FlowOptions

    def __init__(self, size: PredictorConfig, options: FlowOptions, shape: Shape, generator: torch.Generator | None = None) -> None:
        """See `PolicyNetwork`."""
        super().__init__(size, options, shape, generator)
        entries = size.horizon * shape.action_dim
        self.no_goal = nn.Parameter(normal((1, shape.num_tokens, size.width), 0.5, generator))
        self.velocity = ModulatedHead(entries, size.width + 2 * _WAVES + 1, entries, width=size.width, depth=2, generator=generator)

    def loss(self, batch: HindsightBatch, generator: torch.Generator) -> Tensor:
        """Mean over the batch, the draws and the entries."""
        C, device = len(batch.z_CTND), batch.z_CTND.device
        hidden_C = torch.rand(C, generator=generator) < self.options.goal_drop
        goal_CNW = self.trunk.see_goal(batch.z_goal_CND)
        goal_CNW = torch.where(hidden_C.to(device)[:, None, None], self.no_goal.to(goal_CNW.dtype), goal_CNW)
        summary_CW = self.trunk(batch.z_CTND, goal_CNW, batch.proprio_CP)
        end_CMX = batch.actions_CHA.flatten(1)[:, None].expand(-1, self.options.draws, -1)
        begin_CMX = torch.randn(end_CMX.shape, generator=generator).to(device)
        time_CM = torch.rand(end_CMX.shape[:2], generator=generator).to(device)
        at_CMX = torch.lerp(begin_CMX, end_CMX, time_CM[..., None])
        return F.mse_loss(self._velocity(at_CMX, time_CM, summary_CW), end_CMX - begin_CMX)

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
        """Samples, all from the distribution; without a generator, the one that begins at the middle of the noise."""
        assert isinstance(options, FlowOptions)
        B, weight = len(z_BTND), options.guidance
        x_BSX = z_BTND.new_zeros(B, num_samples, self.size.horizon * self.action_dim)
        if generator is not None or num_samples > 1:
            noise = torch.randn(x_BSX.shape, generator=demand(generator, num_samples))
            x_BSX = x_BSX + options.temperature * noise.to(x_BSX.device)
        goals = {"with": self.trunk.see_goal(z_goal_BND), "without": self.no_goal.expand(B, -1, -1)}
        # A weight of 1 or 0 needs one of the two alone: half the work, and exactly what was trained.
        needed = {1.0: ("with",), 0.0: ("without",)}.get(weight, ("with", "without"))
        summaries = [self.trunk(z_BTND, goals[name], proprio_BP) for name in needed]
        for step in range(options.euler_steps):
            time_BS = torch.full_like(x_BSX[..., 0], step / options.euler_steps)
            velocity, *others = [self._velocity(x_BSX, time_BS, summary_BW) for summary_BW in summaries]
            for without in others:
                velocity = without + weight * (velocity - without)
            x_BSX = x_BSX + velocity / options.euler_steps
        return x_BSX.reshape(B, num_samples, self.size.horizon, self.action_dim)

    def _velocity(self, x_BSX: Tensor, time_BS: Tensor, summary_BW: Tensor) -> Tensor:
        summary_BSW = summary_BW[:, None].expand(-1, x_BSX.shape[1], -1)
        told = torch.cat([summary_BSW, waves(time_BS, _WAVES).to(summary_BSW.dtype)], dim=-1)
        velocity: Tensor = self.velocity(x_BSX, told)
        return velocity.float()
