"""Receding-horizon planning toward a goal image.

    observe --> encode --> ring of the last T latents --> prime --> plan (warm-started) --> first actions --> observe ...

`RecedingHorizon` is pure: its states are immutable values, and it serves any number of arms or environments in one call. `controller.py`
wraps it for one arm.

Whatever goes wrong in the moment (a reading that is not finite, a model that answers NaN) gives the *hold* action, no displacement, and
a reason; a mistake in the program (a wrong shape) raises `UserError`.

Letters: B problems, T context frames, V camera views, N tokens, D latent width, H horizon steps, A action dimensions.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goalward import UserError
from goalward.planners.actions import ActionSet, Box, Intersection, Situation, Workspace, hold_A
from goalward.planners.base import Plan, Planner, PlannerState, Problem, WorldModel
from goalward.planners.checks import require_count, require_number
from goalward.planners.control.observation import Observed, check_frames, position_indices, read_observation
from goalward.planners.methods.search import Clock
from goalward.planners.methods.warm_start import split_state, stack_states
from goalward.planners.objectives import LatentDistance, Objective, latent_distance


@dataclass(frozen=True, kw_only=True, slots=True)
class ControllerConfig:
    """How far to look ahead, and how long to think."""

    horizon: int = 3
    """Actions in a plan."""
    execute_steps: int = 1
    """Actions executed from each plan before planning again."""
    budget_ms: float | None = None
    """Plan by a deadline, this long after the observation is handed over; encoding included. None: the planner's full budget."""

    def __post_init__(self) -> None:
        """Checks every field."""
        require_count("horizon", self.horizon)
        require_count("execute_steps", self.execute_steps, high=self.horizon, why="no more than the horizon")
        if self.budget_ms is not None:
            require_number("budget_ms", self.budget_ms, low=0.0, open_low=True)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ControllerState:
    """Everything the controller remembers of one arm."""

    z_goal_1ND: Tensor
    """Latents of the goal image."""
    planner: PlannerState
    """Warm start, seed and step."""
    last_action_A: NDArray[np.float32]
    """The action returned last; zeros at the start."""
    z_1TND: Tensor | None = None
    """Latents of the last T frames; the first frame repeated until there are enough."""
    plan: Plan | None = None
    """The plan in execution; None after a fault."""
    next_action: int = 0
    """Which of its actions comes next."""
    num_acts: int = 0
    """Actions returned so far."""
    hold_reason: str | None = None
    """Why the last action was to hold; None if it was planned."""
    energy: float = float("nan")
    """Distance of the observed latents from the goal's: mean squared difference."""
    plan_ms: float = float("nan")
    """Wall time of the last call, encoding and priming included; of all arms together if several were served."""


class RecedingHorizon:
    """Plans, executes the first actions, and plans again; holds constants only.

    Args:
        model: See `base.WorldModel`.
        planner: See `registry.make_planner`.
        action_set: What may be done; the model's own bounds if not given.
        objective: What is wanted; the squared latent distance, averaged over the predicted frames, if not given.
        config: Horizon and budget.
        clock: The planner's clock, monotonic seconds.
    """

    def __init__(
        self,
        model: WorldModel,
        planner: Planner,
        *,
        action_set: ActionSet | None = None,
        objective: Objective | None = None,
        config: ControllerConfig | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.model = model
        self.planner = planner
        self.action_set: ActionSet = action_set or Box.of(model.action_low, model.action_high, device=model.device)
        self.objective = objective or Objective(terms=(LatentDistance(step_weights="uniform"),))
        self.config = config or ControllerConfig()
        self.clock = clock
        num_actions = len(model.action_names)
        if self.action_set.low_A.shape != (num_actions,):
            raise UserError(
                f"action_set: bounds for {self.action_set.low_A.numel()} entries; the model has {', '.join(model.action_names)}"
            )
        limits = self.action_set.limits if isinstance(self.action_set, Intersection) else ()
        self._needs_position = any(isinstance(limit, Workspace) for limit in limits)
        if self._needs_position:
            position_indices(model.proprio_names)
        self._hold_A = hold_A(self.action_set).cpu().numpy().copy()

    def start(self, goal_pixels: Any, *, seed: int = 0) -> ControllerState:
        """Begins an episode.

        Args:
            goal_pixels: uint8 [V, h, w, 3], one frame per camera of the model.
            seed: Of the planner's random numbers.

        Raises:
            UserError: The goal image does not fit the model.
        """
        return ControllerState(
            z_goal_1ND=self._encode([check_frames("goal_pixels", goal_pixels, self.model)]),
            planner=PlannerState.initial([seed]),
            last_action_A=np.zeros_like(self._hold_A),
        )

    def new_goal(self, state: ControllerState, goal_pixels: Any) -> ControllerState:
        """Changes the goal in mid-episode: the past stays known, the previous plan is dropped."""
        z_goal_1ND = self._encode([check_frames("goal_pixels", goal_pixels, self.model)])
        return replace(state, z_goal_1ND=z_goal_1ND, planner=state.planner.cold(), plan=None, next_action=0)

    def act(self, state: ControllerState, observation: Mapping[str, Any]) -> tuple[NDArray[np.float32], ControllerState]:
        """Chooses the next action, float32 [A], inside the action set, for one arm; see `act_batch`."""
        actions_BA, states = self.act_batch([state], [observation])
        return actions_BA[0], states[0]

    def act_batch(
        self, states: Sequence[ControllerState], observations: Sequence[Mapping[str, Any]]
    ) -> tuple[NDArray[np.float32], tuple[ControllerState, ...]]:
        """Chooses the next action of several arms, in one call to the model.

        Args:
            states: One per arm.
            observations: One per arm; see `observation.read_observation`.

        Returns:
            Actions, float32 [B, A], and the new states.

        Raises:
            UserError: An observation does not fit the model.
        """
        begun_s = self.clock()
        seen = [
            read_observation(obs, self.model, needs_position=self._needs_position, default_time_s=state.num_acts * self.model.dt_s)
            for state, obs in zip(states, observations, strict=True)
        ]
        states = self._look(states, seen)
        due = [b for b, state in enumerate(states) if state.hold_reason is None and self._is_due(state)]
        if due:
            for b, planned in zip(due, self._plan([states[b] for b in due], [seen[b] for b in due], begun_s), strict=True):
                states[b] = planned
        actions_BA = np.stack([self._next_action(state, observed) for state, observed in zip(states, seen, strict=True)])
        plan_ms = (self.clock() - begun_s) * 1e3
        after = tuple(
            replace(state, next_action=state.next_action + 1, num_acts=state.num_acts + 1, last_action_A=action.copy(), plan_ms=plan_ms)
            for state, action in zip(states, actions_BA, strict=True)
        )
        return actions_BA, after

    def _encode(self, frames: Sequence[NDArray[np.uint8]]) -> Tensor:
        with torch.no_grad():
            return self.model.encode(torch.from_numpy(np.stack(frames)))

    def _look(self, states: Sequence[ControllerState], seen: Sequence[Observed]) -> list[ControllerState]:
        """Puts the new frames into the rings, and notes what is wrong with the observations."""
        z_BND = self._encode([observed.pixels_Vhw3 for observed in seen])
        energy = latent_distance(z_BND, torch.cat([state.z_goal_1ND for state in states])).tolist()
        updated = []
        for b, (state, observed) in enumerate(zip(states, seen, strict=True)):
            # A frame whose latents are not finite would poison the ring for T steps; its energy is not finite either.
            fault = observed.fault or (None if np.isfinite(energy[b]) else "the latents of the frame or of the goal are not finite")
            ring = state.z_1TND
            if np.isfinite(energy[b]):
                z_11ND = z_BND[b : b + 1, None]
                past = z_11ND.expand(-1, self.model.context_frames, -1, -1) if ring is None else ring
                ring = torch.cat([past[:, 1:], z_11ND], dim=1)
            plan = None if fault else state.plan
            updated.append(replace(state, z_1TND=ring, energy=energy[b], hold_reason=fault, plan=plan))
        return updated

    def _is_due(self, state: ControllerState) -> bool:
        plan = state.plan
        return plan is None or plan.stop_reason[0] == "failed" or state.next_action >= self.config.execute_steps

    def _plan(self, states: Sequence[ControllerState], seen: Sequence[Observed], begun_s: float) -> list[ControllerState]:
        """Plans for the arms that are due, in one batch."""
        rings = [state.z_1TND for state in states if state.z_1TND is not None]
        z_BTND = torch.cat(rings)
        with torch.no_grad():
            context = self.model.prime(z_BTND)
        problem = Problem(
            model=self.model,
            context=context,
            z_BTND=z_BTND,
            z_goal_BGND=torch.stack([state.z_goal_1ND for state in states]),
            action_set=self.action_set,
            situation=self._situation(states, seen),
            objective=self.objective,
            horizon=self.config.horizon,
            dt_s=self.model.dt_s,
            start_time_s=tuple(observed.time_s for observed in seen),
        )
        deadline_s = None if self.config.budget_ms is None else begun_s + self.config.budget_ms * 1e-3
        plan, planner = self.planner.plan(problem, stack_states([state.planner for state in states]), deadline_s=deadline_s)
        parts = split_state(planner)
        planned = []
        for b, state in enumerate(states):
            mine = plan.problem(b)
            reason = None
            if mine.stop_reason[0] == "failed":
                reason = f"planning failed: none of the {int(mine.num_nonfinite_B)} candidates had a finite cost"
            planned.append(replace(state, plan=mine, planner=parts[b], next_action=0, hold_reason=reason))
        return planned

    def _situation(self, states: Sequence[ControllerState], seen: Sequence[Observed]) -> Situation:
        device = self.action_set.low_A.device
        position_BE = None
        if self._needs_position:
            position_BE = torch.tensor([observed.position_E for observed in seen], dtype=torch.float64, device=device)
        last_action_BA = torch.from_numpy(np.stack([state.last_action_A for state in states])).to(device)
        return Situation(position_BE=position_BE, last_action_BA=last_action_BA)

    def _next_action(self, state: ControllerState, observed: Observed) -> NDArray[np.float32]:
        if state.hold_reason is not None or state.plan is None:
            return self._hold_A.copy()
        action_BSHA = state.plan.actions_BHA[:, None, state.next_action : state.next_action + 1]
        # Later actions of a plan were feasible from where the arm was expected to be; it is projected from where it is.
        action_BSHA = self.action_set.project(action_BSHA, self._situation([state], [observed]))
        action_A: NDArray[np.float32] = action_BSHA[0, 0, 0].cpu().numpy().astype(np.float32)
        return action_A
