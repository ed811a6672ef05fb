"""Our weights, rolled out the way stable-worldmodel's own world models are (0.1.1: `wm/lewm/lewm.py`, `wm/prejepa/prejepa.py`).

What is mirrored, step by step:

* `get_cost(info, candidates)`; the solver repeats every entry of `info` once per sample (a view), the rollout flattens it (a copy);
* latents are computed once per plan and kept in `info`, the goal's too: here both come encoded, and neither side's encoding is timed;
* at each step the predictor runs anew over the last `history_size` frames, observed or predicted, of every sample, and the last frame
  of its output is appended: no keys or values are kept from step to step, none are shared between samples;
* float32.

`history_size` is our predictor's `context_frames`. With two frames, every step costs two frames of context and one to predict; their
LeWM with its default history of three runs over one, two and three frames in the first three steps.

Letters: B problems, S candidates, R = B * S rows, H horizon steps, T context frames, N tokens, D latent width, A action dimensions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from goalward.planners.base import Problem
from goalward.planners.objectives import Outcome
from goalward.wm.predictor import LatentPredictor


class RerunCost:
    """A world model in stable-worldmodel's protocol (`Costable`)."""

    def __init__(self, problem: Problem, dtype: torch.dtype = torch.float32) -> None:
        """Copies the weights.

        Args:
            problem: Of a `goalward.wm.model.WorldModel`.
            dtype: Precision inside the predictor.
        """
        model: Any = problem.model
        description, source = model.description, model._predictor
        self.problem = problem
        self.normalise = model._action.normalise
        self.predictor = LatentPredictor(
            description.predictor, num_tokens=description.num_tokens, dim=description.dim, action_dim=len(description.env.action_names)
        )
        self.predictor.load_state_dict(source.state_dict())
        self.predictor.to(dtype).requires_grad_(False)
        self.history_size = description.predictor.context_frames

    def info(self) -> dict[str, Tensor]:
        """What the policy would hand to the solver: latents of the observed frames [B, T, N, D] and of the goal [B, G, N, D]."""
        assert self.problem.z_BTND is not None
        return {"emb": self.problem.z_BTND, "goal_emb": self.problem.z_goal_BGND}

    def rollout(self, info: dict[str, Tensor], actions_BSHA: Tensor) -> Tensor:
        """Predicts z_BSHND, frame by frame, over a truncated window; actions in physical units."""
        B, S, H, A = actions_BSHA.shape
        actions_RHA = self.normalise(actions_BSHA.to(torch.float32)).reshape(B * S, H, A)
        emb_RTND = info["emb"].flatten(0, 1)
        frames = list(emb_RTND.unbind(1))
        for step in range(H):
            window_RTND = torch.stack(frames[-self.history_size :], dim=1)
            frames.append(self.predict(window_RTND, actions_RHA[:, step]))
        z_RHND = torch.stack(frames[emb_RTND.shape[1] :], dim=1)
        return z_RHND.reshape(B, S, *z_RHND.shape[1:])

    def predict(self, window_RTND: Tensor, action_RA: Tensor) -> Tensor:
        """The frame after the window."""
        context = self.predictor.prime(window_RTND)
        return self.predictor.rollout(context, action_RA[:, None, None])[:, 0, 0]

    def cost(self, info: dict[str, Tensor], actions_BSHA: Tensor, unit_A: Tensor) -> Tensor:
        """Costs [B, S] under the problem's objective."""
        outcome = Outcome(
            z_BSHND=self.rollout(info, actions_BSHA), z_goal_BGND=info["goal_emb"][:, 0], actions_BSHA=actions_BSHA, unit_A=unit_A,
            situation=self.problem.situation,
        )  # fmt: skip
        return self.problem.objective(outcome)
