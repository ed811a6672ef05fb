"""Candidates rolled out and priced, and the best of them.

    actions = project(spline(variables))          cost = objective(rollout(actions)); not finite: excluded and counted

Letters: B problems, S candidates, H horizon steps, K variables in time (the steps themselves, or knots), N tokens, D latent width, A action
dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from goalward.planners.base import Problem
from goalward.planners.objectives.base import Outcome


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evaluation:
    """What the model says of candidates."""

    variables_BSKA: Tensor
    """What a method learns from: the feasible actions, or knots inside the action bounds."""
    actions_BSHA: Tensor
    """Feasible."""
    cost_BS: Tensor
    """+inf where the cost was not finite."""
    finite_BS: Tensor
    """Where it was finite."""
    z_BSHND: Tensor
    """Predicted latents."""
    gradient_BSKA: Tensor | None = None
    """Of the cost with respect to the variables, physical units, where the method asks for it; 0 where it is not finite."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Incumbent:
    """The best candidate of each problem so far."""

    variables_BKA: Tensor
    actions_BHA: Tensor
    cost_B: Tensor
    z_BHND: Tensor | None = None

    def challenged(self, evaluation: Evaluation, active_B: Tensor | None = None) -> Incumbent:
        """Accepts the best of the candidates where it is strictly better and the problem still active."""
        cost_B, best_B = evaluation.cost_BS.min(dim=1)
        rows_B = torch.arange(cost_B.shape[0], device=cost_B.device)
        better_B = cost_B < self.cost_B
        if active_B is not None:
            better_B = better_B & active_B
        better_B11 = better_B[:, None, None]
        z_BHND = evaluation.z_BSHND[rows_B, best_B]
        nothing = z_BHND.new_full((), float("nan")) if self.z_BHND is None else self.z_BHND
        return Incumbent(
            variables_BKA=torch.where(better_B11, evaluation.variables_BSKA[rows_B, best_B], self.variables_BKA),
            actions_BHA=torch.where(better_B11, evaluation.actions_BSHA[rows_B, best_B], self.actions_BHA),
            cost_B=torch.where(better_B, cost_B, self.cost_B),
            z_BHND=torch.where(better_B11[..., None], z_BHND, nothing),
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evaluator:
    """Prices variables of one problem batch."""

    problem: Problem
    unit_A: Tensor
    """Half the range of each action entry."""
    spline_BHK: Tensor | None
    """Actions from knots; None: the variables are the actions."""

    def actions(self, variables_BSKA: Tensor) -> Tensor:
        """The feasible actions [B, S, H, A] that variables stand for."""
        actions_BSHA = variables_BSKA if self.spline_BHK is None else _product(self.spline_BHK, variables_BSKA)
        return self.problem.action_set.project(actions_BSHA, self.problem.situation)

    def __call__(self, variables_BSKA: Tensor, *, gradient: bool = False) -> Evaluation:
        """Rolls candidates out and prices them.

        Raises:
            ValueError: The model's answer has another shape than promised, or carries no gradient where one is asked for.
        """
        if self.spline_BHK is not None:
            # Knots outside the bounds would stand for much the same actions, but lead the search astray.
            bounds = self.problem.action_set
            variables_BSKA = torch.clamp(variables_BSKA, bounds.low_A, bounds.high_A)
        actions_BSHA = self.actions(variables_BSKA)
        evaluation = evaluate(self.problem, actions_BSHA, self.unit_A, gradient=gradient)
        if self.spline_BHK is None:
            return evaluation
        gradient_BSHA = evaluation.gradient_BSKA
        return replace(
            evaluation,
            variables_BSKA=variables_BSKA,
            gradient_BSKA=None if gradient_BSHA is None else self.pulled_back(gradient_BSHA),
        )

    def pulled_back(self, gradient_BSHA: Tensor) -> Tensor:
        """The gradient with respect to the variables [B, S, K, A], from the one with respect to the actions."""
        return gradient_BSHA if self.spline_BHK is None else _product(self.spline_BHK.transpose(1, 2), gradient_BSHA)


def evaluate(problem: Problem, actions_BSHA: Tensor, unit_A: Tensor, *, gradient: bool = False) -> Evaluation:
    """Rolls feasible actions out and prices them.

    Raises:
        ValueError: The model's answer has another shape than promised, or carries no gradient where one is asked for.
    """
    with torch.set_grad_enabled(gradient):
        leaf_BSHA = actions_BSHA.detach().requires_grad_(gradient)
        z_BSHND = problem.model.rollout(problem.context, leaf_BSHA)
        expected = (*actions_BSHA.shape[:3], *problem.z_goal_BGND.shape[2:])
        if tuple(z_BSHND.shape) != expected:
            raise ValueError(f"rollout: the model returned latents of shape {tuple(z_BSHND.shape)}; expected {expected}")
        cost_BS = problem.objective(outcome_of(problem, z_BSHND, leaf_BSHA, unit_A))
        finite_BS = torch.isfinite(cost_BS.detach())
        gradient_BSHA = _gradient(cost_BS, finite_BS, leaf_BSHA) if gradient else None
    return Evaluation(
        variables_BSKA=actions_BSHA,
        actions_BSHA=actions_BSHA,
        cost_BS=torch.where(finite_BS, cost_BS.detach(), float("inf")),
        finite_BS=finite_BS,
        z_BSHND=z_BSHND.detach(),
        gradient_BSKA=gradient_BSHA,
    )


def outcome_of(problem: Problem, z_BSHND: Tensor, actions_BSHA: Tensor, unit_A: Tensor) -> Outcome:
    """What the objective is shown."""
    return Outcome(
        z_BSHND=z_BSHND, z_goal_BGND=problem.z_goal_BGND, actions_BSHA=actions_BSHA, unit_A=unit_A, situation=problem.situation
    )


def _gradient(cost_BS: Tensor, finite_BS: Tensor, leaf_BSHA: Tensor) -> Tensor:
    if not cost_BS.requires_grad:
        raise ValueError("rollout: the model's latents carry no gradient with respect to the actions; use a planner without gradients")
    (raw_BSHA,) = torch.autograd.grad(torch.where(finite_BS, cost_BS, 0.0).sum(), leaf_BSHA)
    return torch.where(torch.isfinite(raw_BSHA), raw_BSHA, 0.0)


def _product(matrix_BIJ: Tensor, values_BSJA: Tensor) -> Tensor:
    """Matrix @ values by broadcasting, not by BLAS: tiny, and bitwise the same in any batch."""
    return (matrix_BIJ[:, None, :, :, None] * values_BSJA[:, :, None]).sum(dim=3)
