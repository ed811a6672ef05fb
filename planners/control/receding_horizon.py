r"""Receding-horizon planning toward a goal image.

    observe --> encode --> ring of the last T latents --> compare --> prime --> plan (warm-started) --> first actions --> observe ...
                                                          as predicted, and actions of the plan remain: go on with it

`RecedingHorizon` is pure: its states are immutable values (`state.py`), and it serves any number of arms or environments in one call.
`controller.py` wraps it for one arm; `monitor.py` says what a surprise is, and when a goal counts as reached.

Whatever goes wrong in the moment (a reading that is not finite, a model that answers NaN) gives the *hold* action, no displacement, and
a reason; a mistake in the program (a wrong shape) raises `UserError`.

Letters: B problems, T context frames, G goal images, V camera views, N tokens, D latent width, H horizon steps, A action dimensions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goalward import UserError
from goalward.planners.actions import ActionSet, Box, Intersection, Situation, Workspace, hold_A
from goalward.planners.base import Planner, PlannerState, Problem, WorldModel
from goalward.planners.control import delay
from goalward.planners.control.conditioning import StateConditioned
from goalward.planners.control.monitor import Calibration, check_calibration, surprise_limit, surprise_of
from goalward.planners.control.observation import Observed, check_goals, position_indices, read_observation, steered_axes
from goalward.planners.control.state import ControllerConfig, ControllerState
from goalward.planners.methods.search import Clock
from goalward.planners.methods.warm_start import split_state, stack_states
from goalward.planners.objectives import LatentDistance, Objective, latent_distance

__all__ = ["ControllerConfig", "ControllerState", "Proposer", "RecedingHorizon"]

Proposer = Callable[[Tensor, Tensor, PlannerState, int], Tensor]
"""(z_BTND, z_goal_BGND, planner state, H) -> action sequences [B, P, H, A], physical units. Random numbers must depend on each problem's
own seed and step alone (`methods/noise.py` makes such generators), or a plan would depend on the batch it came in."""


class RecedingHorizon:
    """Plans, executes the first actions, and plans again; holds constants only.

    Args:
        model: See `base.WorldModel`.
        planner: See `registry.make_planner`.
        action_set: What may be done; the model's own bounds if not given.
        objective: What is wanted; the squared latent distance, averaged over the predicted frames, if not given.
        config: Horizon, trust in plans, budget, and what several goals mean.
        calibration: The model's typical errors and its success threshold; without them nothing surprises and success is never judged.
        proposer: Offers the planner action sequences to look at first, see `Proposer`.
        clock: The planner's clock, monotonic seconds.

    Raises:
        UserError: The parts do not fit one another, or a sequence of goals is asked for without a calibration.
    """

    def __init__(
        self,
        model: WorldModel,
        planner: Planner,
        *,
        action_set: ActionSet | None = None,
        objective: Objective | None = None,
        config: ControllerConfig | None = None,
        calibration: Calibration | None = None,
        proposer: Proposer | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.model = model
        self.planner = planner
        self.action_set: ActionSet = action_set or Box.of(model.action_low, model.action_high, device=model.device)
        self.objective = objective or Objective(terms=(LatentDistance(step_weights="uniform"),))
        self.config = config or ControllerConfig()
        self.calibration = calibration
        self.proposer = proposer
        self.clock = clock
        if calibration is not None:
            check_calibration(calibration)
        elif self.config.goal_mode == "sequence":
            raise UserError(
                "goal_mode: a sequence needs to know when a goal is reached, and the model is not calibrated; run goalward calibrate"
            )
        self._conditioned = isinstance(model, StateConditioned)
        if self._conditioned and self.config.max_delay_steps:
            raise UserError(
                f"max_delay_steps: {self.config.max_delay_steps}, and the model is told the robot's state, which says what acted; give 0"
            )
        num_actions = len(model.action_names)
        if self.action_set.low_A.shape != (num_actions,):
            raise UserError(
                f"action_set: bounds for {self.action_set.low_A.numel()} entries; the model has {', '.join(model.action_names)}"
            )
        limits = self.action_set.limits if isinstance(self.action_set, Intersection) else ()
        workspaces = [limit for limit in limits if isinstance(limit, Workspace)]
        # Whoever bounds fewer than three axes must name the displacements, or nobody could tell which they are.
        num_axes = len(workspaces[0].action_dims) if workspaces else 0
        self._position_axes = steered_axes(model.action_names)[:num_axes] if 0 < num_axes < 3 else tuple(range(num_axes))
        self._position_dims = list(workspaces[0].action_dims) if workspaces else []
        position_indices(model.proprio_names, self._position_axes)
        self._hold_A = hold_A(self.action_set).cpu().numpy().copy()

    def start(self, goal_pixels: Any, *, seed: int = 0) -> ControllerState:
        """Begins an episode.

        Args:
            goal_pixels: uint8 [V, h, w, 3], one frame per camera of the model; or several goals, [G, V, h, w, 3].
            seed: Of the planner's random numbers.

        Raises:
            UserError: A goal image does not fit the model.
        """
        return ControllerState(
            z_goal_GND=self._encode(check_goals(goal_pixels, self.model)),
            planner=PlannerState.initial([seed]),
            last_action_A=np.zeros_like(self._hold_A),
            delay=delay.begin(self._hold_A, self.config.max_delay_steps),
        )

    def new_goal(self, state: ControllerState, goal_pixels: Any) -> ControllerState:
        """Changes the goal, or goals, in mid-episode: the past stays known, the previous plan is dropped."""
        return _pursuing(replace(state, z_goal_GND=self._encode(check_goals(goal_pixels, self.model)), success=None), goal_index=0)

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
            read_observation(
                obs, self.model, position_axes=self._position_axes, default_time_s=state.num_acts * self.model.dt_s,
                needs_proprio=self._conditioned,
            )
            for state, obs in zip(states, observations, strict=True)
        ]  # fmt: skip
        states = self._look(states, seen)
        due = [b for b, state in enumerate(states) if state.hold_reason is None and self._is_due(state)]
        if due:
            for b, planned in self._plan({b: states[b] for b in due}, seen, begun_s).items():
                states[b] = planned
        actions_BA = np.stack([self._next_action(state, observed) for state, observed in zip(states, seen, strict=True)])
        plan_ms = (self.clock() - begun_s) * 1e3
        after = tuple(
            replace(
                state, next_action=state.next_action + 1, num_acts=state.num_acts + 1, plan_ms=plan_ms,
                last_action_A=action.copy(), delay=state.delay.after(action),
            )
            for state, action in zip(states, actions_BA, strict=True)
        )  # fmt: skip
        return actions_BA, after

    def _encode(self, frames: Sequence[NDArray[np.uint8]]) -> Tensor:
        with torch.no_grad():
            return self.model.encode(torch.from_numpy(np.stack(frames)))

    def _look(self, states: Sequence[ControllerState], seen: Sequence[Observed]) -> list[ControllerState]:
        """Puts the new frames into the rings, and notes what is wrong with the observations and what they say of plans and goals."""
        z_BND = self._encode([observed.pixels_Vhw3 for observed in seen])
        states = self._time(states, seen, z_BND)
        return [self._judge(state, observed, z_BND[b : b + 1]) for b, (state, observed) in enumerate(zip(states, seen, strict=True))]

    def _time(self, states: Sequence[ControllerState], seen: Sequence[Observed], z_BND: Tensor) -> list[ControllerState]:
        """Finds out how late commands act, where the newest frame follows the one before it; a new delay drops plans for the old one."""
        timed = list(states)
        rings = {b: s.z_1TND for b, s in enumerate(states) if s.z_1TND is not None and s.num_acts and not (s.missed or seen[b].fault)}
        if not self.config.max_delay_steps or not rings:
            return timed
        known = [states[b].delay for b in rings]
        errors = delay.prediction_errors(self.model, torch.cat(list(rings.values())), known, z_BND[list(rings)])
        for b, mine in zip(rings, errors, strict=True):
            judged = states[b].delay.judged(mine)
            timed[b] = replace(states[b], delay=judged)
            if judged.steps != states[b].delay.steps:
                timed[b] = replace(timed[b], plan=None, planner=states[b].planner.cold())
        return timed

    def _judge(self, state: ControllerState, observed: Observed, z_1ND: Tensor) -> ControllerState:
        energy = self._energy(state, z_1ND)
        # A frame whose latents are not finite would poison the ring for T steps; its energy is not finite either.
        finite = np.isfinite(energy)
        fault = observed.fault or (None if finite else "the latents of the frame or of the goal are not finite")
        ring, states = state.z_1TND, state.proprio_1TP
        if finite and not (self._conditioned and observed.fault):  # such a model's frames and states belong together
            ring = self._pushed(ring, z_1ND[:, None])
            if self._conditioned:
                states = self._pushed(states, torch.tensor(observed.proprio_P)[None, None])
        state = replace(
            state, z_1TND=ring, proprio_1TP=states, energy=energy, hold_reason=fault, missed=not finite, surprise=None, surprised=False
        )
        if fault is not None:
            return replace(state, plan=None, num_near=0, success=None if self.calibration is None else False)
        return self._detect(self._compare(state, z_1ND), z_1ND)

    def _pushed(self, ring: Tensor | None, newest: Tensor) -> Tensor:
        """The last T entries [1, T, ...] with a new one [1, 1, ...]; the first of all is repeated."""
        past = newest.expand(-1, self.model.context_frames, *newest.shape[2:]) if ring is None else ring
        return torch.cat([past[:, 1:], newest], dim=1)

    def _primed(self, states: Sequence[ControllerState], z_BTND: Tensor) -> Any:
        if isinstance(self.model, StateConditioned):
            return self.model.with_proprio(torch.cat([s.proprio_1TP for s in states if s.proprio_1TP is not None])).prime(z_BTND)
        return self.model.prime(z_BTND)

    def _energy(self, state: ControllerState, z_1ND: Tensor) -> float:
        return float(latent_distance(z_1ND, self._wanted_GND(state)).amin())

    def _wanted_GND(self, state: ControllerState) -> Tensor:
        """The goals that the next plan is for."""
        if self.config.goal_mode == "sequence":
            return state.z_goal_GND[state.goal_index : state.goal_index + 1]
        return state.z_goal_GND

    def _compare(self, state: ControllerState, z_1ND: Tensor) -> ControllerState:
        """Compares the world with what the plan in execution predicted."""
        plan = state.plan
        if self.calibration is None or plan is None or plan.stop_reason[0] == "failed":
            return state
        acted = state.next_action - state.delay.steps  # the others are on their way
        if acted > 0:
            surprise = surprise_of(self.calibration, plan, acted, z_1ND)
        elif state.delay.steps and state.delay.newest:  # what acted belonged to an earlier plan
            surprise = state.delay.newest[state.delay.steps] / self.calibration.typical_error_H[0]
        else:
            return state
        if surprise <= surprise_limit(self.calibration, max(acted, 1), self.config.surprise_threshold):
            return replace(state, surprise=surprise)
        # Something has happened that the model did not foresee: a plan made for another course of events is no better than none.
        return replace(state, surprise=surprise, surprised=True, plan=None, planner=state.planner.cold())

    def _detect(self, state: ControllerState, z_1ND: Tensor) -> ControllerState:
        """Counts the observations at the goal; at the goals of a sequence but the last, goes on to the next."""
        if self.calibration is None:
            return state
        num_near = state.num_near + 1 if state.energy <= self.calibration.success_energy else 0
        reached = num_near >= self.calibration.success_steps
        if reached and self.config.goal_mode == "sequence" and state.goal_index < state.num_goals - 1:
            state = _pursuing(state, goal_index=state.goal_index + 1)
            return replace(state, energy=self._energy(state, z_1ND), success=False)
        return replace(state, num_near=num_near, success=reached)

    def _is_due(self, state: ControllerState) -> bool:
        plan = state.plan
        return plan is None or plan.stop_reason[0] == "failed" or state.next_action >= self.config.execute_steps

    def _plan(self, due: Mapping[int, ControllerState], seen: Sequence[Observed], begun_s: float) -> dict[int, ControllerState]:
        """Plans for the arms that are due: in one batch, or in one for each number of goals, which then share the budget."""
        groups: dict[int, list[int]] = {}
        for b, state in due.items():
            groups.setdefault(len(self._wanted_GND(state)), []).append(b)
        planned: dict[int, ControllerState] = {}
        for turn, group in enumerate(groups.values(), start=1):
            budget_ms = self.config.budget_ms
            deadline_s = None if budget_ms is None else begun_s + budget_ms * 1e-3 * turn / len(groups)
            states = self._plan_batch([due[b] for b in group], [seen[b] for b in group], deadline_s)
            planned |= dict(zip(group, states, strict=True))
        return planned

    def _plan_batch(self, states: Sequence[ControllerState], seen: Sequence[Observed], deadline_s: float | None) -> list[ControllerState]:
        rings = [delay.rolled_forward(self.model, state.z_1TND, state.delay) for state in states if state.z_1TND is not None]
        z_BTND = torch.cat(rings)
        planner_state = stack_states([state.planner for state in states])
        z_goal_BGND = torch.stack([self._wanted_GND(state) for state in states])
        with torch.no_grad():
            context = self._primed(states, z_BTND)
            propose, horizon = self.proposer, self.config.horizon
            proposals_BPHA = None if propose is None else propose(z_BTND, z_goal_BGND, planner_state, horizon)
        problem = Problem(
            model=self.model,
            context=context,
            z_BTND=z_BTND,
            z_goal_BGND=z_goal_BGND,
            proposals_BPHA=proposals_BPHA,
            action_set=self.action_set,
            situation=self._situation(states, seen),
            objective=self.objective,
            horizon=self.config.horizon,
            dt_s=self.model.dt_s,
            start_time_s=tuple(observed.time_s for observed in seen),
        )
        plan, planner = self.planner.plan(problem, planner_state, deadline_s=deadline_s)
        parts = split_state(planner)
        planned = []
        for b, state in enumerate(states):
            mine = plan.problem(b)
            reason = None
            if mine.stop_reason[0] == "failed":
                reason = f"planning failed: none of the {int(mine.num_nonfinite_B)} candidates had a finite cost"
            planned.append(replace(state, plan=mine, planner=parts[b], next_action=0, hold_reason=reason))
        return planned

    def _situation(self, states: Sequence[ControllerState], seen: Sequence[Observed], *, late: bool = True) -> Situation:
        """The present; `late` moves the position on by the commands that are on their way."""
        device = self.action_set.low_A.device
        position_BE = None
        if self._position_axes:
            measured = np.array([observed.position_E for observed in seen], dtype=np.float64)
            if late:
                measured += np.stack([state.delay.on_their_way_KA[:, self._position_dims].sum(axis=0) for state in states])
            position_BE = torch.from_numpy(measured).to(device)
        last_action_BA = torch.from_numpy(np.stack([state.last_action_A for state in states])).to(device)
        return Situation(position_BE=position_BE, last_action_BA=last_action_BA)

    def _next_action(self, state: ControllerState, observed: Observed) -> NDArray[np.float32]:
        if state.hold_reason is not None or state.plan is None:
            return self._hold_A.copy()
        action_BSHA = state.plan.actions_BHA[:, None, state.next_action : state.next_action + 1]
        # Later actions of a plan were feasible from where the arm was expected to be; it is projected from where it is.
        action_BSHA = self.action_set.project(action_BSHA, self._situation([state], [observed]))
        if self._position_axes and state.delay.steps:  # nor beyond the workspace if the delay should be believed wrongly
            action_BSHA = self.action_set.project(action_BSHA, self._situation([state], [observed], late=False))
        action_A: NDArray[np.float32] = action_BSHA[0, 0, 0].cpu().numpy().astype(np.float32)
        return action_A


def _pursuing(state: ControllerState, *, goal_index: int) -> ControllerState:
    """Turns to a goal: the past stays known, the plan and the warm start for another goal do not."""
    return replace(state, goal_index=goal_index, planner=state.planner.cold(), plan=None, next_action=0, num_near=0)
