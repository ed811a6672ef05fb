"""Distance to the goal as a linear read-out of the latents sees it: perception without the objective's own metric. Privileged.

The read-out is fitted to true positions, which a robot does not have.

    frames of random states -- encoder --> z -- ridge regression --> where the thing is that has to get to the goal
    cost = | read(z_predicted) - read(z_goal) |, along the way as the latent distance that it stands in for

What planning with it gains over the latent distance is lost in the objective; what it still lacks of the true distance, in perception.

Letters: B problems, S candidates, H horizon steps, G goal images, N tokens, D latent width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from goalward.planners.objectives import Outcome
from goalward.planners.objectives.base import StepWeights, weights_H
from goalward.wm.probe import LinearReadout, fit_readout

_NUM_EPISODES = 400
_FIRST_SEED = 900_000
"""Far from the seeds of evaluations and collections."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReadoutDistance:
    """Weighted mean distance, metres, along the horizon; of several goals the nearest counts."""

    readout: LinearReadout
    """From flattened latents [N * D] to a position [3]."""
    step_weights: StepWeights = "uniform"
    """Which predicted frames count, as in `LatentDistance`; those of no weight are not looked at."""
    weight: float = 1.0
    """Factor in the sum of terms."""

    def cost(self, outcome: Outcome) -> Tensor:
        """Weighted mean distance [B, S]."""
        weights = torch.tensor(weights_H(self.step_weights, outcome.z_BSHND.shape[2]), dtype=torch.float64)
        counted = weights > 0
        at_BSH3 = self.readout.read(outcome.z_BSHND[:, :, counted].flatten(-2))
        goal_BG3 = self.readout.read(outcome.z_goal_BGND.flatten(-2))
        distance_BSHG = (at_BSH3[:, :, :, None] - goal_BG3[:, None, None]).norm(dim=-1)
        cost_BS: Tensor = (distance_BSHG.amin(-1) @ weights[counted].to(distance_BSHG)).float()
        return cost_BS


def task_readout(model: Any, env: Any, *, num_episodes: int = _NUM_EPISODES) -> LinearReadout:
    """Fits where the thing is that has to get to the goal, on starts and goals drawn as for data collection; none is a goal of a manifest.

    Args:
        model: encodes.
        env: draws states and pictures; its episode ends.
        num_episodes: two pictures each; a fifth of them decides the strength.
    """
    features, positions = [], []
    for seed in range(_FIRST_SEED, _FIRST_SEED + num_episodes):
        observation, info = env.reset(seed=seed, options={"collect": True})
        goal = env.unwrapped.pursued
        frames = torch.stack([torch.from_numpy(observation["pixels"]), torch.from_numpy(info["goal_pixels"])])
        features.append(model.encode(frames).flatten(1))
        positions.append(torch.tensor([goal.start_position_m, goal.goal_position_m], dtype=torch.float64))
    held_out = max(1, num_episodes // 5)
    train, validation = (
        (torch.cat(features[part]), torch.cat(positions[part])) for part in (slice(held_out, None), slice(0, held_out))
    )
    return fit_readout(train, validation)
