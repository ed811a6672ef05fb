"""The imitation method of an evaluation: a policy under the conditions of the planner: same observations, same action set, same rate.

    observe --> encode --> ring of the last T latents --> chunk --> project into the action set --> first actions --> observe ...

`PolicyController` is to a policy what `Controller` is to a planner: it repeats the first frame at a start, projects every action from where
the arm is measured to be, holds on any fault of the moment and says why.

Letters: B problems, P proposals, H horizon steps, T context frames, G goal images, V views, N tokens, D latent width, A action dimensions.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goalward import UserError
from goalward.experiments.evaluation import Action, EpisodeFailed, EpisodeStart, Method, Observation, Policy
from goalward.experiments.planning import action_set_for, latent_energies
from goalward.planners.actions import ActionSet, Box, Situation, hold_A
from goalward.planners.control.observation import check_frames, position_indices, read_observation, steered_axes
from goalward.policies.base import PolicyFault

if TYPE_CHECKING:
    from goalward.policies.policy import LatentPolicy


class PolicyController:
    """One arm's policy in closed loop.

    Args:
        policy: See `goalward.policies`.
        goal_pixels: uint8 [V, h, w, 3].
        action_set: What may be done; the policy's own bounds if not given.
        execute_steps: Actions executed from each chunk, at most its horizon.
        seed: Of the policy's random numbers.

    Raises:
        UserError: The goal image does not fit the policy, or a value is out of range.
    """

    def __init__(
        self, policy: LatentPolicy, goal_pixels: Any, *, action_set: ActionSet | None = None, execute_steps: int = 1, seed: int = 0
    ) -> None:
        if not 1 <= execute_steps <= policy.horizon:
            raise UserError(f"execute_steps is {execute_steps}; must lie in 1 .. {policy.horizon}, the actions in a chunk")
        model: Any = policy  # observations are checked against what policies and world models have in common
        self._policy, self._model, self._execute_steps = policy, model, execute_steps
        self._set: ActionSet = action_set or Box.of(policy.action_low, policy.action_high, device=policy.device)
        self._axes = () if isinstance(self._set, Box) else steered_axes(policy.action_names)
        position_indices(policy.proprio_names, self._axes)
        self._hold_A = hold_A(self._set).cpu().numpy().copy()
        self._generator = torch.Generator().manual_seed(seed)
        self._z_goal_1ND = policy.encode(torch.from_numpy(np.stack([check_frames("goal_pixels", goal_pixels, model)])))
        self._ring_1TND: Tensor | None = None
        self._chunk_HA: Tensor | None = None
        self._next = self._num_acts = 0
        self._last_action_A = np.zeros_like(self._hold_A)
        self.last_hold_reason: str | None = None
        self.last_act_ms = float("nan")

    def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        """Chooses the next action, float32 [A], physical units, inside the action set; holds if anything is wrong with the moment.

        Raises:
            UserError: The observation does not fit the policy.
        """
        begun_s = time.perf_counter()
        seen = read_observation(observation, self._model, position_axes=self._axes, default_time_s=self._num_acts * self._policy.dt_s)
        z_1ND = self._policy.encode(torch.from_numpy(np.stack([seen.pixels_Vhw3])))
        finite = bool(torch.isfinite(z_1ND).all())
        if finite:  # a frame whose latents are not would poison the ring for T steps
            past = z_1ND[:, None].expand(-1, self._policy.context_frames, -1, -1) if self._ring_1TND is None else self._ring_1TND
            self._ring_1TND = torch.cat([past[:, 1:], z_1ND[:, None]], dim=1)
        self.last_hold_reason = seen.fault or (None if finite else "the latents of the frame are not finite")
        action_A = self._hold_A.copy() if self.last_hold_reason is not None else self._chosen(observation, seen.position_E)
        if self.last_hold_reason is not None:
            self._chunk_HA = None
        self._num_acts += 1
        self._last_action_A = action_A.copy()
        self.last_act_ms = (time.perf_counter() - begun_s) * 1e3
        return action_A

    def _chosen(self, observation: Mapping[str, Any], position_E: tuple[float, ...] | None) -> NDArray[np.float32]:
        if self._chunk_HA is None or self._next >= self._execute_steps:
            assert self._ring_1TND is not None
            proprio_1P = torch.as_tensor(np.asarray(observation["proprio"]))[None] if self._policy.description.proprio else None
            try:
                chunk_1SHA = self._policy.chunk(self._ring_1TND, self._z_goal_1ND, proprio_BP=proprio_1P, generator=self._generator)
            except PolicyFault as fault:
                self.last_hold_reason = str(fault)
                return self._hold_A.copy()
            self._chunk_HA, self._next = chunk_1SHA[0, 0], 0
        device = self._set.low_A.device
        situation = Situation(
            position_BE=None if position_E is None else torch.tensor([position_E], dtype=torch.float64, device=device),
            last_action_BA=torch.from_numpy(self._last_action_A[None]).to(device),
        )
        wanted_A = self._chunk_HA[self._next].to(device)
        self._next += 1
        action_A: NDArray[np.float32] = self._set.project(wanted_A[None, None, None], situation)[0, 0, 0].cpu().numpy()
        return action_A.astype(np.float32)


class _EvaluatedPolicy:
    """A policy in evaluation: where it would hold, the episode ends as failed, as for planners."""

    def __init__(self, controller: PolicyController) -> None:
        self.controller = controller

    def __call__(self, observation: Observation) -> Action:
        action = self.controller.act(observation)
        if self.controller.last_hold_reason is not None:
            raise EpisodeFailed(f"the policy could not act: {self.controller.last_hold_reason}")
        return action


def policy_method(policy: LatentPolicy, *, execute_steps: int = 1, guidance: float | None = None, name: str | None = None) -> Method:
    """Makes the method.

    A decision is timed from the observation to the action: encoding, the network and the projection.

    Args:
        policy: as `goalward.policies.load_policy` returns it.
        execute_steps: actions executed from each chunk.
        guidance: weight of the goal, for policies that have one; None for the policy's own.
        name: shown in tables; None for the policy's kind.

    Raises:
        UserError: a guidance for a policy that has none, or execute_steps beyond the chunk.
    """
    acting = policy if guidance is None else policy.adjusted(guidance=guidance)
    if not 1 <= execute_steps <= policy.horizon:
        raise UserError(f"execute_steps is {execute_steps}; must lie in 1 .. {policy.horizon}, the actions in a chunk")

    def begin(start: EpisodeStart) -> Policy:
        actions = action_set_for(acting, start.info)
        return _EvaluatedPolicy(
            PolicyController(acting, start.goal_pixels, action_set=actions, execute_steps=execute_steps, seed=start.seed)
        )

    return Method(
        name=name or policy.kind,
        role="imitation",
        begin=begin,
        timed=True,
        energies=lambda frames, goal: latent_energies(acting, frames, goal),
    )
