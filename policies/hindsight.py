"""Hindsight goals: whatever frame an episode came to later was, in hindsight, the goal of the actions before it.

Letters in array names: F frames of all episodes, C pairs of a frame and a goal, T context frames, H horizon steps, N tokens per frame,
D latent width, A action dimensions, P proprioception dimensions.

With R frames left in the episode, the goal lies k frames ahead, k in 1 .. R:

    uniform    k evenly over 1 .. R                                       (OGBench's GCBC, Park et al. 2025, arXiv 2410.20092, app. C)
    within     k evenly over 1 .. min(R, max_steps)
    geometric  P(k) = (1 - discount) discount^(k - 1), cut off at R       (hindsight goals of GCIQL, HIQL and CRL, ibid.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from goalward import UserError
from goalward.wm.latents import LatentEpisodes

RULES = ("uniform", "within", "geometric")


@dataclass(frozen=True, kw_only=True, slots=True)
class HindsightConfig:
    """How far ahead goals lie."""

    rule: str = "uniform"
    """uniform, within or geometric; see the top of this file."""
    max_steps: int = 24
    """Farthest goal of the rule `within`, frames."""
    discount: float = 0.9
    """Of the rule `geometric`; goals lie 1 / (1 - discount) frames ahead on average."""

    def __post_init__(self) -> None:
        """Checks every field."""
        if self.rule not in RULES:
            raise UserError(f"rule is {self.rule!r}; choose {', '.join(RULES)}")
        if not 1 <= self.max_steps <= 4096:
            raise UserError(f"max_steps is {self.max_steps}; must lie in 1 .. 4096")
        if not 0 < self.discount < 1:
            raise UserError(f"discount is {self.discount}; must lie in (0, 1)")


@dataclass(frozen=True, kw_only=True, slots=True)
class HindsightBatch:
    """Pairs of a moment and a goal, with the actions that led from one toward the other; all normalised."""

    z_CTND: Tensor
    """Observed latents, the oldest first."""
    z_goal_CND: Tensor
    """Latents of the goal."""
    actions_CHA: Tensor
    """The actions that followed; holding still from the goal on."""
    steps_C: Tensor
    """Frames from the moment to the goal, int64, at least 1."""
    proprio_CP: Tensor
    """Proprioception at the moment."""


def starts(episodes: LatentEpisodes) -> Tensor:
    """Frames that something came after: all but the last of each episode, int64 [C]."""
    return episodes.clips(1)


def draw_goals(episodes: LatentEpisodes, frames: Tensor, config: HindsightConfig, generator: torch.Generator) -> Tensor:
    """Draws one later frame of the same episode for each frame.

    Args:
        episodes: On any device.
        frames: From `starts`, int64 [C], on the CPU.
        config: How far ahead.
        generator: On the CPU.

    Returns:
        Frames of the goals, int64 [C].
    """
    first = episodes.first.cpu()
    left_C = first[torch.searchsorted(first, frames, right=True)] - 1 - frames
    share_C = torch.rand(len(frames), generator=generator, dtype=torch.float64)
    if config.rule == "geometric":
        steps_C = 1 + (torch.log1p(-share_C) / math.log(config.discount)).floor().clamp(max=2.0**31).long()
    else:
        farthest_C = left_C if config.rule == "uniform" else left_C.clamp(max=config.max_steps)
        steps_C = 1 + (share_C * farthest_C).long()
    return frames + torch.minimum(steps_C, left_C)


def gather(
    episodes: LatentEpisodes, frames: Tensor, goals: Tensor, *, context: int, horizon: int, hold_A: Tensor, proprio_FP: Tensor
) -> HindsightBatch:
    """Cuts a batch out.

    A chunk may reach past its goal. What the episode did there served other ends; whoever has arrived should stay, so from the goal on
    the actions to imitate are the hold action. The first action always lies before the goal.

    Args:
        episodes: Normalised.
        frames: Moments, int64 [C].
        goals: Their goals, later in the same episodes, int64 [C].
        context: T.
        horizon: H.
        hold_A: The normalised action that changes nothing.
        proprio_FP: Normalised proprioception of all frames.
    """
    z_CTND, _, _ = episodes.gather(frames, context=context, horizon=1)
    ahead_CH = frames[:, None] + torch.arange(horizon, device=frames.device)
    before_CH = ahead_CH < goals[:, None]
    actions_CHA = episodes.actions_FA[torch.minimum(ahead_CH, goals[:, None])]
    return HindsightBatch(
        z_CTND=z_CTND,
        z_goal_CND=episodes.z_FND[goals],
        actions_CHA=torch.where(before_CH[..., None], actions_CHA, hold_A),
        steps_C=goals - frames,
        proprio_CP=proprio_FP[frames],
    )
