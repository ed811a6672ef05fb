"""Measures a model on held-out episodes: errors of its predictions, and which latent distance means that the hand is at the goal.

**Surprise.** Quantiles of the squared error after h predicted steps, over all clips of the episodes.

**Success.** Every pair of frames of an episode set is a goal image and an observation, whose true distance the proprioception tells. Among
all pairs almost all are far apart, and any threshold would look precise; an arm that approaches its goal at a steady speed spends as long
at one distance as at another. So pairs are drawn evenly over distances, from nothing to `max_distance_m`. The threshold is the largest
energy at and below which the wanted share of pairs is truly near, on every second episode; precision and recall are counted on the others.

Letters: C clips, T context frames, H horizon steps, N tokens per frame, D latent width, F frames, Q quantile levels, K pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from goalward import UserError
from goalward.wm.latents import LatentEpisodes

_MAX_FRAMES = 2000
_MIN_DETECTED = 20
_SHELL_M = 0.01


class Rollout(Protocol):
    """What is measured: `goalward.wm.model.WorldModel`, or anything that predicts as it does."""

    @property
    def context_frames(self) -> int:
        """T."""

    def prime(self, z_BTND: Tensor) -> Any:
        """Digests observed frames."""

    def rollout(self, context: Any, actions_BSHA: Tensor) -> Tensor:
        """Predicts z_BSHND under actions in physical units."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pairs:
    """Pairs of frames."""

    distance_K: Tensor
    """True distance of the end effectors, metres, float64."""
    energy_K: Tensor
    """Mean squared difference of the latents, float64."""


@torch.no_grad()
def prediction_errors(
    model: Rollout, episodes: LatentEpisodes, *, horizon: int, levels: Sequence[float], batch_size: int = 128
) -> tuple[Tensor, int]:
    """Quantiles of the error after 1 .. H predicted steps.

    Args:
        model: What predicts.
        episodes: Held-out episodes; latents normalised, actions physical.
        horizon: H.
        levels: Q quantile levels.
        batch_size: Clips at a time.

    Returns:
        Quantiles [H, Q], float64, and the number of clips C.

    Raises:
        UserError: No episode is long enough, or a prediction is not finite.
    """
    frames = episodes.clips(horizon)
    if len(frames) == 0:
        raise UserError(f"horizon is {horizon}, but no held-out episode has that many actions; choose a smaller one")
    errors = []
    for start in range(0, len(frames), batch_size):
        part = frames[start : start + batch_size]
        z_CTND, actions_CHA, true_CHND = episodes.gather(part, context=model.context_frames, horizon=horizon)
        predicted_CHND = model.rollout(model.prime(z_CTND), actions_CHA[:, None])[:, 0]
        errors.append((predicted_CHND.cpu().double() - true_CHND.cpu().double()).square().mean(dim=(2, 3)))
    error_CH = torch.cat(errors)
    if not bool(torch.isfinite(error_CH).all()):
        raise UserError("the model's predictions of held-out episodes are not finite; train it again")
    return torch.quantile(error_CH, torch.tensor(list(levels), dtype=torch.float64), dim=0).T, len(frames)


def pairs_of(episodes: LatentEpisodes, columns: Sequence[int], *, max_distance_m: float, per_shell: int = 200, seed: int = 0) -> Pairs:
    """Draws pairs of different frames evenly over their true distances.

    Args:
        episodes: Latents normalised; at most 2 000 frames are used, spread evenly.
        columns: Where the proprioception has x, y, z of the end effector, metres.
        max_distance_m: Largest distance; every centimetre up to it gives the same number of pairs, where there are enough.
        per_shell: That number.
        seed: Of the draw.
    """
    count = len(episodes.z_FND)
    rows = torch.linspace(0, count - 1, min(count, _MAX_FRAMES), dtype=torch.float64).round().long()
    position_F3 = episodes.proprio_FP[rows][:, list(columns)].double()
    z_F = episodes.z_FND[rows].flatten(1).double()
    first, second = torch.triu_indices(len(rows), len(rows), offset=1).unbind(0)
    distance = torch.cdist(position_F3, position_F3)[first, second]
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for shell in range(round(max_distance_m / _SHELL_M)):
        inside = ((distance >= shell * _SHELL_M) & (distance < (shell + 1) * _SHELL_M)).nonzero()[:, 0]
        chosen.append(inside[torch.randperm(len(inside), generator=generator)[:per_shell]])
    kept = torch.cat(chosen)
    energy = (z_F[first[kept]] - z_F[second[kept]]).square().mean(dim=1)
    return Pairs(distance_K=distance[kept], energy_K=energy)


def success_threshold(pairs: Pairs, *, tolerance_m: float, precision: float) -> float:
    """The largest energy at and below which at least the wanted share of pairs is within the tolerance.

    Raises:
        UserError: There is none: too few near pairs, or latents that do not tell them apart.
    """
    energy, order = pairs.energy_K.sort()
    near = (pairs.distance_K[order] <= tolerance_m).double()
    share = near.cumsum(0) / torch.arange(1, len(near) + 1)
    good = (share >= precision).nonzero()[:, 0]
    good = good[good >= _MIN_DETECTED - 1]
    if not len(good):
        raise UserError(
            f"no latent distance detects frames within {100 * tolerance_m:g} cm with a precision of {precision:g} "
            f"({int(near.sum())} near pairs of {len(near)}); give a lower --precision, or more validation episodes"
        )
    return float(energy[good[-1]])


def detected(pairs: Pairs, *, energy: float, tolerance_m: float) -> tuple[int, int, int]:
    """Counts pairs: within the tolerance, detected by the threshold, and both."""
    near, found = pairs.distance_K <= tolerance_m, pairs.energy_K <= energy
    return int(near.sum()), int(found.sum()), int((near & found).sum())


def halves(episodes: LatentEpisodes) -> tuple[LatentEpisodes, LatentEpisodes]:
    """Every second episode, and the others.

    Raises:
        UserError: There are not two.
    """
    if episodes.num_episodes < 2:
        raise UserError(f"{episodes.num_episodes} validation episodes are too few: one half chooses the threshold, the other counts")
    return episodes.select(range(0, episodes.num_episodes, 2)), episodes.select(range(1, episodes.num_episodes, 2))


def normalised(episodes: LatentEpisodes, model: Any) -> LatentEpisodes:
    """The episodes with latents as the model predicts them, on its device; actions stay physical."""
    return replace(episodes, z_FND=model.normalise(episodes.z_FND.to(model.device))).to(model.device)
