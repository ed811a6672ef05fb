"""The planning method of an evaluation: a world model, a planner and a controller, given pixels and nothing else of the environment's."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goalward import UserError
from goalward.experiments.evaluation import Action, EpisodeFailed, EpisodeStart, Method, Observation, Policy


def planner_config(planner: str, *, num_samples: int | None, num_iterations: int | None) -> Any:
    """The configuration of a registered planner, with the budget overridden where it is given.

    Raises:
        UserError: unknown planner, or a value it refuses.
    """
    from goalward.planners.registry import find_planner

    default = find_planner(planner).config()
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


def planner_method(model: Any, planner: str, config: Any, *, horizon: int | None = None) -> Method:
    """Makes the method.

    A decision is timed from the observation to the action: encoding, priming and search.

    Args:
        model: as `goalward.load_model` returns it.
        planner: registered name.
        config: the planner's configuration.
        horizon: actions in a plan; None for the controller's default.
    """

    def begin(start: EpisodeStart) -> Policy:
        from goalward.planners.control.controller import make_controller

        info = start.info
        options: dict[str, Any] = {} if horizon is None else {"horizon": horizon}
        workspace = (info.workspace_low_m.tolist(), info.workspace_high_m.tolist())
        controller = make_controller(
            model, start.goal_pixels, planner=planner, planner_config=config, workspace=workspace, seed=start.seed, **options
        )

        def act(observation: Observation) -> Action:
            action = controller.act(observation)
            if controller.last_hold_reason is not None:  # a simulator's frames are sound: nothing here is transient
                raise EpisodeFailed(f"the planner could not act: {controller.last_hold_reason}")
            return action

        return act

    return Method(name=planner, role="planner", begin=begin, timed=True, energies=lambda frames, goal: latent_energies(model, frames, goal))


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
    """SHA-256 of the model's description (which pins its weights), of its encoder and of the data it was trained on."""
    from goalward.wm.model import shipped_models

    folder = Path(name_or_path)
    if name_or_path in shipped_models():
        import goalward.wm

        folder = Path(goalward.wm.__path__[0]) / "weights" / name_or_path
    description = model.description
    return {
        "model": hashlib.sha256((folder / "model.json").read_bytes()).hexdigest(),
        "encoder": description.encoder.fingerprint,
        "data": description.data_hash,
    }
