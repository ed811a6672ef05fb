"""Parallel state-action optimisation, after GRASP (arXiv 2602.00475). Experimental: meant for long horizons.

Besides the actions, the states on the way are variables. Each state is predicted from the one before it, all steps side by side, so that
the gradient of a late action does not pass through the whole chain:

    f_t   =  model(stop(s_{t-1}), a_t)                       t = 1 .. H, s_0 observed, s_H the goal; stop() passes no gradient
    loss  =  mean_t |f_t - s_t|^2  +  goal_weight * objective(f_1 .. f_H)
    (a, s) <- Adam step on the loss;   s <- s + noise

No gradient enters a model at its state inputs: there, tiny changes can steer it to any output (their figure 3). Every iteration also rolls
the actions out in earnest, prices them, and takes one Adam step along the gradient of that cost; the last iterations do nothing else. So
the plan returned is judged by the same objective as every other planner's. The states begin on the noisy straight line from the present
to the goal; of several goals, to the first.

Letters: B problems, S starts, H horizon steps, T context frames, N tokens, D latent width, K variables in time, A action dimensions.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.base import Problem
from goalward.planners.checks import require_count, require_number
from goalward.planners.methods.evaluation import Evaluation, Incumbent, outcome_of
from goalward.planners.methods.moments import Moments
from goalward.planners.methods.search import Clock, Search, Start


@dataclass(frozen=True, kw_only=True, slots=True)
class GRASPConfig:
    """Budget and step sizes. Action rates and spreads are fractions of half the range; state rates and noise are in latent units."""

    num_starts: int = 4
    """Sequences that are optimised side by side: the warm start, and random ones."""
    num_iterations: int = 8
    """Rollouts of every sequence, at most."""
    num_parallel: int = 4
    """Parallel steps on actions and states between two rollouts."""
    parallel_iterations: int = 4
    """After how many rollouts, the first ones, parallel steps are taken."""
    learning_rate: float = 0.2
    """Size of the first step of the actions."""
    decay: float = 0.9
    """Factor on that size from one rollout to the next, once the parallel steps are over."""
    state_rate: float = 0.1
    """Size of a step of the states."""
    state_noise: float = 0.02
    """Noise on the states after every parallel step: it carries them over barriers."""
    goal_weight: float = 1.0
    """Weight of the objective on the one-step predictions."""
    init_std: float = 0.5
    """Spread of the random starts around the warm start."""
    stop_tolerance: float = 0.0
    """Stop when two iterations in a row improve the best cost by less than this fraction; 0 never stops early."""

    def __post_init__(self) -> None:
        """Checks every field."""
        require_count("num_starts", self.num_starts)
        require_count("num_iterations", self.num_iterations)
        require_count("num_parallel", self.num_parallel, low=0)
        require_count("parallel_iterations", self.parallel_iterations, low=0)
        require_number("learning_rate", self.learning_rate, low=0.0, high=10.0, open_low=True)
        require_number("decay", self.decay, low=0.0, high=1.0, open_low=True)
        require_number("state_rate", self.state_rate, low=0.0, high=10.0, open_low=True)
        require_number("state_noise", self.state_noise, low=0.0, high=10.0)
        require_number("goal_weight", self.goal_weight, low=0.0, high=1e6)
        require_number("init_std", self.init_std, low=0.0, high=10.0)
        require_number("stop_tolerance", self.stop_tolerance, low=0.0, high=1.0)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GRASPParams:
    """Actions and states, and Adam's moments of both."""

    variables_BSKA: Tensor
    action_moments: Moments
    states_BSHND: Tensor | None = None
    """s_1 .. s_H, the last of which stays the goal; None before the first iteration."""
    state_moments: Moments | None = None
    iteration: int = 0


class GRASP(Search[GRASPParams]):
    """Parallel state-action optimisation; see the top of this file."""

    uses_gradient: ClassVar[bool] = True

    def __init__(self, config: GRASPConfig | None = None, *, clock: Clock = time.perf_counter) -> None:
        self.config = c = config or GRASPConfig()
        super().__init__(num_candidates=c.num_starts, num_iterations=c.num_iterations, tolerance=c.stop_tolerance, clock=clock)

    def begin(self, start: Start) -> GRASPParams:
        """Scatters the starts around the warm start, which is the first; a warm-started search also tries the cold start."""
        c = self.config
        if start.evaluate.problem.z_BTND is None:
            raise UserError("z_BTND: the problem has none, and grasp predicts from states of its own; give the observed frames' latents")
        variables_BSKA = start.mean_BKA[:, None] + start.noise_BSKA(c.num_starts) * (c.init_std * start.unit_A)
        variables_BSKA[:, 0] = start.mean_BKA
        if c.num_starts > 1:
            variables_BSKA[:, 1] = torch.where(start.warm_B[:, None, None], start.cold_BKA, variables_BSKA[:, 1])
        return GRASPParams(variables_BSKA=variables_BSKA, action_moments=Moments.zeros_like(variables_BSKA))

    def propose(self, params: GRASPParams, start: Start) -> Tensor:
        """The sequences themselves."""
        return params.variables_BSKA

    def update(self, params: GRASPParams, evaluation: Evaluation, incumbent: Incumbent, start: Start) -> GRASPParams:
        """One step along the whole rollout, then some in parallel; a sequence whose cost is not finite goes on from the incumbent."""
        c, problem = self.config, start.evaluate.problem
        assert evaluation.gradient_BSKA is not None
        direction_BSKA, moments = params.action_moments.after(evaluation.gradient_BSKA * start.unit_A)
        finite_BS11 = evaluation.finite_BS[..., None, None]
        alone = params.iteration >= c.parallel_iterations
        rate = c.learning_rate * c.decay ** (params.iteration - c.parallel_iterations if alone else 0)
        variables_BSKA = evaluation.variables_BSKA - rate * start.unit_A * direction_BSKA
        variables_BSKA = torch.where(finite_BS11, variables_BSKA, incumbent.variables_BKA[:, None])
        states_BSHND, state_moments = params.states_BSHND, params.state_moments
        if states_BSHND is None:
            states_BSHND = self._straight_line(problem, start)
        if state_moments is None:
            state_moments = Moments.zeros_like(states_BSHND)
        for _ in range(0 if alone else c.num_parallel):
            action_gradient_BSKA, state_gradient_BSHND = self._parallel_gradients(variables_BSKA, states_BSHND, start)
            direction_BSKA, moments = moments.after(action_gradient_BSKA * start.unit_A)
            variables_BSKA = variables_BSKA - rate * start.unit_A * direction_BSKA
            direction_BSHND, state_moments = state_moments.after(state_gradient_BSHND)
            noise_BSHND = self._state_noise(states_BSHND, start)
            moved_BSHND = states_BSHND - c.state_rate * direction_BSHND + c.state_noise * noise_BSHND
            states_BSHND = torch.cat([moved_BSHND[:, :, :-1], states_BSHND[:, :, -1:]], dim=2)
        return GRASPParams(
            variables_BSKA=torch.where(torch.isfinite(variables_BSKA), variables_BSKA, incumbent.variables_BKA[:, None]),
            action_moments=moments,
            states_BSHND=states_BSHND,
            state_moments=state_moments,
            iteration=params.iteration + 1,
        )

    def _straight_line(self, problem: Problem, start: Start) -> Tensor:
        assert problem.z_BTND is not None
        now_B11ND, goal_B11ND = problem.z_BTND[:, None, -1:], problem.z_goal_BGND[:, None, :1]
        part_H11 = torch.arange(1, problem.horizon + 1, device=now_B11ND.device)[:, None, None] / problem.horizon
        line_BSHND = torch.lerp(now_B11ND, goal_B11ND, part_H11).expand(-1, self.config.num_starts, -1, -1, -1)
        noisy_BSHND = line_BSHND + self.config.state_noise * self._state_noise(line_BSHND, start)
        return torch.cat([noisy_BSHND[:, :, :-1], line_BSHND[:, :, -1:]], dim=2)

    def _state_noise(self, states_BSHND: Tensor, start: Start) -> Tensor:
        """Noise of one number per state and token row, drawn as the actions' noise is: by each problem from its own generator."""
        B, S, H, N, D = states_BSHND.shape
        num_actions = start.unit_A.shape[0]
        per_draw = start.mean_BKA.shape[1] * num_actions
        num_draws = -(-S * H * N * D // per_draw)
        return start.noise_BSKA(num_draws).reshape(B, -1)[:, : S * H * N * D].reshape(B, S, H, N, D)

    def _parallel_gradients(self, variables_BSKA: Tensor, states_BSHND: Tensor, start: Start) -> tuple[Tensor, Tensor]:
        """Gradients of the loss with respect to variables (physical units) and states; 0 where they are not finite."""
        problem = start.evaluate.problem
        actions_BSHA = start.evaluate.actions(variables_BSKA)
        B, S, H, A = actions_BSHA.shape
        contexts = problem.model.prime(self._windows(problem, states_BSHND).flatten(0, 2))
        with torch.enable_grad():
            leaf_BSHA = actions_BSHA.detach().requires_grad_()
            ahead_BSHND = problem.model.rollout(contexts, leaf_BSHA.reshape(B * S * H, 1, 1, A)).reshape(states_BSHND.shape)
            goal_BS = problem.objective(outcome_of(problem, ahead_BSHND, leaf_BSHA, start.unit_A))
            gap_BSHND = ahead_BSHND - states_BSHND
            loss_BS = gap_BSHND.square().mean(dim=(2, 3, 4)) + self.config.goal_weight * goal_BS
            (gradient_BSHA,) = torch.autograd.grad(torch.where(torch.isfinite(loss_BS), loss_BS, 0.0).sum(), leaf_BSHA)
        # With no gradient through the model's state inputs, the states only feel the gap of their own prediction.
        state_gradient_BSHND = -2.0 / gap_BSHND[0, 0].numel() * gap_BSHND.detach()
        gradient_BSKA = start.evaluate.pulled_back(torch.where(torch.isfinite(gradient_BSHA), gradient_BSHA, 0.0))
        return gradient_BSKA, torch.where(torch.isfinite(state_gradient_BSHND), state_gradient_BSHND, 0.0)

    def _windows(self, problem: Problem, states_BSHND: Tensor) -> Tensor:
        """The T frames before each step: observed ones, then states; [B, S, H, T, N, D]."""
        assert problem.z_BTND is not None
        num_context = problem.z_BTND.shape[1]
        observed_BSTND = problem.z_BTND[:, None].expand(-1, states_BSHND.shape[1], -1, -1, -1)
        track_BSXND = torch.cat([observed_BSTND, states_BSHND[:, :, :-1]], dim=2)
        return track_BSXND.unfold(2, num_context, 1).permute(0, 1, 2, 5, 3, 4)
