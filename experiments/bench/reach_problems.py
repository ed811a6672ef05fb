"""Planning problems as an arm meets them: observations on the way to validation goals, encoded by the shipped model.

Letters: B problems, T context frames, N tokens, D latent width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from goalward.experiments.planning import action_set_for
from goalward.planners.actions import ActionSet, Situation
from goalward.planners.base import Problem
from goalward.planners.control.observation import position_indices, steered_axes
from goalward.planners.objectives import LatentDistance, Objective


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Snapshot:
    """One moment of an episode, and its goal."""

    z_TND: Tensor
    """Latents of the last frames."""
    z_goal_ND: Tensor
    """Latents of the goal image."""
    position_E: tuple[float, ...]
    """Measured end-effector position, metres."""
    distance_m: float
    """True distance to the goal; for tables, never for planners."""


def snapshots(env_name: str, model: Any, *, num_goals: int, oracle_steps: tuple[int, ...] = (0, 2, 4), seed: int = 0) -> list[Snapshot]:
    """Walks toward validation goals with the environment's oracle, and stops to look after some steps.

    Args:
        env_name: Registered environment.
        model: As `goalward.load_model` returns it.
        num_goals: Goals 0 .. num_goals - 1.
        oracle_steps: After how many steps to look.
        seed: Of the environment; goal k has seed + k.
    """
    from goalward.envs.registry import make_env

    env = make_env(env_name, cameras=model.cameras, image_size_px=model.image_size_px)
    taken = []
    try:
        position = position_indices(model.proprio_names, steered_axes(model.action_names))
        for goal in range(num_goals):
            observation, info = env.reset(seed=seed + goal, options={"goal_index": goal, "split": "validation"})
            z_goal_ND = model.encode(torch.from_numpy(np.array(info["goal_pixels"]))[None])[0]
            ring: list[Tensor] = []
            for step in range(max(oracle_steps) + 1):
                z_ND = model.encode(torch.from_numpy(np.array(observation["pixels"]))[None])[0]
                ring = [*(ring or [z_ND] * model.context_frames), z_ND][-model.context_frames :]
                if step in oracle_steps:
                    where = tuple(float(observation["proprio"][index]) for index in position)
                    distance_m = float(info["distance_m"])
                    taken.append(Snapshot(z_TND=torch.stack(ring), z_goal_ND=z_goal_ND, position_E=where, distance_m=distance_m))
                observation, _, terminated, truncated, info = env.step(env.unwrapped.oracle_action())  # type: ignore[attr-defined]
                if terminated or truncated:
                    break
    finally:
        env.close()
    return taken


def action_set_of(env_name: str, model: Any) -> ActionSet:
    """The model's action bounds inside the environment's workspace, as the controller makes them."""
    from goalward.envs.registry import make_env

    env = make_env(env_name)
    info = env.unwrapped.spec_info  # type: ignore[attr-defined]
    env.close()
    return action_set_for(model, info)


def problem_of(model: Any, action_set: ActionSet, moments: list[Snapshot], *, horizon: int, objective: Objective | None = None) -> Problem:
    """The problem batch of some moments, as the controller would pose it."""
    z_BTND = torch.stack([moment.z_TND for moment in moments])
    return Problem(
        model=model,
        context=model.prime(z_BTND),
        z_BTND=z_BTND,
        z_goal_BGND=torch.stack([moment.z_goal_ND for moment in moments])[:, None],
        action_set=action_set,
        situation=Situation(
            position_BE=torch.tensor([moment.position_E for moment in moments], dtype=torch.float64, device=model.device),
            last_action_BA=torch.zeros(len(moments), len(model.action_names), device=model.device),
        ),
        objective=objective or Objective(terms=(LatentDistance(step_weights="uniform"),)),
        horizon=horizon,
        dt_s=model.dt_s,
        start_time_s=(0.0,) * len(moments),
    )
