"""Distance to the goal in the space of latents.

Unit of cost: 1 is as far as two unrelated frames. Models normalise latents to zero mean and unit variance over their training data, so for
two independent frames, each latent entry taken as a unit Gaussian, the difference has variance 2 and

    l2 (mean squared difference)   expects 2          l1 (mean absolute difference)   expects 2 / sqrt(pi)          cosine   expects 1

Costs are divided by these numbers: a weight means the same for every metric, encoder, number of tokens, width and horizon.

Letters: B problems, S candidates, H horizon steps, G goal images, V camera views, N tokens, D latent width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.checks import require_number
from goalward.planners.objectives.base import Outcome, StepWeights, at_least_float32, check_step_weights, weights_H

Metric = Literal["l2", "l1", "cosine"]
UNRELATED: dict[str, float] = {"l2": 2.0, "l1": 2.0 / math.sqrt(math.pi), "cosine": 1.0}
"""What each metric expects of two unrelated frames."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentDistance:
    """How far predicted latents are from the goal's, along the horizon; 1 is as far as two unrelated frames."""

    metric: Metric = "l2"
    """l2: mean squared difference; l1: mean absolute difference; cosine: one minus the cosine, mean over tokens."""
    step_weights: StepWeights = "last"
    """Which predicted frames count: the last, all alike, growing linearly or with the fourth power (quartic: nearly the last
    alone, and yet arriving early pays), or one weight per step; normalised to sum 1.

    A `sequence` says itself when each goal counts: it goes with `last` alone.
    """
    goals: Literal["any", "sequence"] = "any"
    """Several goal images: the nearest counts at every step, or all are to be passed in their order, see `in_order`."""
    token_weights: tuple[float, ...] | None = None
    """One weight per token, see `region_weights`; None: all alike. Tokens of no weight are not looked at."""
    weight: float = 1.0
    """Factor in the objective."""

    def __post_init__(self) -> None:
        """Refuses unknown metrics and weights that cannot be normalised."""
        if self.metric not in UNRELATED:
            raise UserError(f"metric: {self.metric!r} is unknown; choose l2, l1 or cosine")
        if self.goals not in ("any", "sequence"):
            raise UserError(f"goals: {self.goals!r} is unknown; choose any or sequence")
        require_number("weight", self.weight, low=0.0)
        check_step_weights(self.step_weights)
        if self.goals == "sequence" and self.step_weights != "last":
            raise UserError(f"step_weights: {self.step_weights!r} cannot be combined with goals='sequence'; leave it at 'last'")
        given = self.token_weights
        if given is not None and (not given or not all(math.isfinite(w) and w >= 0 for w in given) or not 0 < sum(given) < math.inf):
            raise UserError(f"token_weights: {given} is not allowed; give finite numbers of at least 0, not all 0")

    def cost(self, outcome: Outcome) -> Tensor:
        """Weighted mean over the horizon; see `metric`."""
        if self.goals == "sequence" and outcome.z_goal_BGND.shape[1] > 1:
            return in_order(self._by_goal_and_step(outcome))
        total_BS: Tensor | None = None
        # Step by step: temporaries that fit the cache. Steps of no weight are left out; they could only add a NaN (0 times inf).
        for step, weight in enumerate(weights_H(self.step_weights, outcome.z_BSHND.shape[2])):
            if weight > 0:
                distances = [self._distance(outcome.z_BSHND[:, :, step], goal_BND) for goal_BND in outcome.z_goal_BGND.unbind(1)]
                nearest_BS = distances[0] if len(distances) == 1 else torch.stack(distances).amin(dim=0)
                part_BS = nearest_BS * (weight / UNRELATED[self.metric])
                total_BS = part_BS if total_BS is None else total_BS + part_BS
        assert total_BS is not None
        return total_BS

    def _by_goal_and_step(self, outcome: Outcome) -> Tensor:
        steps = outcome.z_BSHND.unbind(2)
        rows = [torch.stack([self._distance(z_BSND, goal) for z_BSND in steps], -1) for goal in outcome.z_goal_BGND.unbind(1)]
        return torch.stack(rows, dim=2) / UNRELATED[self.metric]

    def _distance(self, z_BSND: Tensor, z_goal_BND: Tensor) -> Tensor:
        z_goal_B1ND = z_goal_BND[:, None]
        if self.token_weights is None:
            return latent_distance(z_BSND, z_goal_B1ND, self.metric)
        if len(self.token_weights) != z_BSND.shape[2]:
            raise UserError(f"token_weights: {len(self.token_weights)} weights for {z_BSND.shape[2]} tokens; give one per token")
        total = sum(self.token_weights)
        looked_at = [token for token, weight in enumerate(self.token_weights) if weight / total > 0]
        # Neighbours, such as the tokens of one view, are read where they lie; others have to be gathered.
        run = slice(looked_at[0], looked_at[-1] + 1)
        chosen = run if len(looked_at) == run.stop - run.start else looked_at
        # By token, each a frame of its own: the weighted mean over tokens.
        by_token_BSN = latent_distance(z_BSND[:, :, chosen, None], z_goal_B1ND[:, :, chosen, None], self.metric)
        return (by_token_BSN * by_token_BSN.new_tensor([self.token_weights[token] / total for token in looked_at])).sum(dim=-1)


def in_order(distance_BSGH: Tensor) -> Tensor:
    """Cost of passing all goals in their order, the last of them at the end of the horizon.

    The least mean over goals of distance[g, t_g], over all t_1 <= ... <= t_G = H: dynamic programming over goals, where reach[g, t] is
    the least sum of the first g goals with t_g = t. Differentiable: the gradient is that of the best assignment.

    Args:
        distance_BSGH: Of every goal at every step.

    Returns:
        [B, S].
    """
    goals = distance_BSGH.unbind(2)
    reach_BSH = goals[0]
    for goal_BSH in goals[1:]:
        # The least so far, by steps: the best moment for the goal before, at this step or earlier.
        reach_BSH = goal_BSH + torch.cummin(reach_BSH, dim=-1).values
    return reach_BSH[..., -1] / len(goals)


def region_weights(
    num_tokens: int,
    num_views: int,
    *,
    view_weights: tuple[float, ...] | None = None,
    view: int | None = None,
    rows: tuple[int, int] | None = None,
    columns: tuple[int, int] | None = None,
) -> tuple[float, ...]:
    """Token weights for `LatentDistance`, from a weight per camera view and a region of one view's square grid of tokens.

    Args:
        num_tokens: N, of all views together, in camera order.
        num_views: V.
        view_weights: One per view; None: all alike.
        view: The view whose grid `rows` and `columns` mask; None: every view's.
        rows: First row that counts, and the row after the last; None: all.
        columns: Likewise.

    Raises:
        UserError: Numbers that do not fit one another, or an empty region.
    """
    if num_views < 1 or num_tokens % num_views:
        raise UserError(f"num_tokens: {num_tokens} tokens do not divide into {num_views} views")
    per_view = num_tokens // num_views
    side = math.isqrt(per_view)
    given = (1.0,) * num_views if view_weights is None else view_weights
    if len(given) != num_views:
        raise UserError(f"view_weights: {len(given)} weights for {num_views} views; give one per view")
    if (rows or columns) and side * side != per_view:
        raise UserError(f"rows, columns: the {per_view} tokens of a view are no square grid; give view_weights alone")
    (top, bottom), (left, right) = rows or (0, side), columns or (0, side)
    if not (0 <= top < bottom <= side and 0 <= left < right <= side) and (rows or columns):
        raise UserError(f"rows {top}..{bottom}, columns {left}..{right}: no region of a grid of {side} x {side} tokens")
    if view is not None and not 0 <= view < num_views:
        raise UserError(f"view: {view} is not allowed; there are views 0 .. {num_views - 1}")
    if view is not None and not (rows or columns):
        raise UserError(f"view: {view} is given without rows or columns to mask in it; give one, or view_weights to leave out other views")
    weights = []
    for index, token in ((i, t) for i in range(num_views) for t in range(per_view)):
        masked = (rows or columns) and view in (None, index) and not (top <= token // side < bottom and left <= token % side < right)
        weights.append(0.0 if masked else float(given[index]))
    return tuple(weights)


def latent_distance(z_ND: Tensor, z_goal_ND: Tensor, metric: Metric = "l2") -> Tensor:
    """Distance over the last two axes (tokens, width), as the metric is written, in no unit; axes before are broadcast."""
    z_ND, z_goal_ND = at_least_float32(z_ND), at_least_float32(z_goal_ND)
    if metric == "cosine":
        return (1.0 - torch.nn.functional.cosine_similarity(z_ND, z_goal_ND, dim=-1, eps=1e-6)).mean(dim=-1)
    difference = z_ND - z_goal_ND
    return (difference.square() if metric == "l2" else difference.abs()).mean(dim=(-2, -1))
