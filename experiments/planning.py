"""The planning method of an evaluation: a world model, a planner and a controller, given pixels and nothing else of the environment's."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from goalward import UserError
from goalward.experiments.evaluation import Action, Detector, EpisodeFailed, EpisodeStart, Method, Observation, Policy
from goalward.experiments.results import Decision

if TYPE_CHECKING:
    from goalward.planners.actions import ActionSet
    from goalward.planners.control.controller import Controller


ADVISED = "advised"
"""Stands for what the model itself says in its `planning.json`."""


def chosen_planner(model: Any, planner: str | None, *, num_samples: int | None, num_iterations: int | None) -> tuple[str, Any]:
    """The planner that was asked for, with its defaults, or else the model's own choice; with the budget overridden where it is given.

    Raises:
        UserError: unknown planner, or a value it refuses.
    """
    from goalward.planners.control.advice import advised_planner

    default = None
    if planner is None:
        planner, default = advised_planner(getattr(model, "planning", None))
    return planner, planner_config(planner, num_samples=num_samples, num_iterations=num_iterations, default=default)


def planner_config(planner: str, *, num_samples: int | None, num_iterations: int | None, default: Any = None) -> Any:
    """A configuration of a registered planner (None: its default one), with the budget overridden where it is given.

    Raises:
        UserError: unknown planner, or a value it refuses.
    """
    from goalward.planners.registry import find_planner

    entry = find_planner(planner)
    default = entry.config() if default is None else default
    names = {field.name for field in dataclasses.fields(default)}
    changes: dict[str, int] = {}
    if num_samples is not None:
        changes["num_samples" if "num_samples" in names else "num_starts"] = num_samples
    if num_iterations is not None:
        changes["num_iterations"] = num_iterations
    if missing := sorted(changes.keys() - names):
        raise UserError(f"planner {planner!r} has no {', '.join(missing)}; its settings are {', '.join(sorted(names))}")
    elites = "num_elites" in names and num_samples is not None
    if elites and num_samples is not None and num_samples >= 1:  # a small budget shrinks the elites with it
        changes["num_elites"] = min(default.num_elites, max(1, num_samples // 4))
        changes["num_kept_elites"] = min(default.num_kept_elites, changes["num_elites"])
        if "num_refined" in names:
            changes["num_refined"] = min(default.num_refined, changes["num_elites"])
    return dataclasses.replace(default, **changes)


class ControllerPolicy:
    """A controller as a policy that can tell how its last action came about."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller

    def __call__(self, observation: Observation) -> Action:
        """Chooses an action.

        Raises:
            EpisodeFailed: the controller holds.
        """
        action = self.controller.act(observation)
        if self.controller.last_hold_reason is not None:  # a simulator's frames are sound: nothing here is transient
            raise EpisodeFailed(f"the planner could not act: {self.controller.last_hold_reason}")
        return action

    def last_decision(self) -> Decision:
        """How the last action came about."""
        state = self.controller.state
        assert state.plan is not None
        reused = state.reused
        return Decision(
            stop="reused" if reused else state.plan.stop_reason[0],
            iterations=0 if reused else state.plan.num_iterations,
            surprise=state.surprise,
            surprised=state.surprised,
            success=state.success,
        )


def action_set_for(model: Any, info: Any) -> ActionSet:
    """What may be done: the model's action bounds, inside the environment's workspace where actions displace the end effector.

    Args:
        model: as `goalward.load_model` returns it.
        info: `EnvInfo`.
    """
    from goalward.planners.actions import Box
    from goalward.planners.control.controller import bounded_by
    from goalward.planners.control.observation import steered_axes

    if not steered_axes(model.action_names):
        return Box.of(model.action_low, model.action_high, device=model.device)
    return bounded_by(model, info.workspace_low_m.tolist(), info.workspace_high_m.tolist())


def planner_method(
    model: Any,
    planner: str,
    config: Any,
    *,
    horizon: int | None = None,
    execute_steps: int | None = None,
    budget_ms: float | None = None,
    objective: Any = None,
    proposer: Any = ADVISED,
) -> Method:
    """Makes the method.

    A decision is timed from the observation to the action: encoding, priming and search.

    Args:
        model: as `goalward.load_model` returns it.
        planner: registered name.
        config: the planner's configuration.
        horizon: actions in a plan; None for the controller's default.
        execute_steps: actions executed from each plan at most; None for the controller's default.
        budget_ms: plan by a deadline, this long after the observation; None for the planner's full budget.
        objective: what is wanted; None for the controller's default.
        proposer: offers action sequences to look at first; None for none, `ADVISED` for what the model advises.
    """
    from goalward.policies.proposals import advised_proposer

    proposer = advised_proposer(model) if proposer is ADVISED else proposer
    given = {"horizon": horizon, "execute_steps": execute_steps, "budget_ms": budget_ms, "objective": objective, "proposer": proposer}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}

    def begin(start: EpisodeStart) -> Policy:
        from goalward.planners.control.controller import make_controller

        controller = make_controller(
            model, start.goal_pixels, planner=planner, planner_config=config, action_set=action_set_for(model, start.info),
            seed=start.seed, **options,
        )  # fmt: skip
        return ControllerPolicy(controller)

    def explain(policy: Policy) -> Decision:
        assert isinstance(policy, ControllerPolicy)
        return policy.last_decision()

    calibration = getattr(model, "calibration", None)
    return Method(
        name=planner,
        role="planner",
        begin=begin,
        timed=True,
        energies=lambda frames, goal: latent_energies(model, frames, goal),
        explain=explain,
        detector=None if calibration is None else Detector(energy=calibration.success_energy, steps=calibration.success_steps),
    )


def latent_energies(model: Any, frames_TVhw3: NDArray[np.uint8], goal_Vhw3: NDArray[np.uint8]) -> Sequence[float]:
    """Mean squared difference between the latents of frames and of a goal image; what planners minimise.

    Args:
        model: a world model.
        frames_TVhw3: uint8.
        goal_Vhw3: uint8.

    Returns:
        One number per frame.
    """
    import torch

    from goalward.planners.objectives import latent_distance

    z_TND = model.encode(torch.from_numpy(np.concatenate([frames_TVhw3, goal_Vhw3[None]])))
    return [float(e) for e in latent_distance(z_TND[:-1], z_TND[-1:].expand_as(z_TND[:-1]))]


def model_hashes(name_or_path: str, model: Any) -> dict[str, str]:
    """SHA-256 of the model's description (which pins its weights) and its calibration, of its encoder and of the data it was trained on."""
    from goalward.wm.checkpoint import CALIBRATION_JSON
    from goalward.wm.model import shipped_models

    folder = Path(name_or_path)
    if name_or_path in shipped_models():
        import goalward.wm

        folder = Path(goalward.wm.__path__[0]) / "weights" / name_or_path
    description = model.description
    calibration = folder / CALIBRATION_JSON
    planning = getattr(model, "planning", None)
    proposals = planning.proposals if planning is not None else ""
    proposed = {"proposals": hashlib.sha256((folder / proposals / "policy.json").read_bytes()).hexdigest()} if proposals else {}
    calibrated = {"calibration": hashlib.sha256(calibration.read_bytes()).hexdigest()} if calibration.exists() else {}
    return calibrated | proposed | {
        "model": hashlib.sha256((folder / "model.json").read_bytes()).hexdigest(),
        "encoder": description.encoder.fingerprint,
        "data": description.data_hash,
    }
