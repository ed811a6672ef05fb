"""Planning with the true physics: the ceiling of an objective, and the judge of everything below it.

    candidates -> the simulator itself -> frames -> the frozen encoder -> the same objective and planner        (objective "latent")
    candidates -> the simulator itself -> true distance to the goal                                             (objective "state")

Both are privileged: they hold the environment. What "latent" cannot do, no world model with this encoder, objective and planner can be
asked to do; what "state" can do and "latent" cannot is lost in perception or in the objective.

Letters: B problems (always one here), S candidates, H horizon steps, T context frames, N tokens, D latent width, A action dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from goalward import UserError
from goalward.experiments.broken_dynamics import Persistence
from goalward.experiments.evaluation import EpisodeStart, Method, Policy
from goalward.experiments.planning import ControllerPolicy, action_set_for, latent_energies
from goalward.planners.objectives import LatentDistance, Objective, Outcome
from goalward.planners.objectives.base import StepWeights, weights_H

_FRAMES_PER_CALL = 64


class TrueDynamics:
    """A world model whose predictions are true: it asks the simulator. Everything else is the learned model's."""

    def __init__(self, model: Any, env: Any, *, last_only: bool = False) -> None:
        """Borrows both.

        Args:
            model: a learned world model; its encoder and its normalisation are used.
            env: the environment in which the episode runs, with a method `imagine`.
            last_only: predict the last frame of a plan alone, and NaN before it: for objectives that look at no other.
        """
        self._model, self._env, self._last_only = model, env, last_only
        self.calibration = None

    def __getattr__(self, name: str) -> Any:
        """Cameras, action bounds, normalisation, encoder: the learned model's."""
        return getattr(self._model, name)

    def prime(self, z_BTND: Tensor) -> Tensor:
        """The past does not matter: the simulator knows its state."""
        if z_BTND.shape[0] != 1:
            raise UserError(f"z_BTND: {z_BTND.shape[0]} problems; the true physics is that of one environment")
        return z_BTND

    def rollout(self, context: Tensor, actions_BSHA: Tensor) -> Tensor:
        """What would truly be seen, encoded; z_BSHND float32, without gradients."""
        if torch.is_grad_enabled() and actions_BSHA.requires_grad:
            raise UserError("planner: the simulator has no gradients; choose one that only samples: random, cem, icem, mppi, cma_es")
        S, H = actions_BSHA.shape[1:3]
        actions_SHA = actions_BSHA[0].detach().cpu().numpy()
        frames = np.concatenate([self._env.unwrapped.imagine(actions_HA, last_only=self._last_only) for actions_HA in actions_SHA])
        parts = [self._model.encode(torch.from_numpy(frames[i : i + _FRAMES_PER_CALL])) for i in range(0, len(frames), _FRAMES_PER_CALL)]
        z = torch.cat(parts)
        z_1SHND = z.reshape(1, S, -1, *z.shape[1:])
        unseen = z_1SHND.new_full((1, S, H - z_1SHND.shape[2], *z.shape[1:]), float("nan"))
        return torch.cat([unseen, z_1SHND], dim=2)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrueDistance:
    """The true distance to the goal along the way, in metres: an objective that nobody has on a real robot."""

    env: Any
    """The environment in which the episode runs."""
    step_weights: StepWeights = "uniform"
    """Which steps count, as in `LatentDistance`."""
    weight: float = 1.0
    """Factor in the sum of terms."""

    def cost(self, outcome: Outcome) -> Tensor:
        """Weighted mean distance [1, S]."""
        actions_SHA = outcome.actions_BSHA[0].detach().cpu().numpy()
        weights = np.array(weights_H(self.step_weights, actions_SHA.shape[1]))
        distances = [float(self.env.unwrapped.foresee(actions_HA) @ weights) for actions_HA in actions_SHA]
        return torch.tensor([distances], dtype=torch.float32, device=outcome.actions_BSHA.device)


def true_distance(env: Any, step_weights: StepWeights = "uniform") -> Objective:
    """The true distance as a planner's objective."""
    return Objective(terms=(TrueDistance(env=env, step_weights=step_weights),))


def oracle_dynamics_method(
    env: Any,
    model: Any,
    planner: str,
    config: Any,
    *,
    horizon: int | None = None,
    objective: Objective | None = None,
    execute_steps: int = 1,
    proposer: Any = None,
) -> Method:
    """Makes the method. Delays are not looked for: the simulator cannot be asked about the past.

    Args:
        env: the environment that the episodes will run in.
        model: as `goalward.load_model` returns it.
        planner: registered name of a planner that only samples.
        config: the planner's configuration.
        horizon: actions in a plan; None for the controller's default.
        objective: None: what the model's planner minimises; `true_distance(env)`; or any other.
        execute_steps: actions executed from each plan.
        proposer: offers action sequences to look at first, as it does to the planner that this one is compared with.
    """
    advice = getattr(model, "planning", None)
    if objective is None and advice is not None:
        objective = Objective(terms=(LatentDistance(step_weights=advice.step_weights),))
    options: dict[str, Any] = {"horizon": horizon, "objective": objective}
    options = {name: value for name, value in options.items() if value is not None}
    blind = objective is not None and all(isinstance(term, TrueDistance) for term in objective.terms)
    # Frames that nobody looks at need not be drawn.
    last_only = objective is not None and all(getattr(term, "step_weights", None) == "last" for term in objective.terms)
    judged = Persistence(model) if blind else TrueDynamics(model, env, last_only=last_only)

    def begin(start: EpisodeStart) -> Policy:
        from goalward.planners.control.controller import make_controller

        controller = make_controller(
            judged, start.goal_pixels, planner=planner, planner_config=config, action_set=action_set_for(model, start.info),
            seed=start.seed, execute_steps=execute_steps, max_delay_steps=0, proposer=proposer, **options,
        )  # fmt: skip
        return ControllerPolicy(controller)

    return Method(
        name=f"{planner}, true dynamics" + (" and distance" if blind else ""),
        role="privileged reference",
        begin=begin,
        timed=True,
        energies=lambda frames, goal: latent_energies(model, frames, goal),
    )
