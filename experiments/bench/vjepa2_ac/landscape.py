"""The energy landscape of the public notebook (`notebooks/energy_landscape_example.ipynb`): the distance to a goal over a grid of actions.

Letters: S actions, H = 1, N patch tokens, D width, A = 7 action entries.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goalward.experiments.bench.vjepa2_ac.public import PublicCode
from goalward.experiments.bench.vjepa2_ac.synthetic import Inputs
from goalward.planners.objectives import latent_distance
from goalward.wm.vjepa2_ac.predictor import VJepa2ACPredictor


def grid_1SHA(side: int = 5, reach_m: float = 0.075) -> Tensor:
    """Displacements on a cubic grid, z fastest, [1, side^3, 1, 7]; the notebook's size."""
    axis = torch.from_numpy(np.linspace(-reach_m, reach_m, side)).to(torch.float32)
    displacement = torch.cartesian_prod(axis, axis, axis)
    return torch.nn.functional.pad(displacement, (0, 4))[None, :, None]


@torch.no_grad()
def energies(public: PublicCode, theirs: Any, ours: VJepa2ACPredictor, window: Inputs) -> tuple[Tensor, Tensor]:
    """Mean absolute difference of each action's predicted frame from the goal's [S]: by the public code, and by ours."""
    actions = grid_1SHA()
    S = actions.shape[1]
    z, states = window.z_BTND[:, :1], window.states_BTP[:, :1]
    public_S = public.rolled(theirs, z.expand(S, -1, -1, -1), states.expand(S, -1, -1), actions[0], None, 1)[:, -1]
    our_1SHND = ours.rollout(ours.prime(z, states, actions[:, 0, :0]), actions)
    by_us = latent_distance(our_1SHND[0, :, -1], window.z_goal_BND, "l1")
    return (public_S - window.z_goal_BND).abs().mean(dim=(1, 2)), by_us


def heatmap(actions_SA: Tensor, energy_S: Tensor, bins: int = 5) -> NDArray[np.float64]:
    """Sum of the energies over y, by x and z, as the notebook draws it."""
    x, z = actions_SA[:, 0].double().numpy(), actions_SA[:, 2].double().numpy()
    drawn: NDArray[np.float64] = np.histogram2d(x, z, weights=energy_S.double().numpy(), bins=bins)[0]
    return drawn
