"""Counts and histories of one search. Letters: B problems, I iterations."""

from __future__ import annotations

import torch
from torch import Tensor

from goalward.planners.base import StopReason
from goalward.planners.methods.evaluation import Evaluation, Incumbent

STALLED_ITERATIONS = 2
"""A search has converged when this many iterations in a row improved the best cost by less than the tolerance."""


class Tally:
    """Counts and histories of one call; converged problems stay as they were, however long the others go on."""

    def __init__(self, num_problems: int, device: torch.device) -> None:
        zeros_B = torch.zeros(num_problems, dtype=torch.int64, device=device)
        self.num_iterations_B, self.num_nonfinite_B, self._stalled_B = zeros_B, zeros_B, zeros_B
        self.active_B: Tensor | None = None
        self.best_cost: list[Tensor] = []
        self.mean_cost: list[Tensor] = []

    def count(self, evaluation: Evaluation, incumbent: Incumbent) -> None:
        """Enters one iteration."""
        num_finite_B = evaluation.finite_BS.sum(dim=1)
        excluded_B = evaluation.finite_BS.shape[1] - num_finite_B
        mean_B = torch.where(evaluation.finite_BS, evaluation.cost_BS, 0.0).sum(dim=1) / num_finite_B
        mean_B = torch.where(num_finite_B > 0, mean_B, float("inf"))
        if self.active_B is None:
            self.num_iterations_B = self.num_iterations_B + 1
            self.num_nonfinite_B = self.num_nonfinite_B + excluded_B
        else:
            mean_B = torch.where(self.active_B, mean_B, self.mean_cost[-1])
            self.num_iterations_B = self.num_iterations_B + self.active_B
            self.num_nonfinite_B = self.num_nonfinite_B + excluded_B * self.active_B
        self.best_cost.append(incumbent.cost_B)
        self.mean_cost.append(mean_B)

    def converged(self, previous_B: Tensor, cost_B: Tensor, tolerance: float) -> bool:
        """Retires the problems that have stalled; True if all have."""
        # The first finite cost gains infinitely much, and a problem without one has not stalled: it has not begun.
        stalled_B = (previous_B - cost_B <= tolerance * cost_B.abs()) & torch.isfinite(cost_B)
        self._stalled_B = torch.where(stalled_B, self._stalled_B + 1, 0)
        going_on_B = self._stalled_B < STALLED_ITERATIONS
        self.active_B = going_on_B if self.active_B is None else going_on_B & self.active_B
        return not bool(self.active_B.any())

    def reasons(self, reason: StopReason, failed_B: Tensor) -> tuple[StopReason, ...]:
        """Says for each problem why its search ended."""
        failed = failed_B.tolist()
        active = [reason != "converged"] * len(failed) if self.active_B is None else self.active_B.tolist()
        return tuple("failed" if failed[b] else reason if active[b] else "converged" for b in range(len(failed)))
