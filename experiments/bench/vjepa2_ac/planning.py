"""One planned action by the public planner and one by ours, with the same weights, the same situation and the same noise.

Letters: B = 1 problem, S candidates, H horizon steps, A = 7 action entries, of which the public planner draws 4.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from goalward.experiments.bench.vjepa2_ac.synthetic import Inputs
from goalward.planners.actions import Situation
from goalward.planners.base import PlannerState, Problem
from goalward.planners.methods.cem import CEM
from goalward.planners.vjepa2_ac import VJepa2ACPlanning
from goalward.wm.vjepa2_ac.predictor import VJepa2ACPredictor

_DRAWN = (0, 1, 2, 6)


def public_arguments(preset: VJepa2ACPlanning) -> dict[str, Any]:
    """The preset as arguments of the public `cem`."""
    return {
        "rollout": preset.horizon, "samples": preset.num_samples, "topk": preset.num_elites, "cem_steps": preset.num_iterations,
        "momentum_mean": preset.momentum, "momentum_std": preset.std_momentum, "momentum_mean_gripper": preset.gripper_momentum,
        "momentum_std_gripper": preset.gripper_std_momentum, "maxnorm": preset.max_step_m,
    }  # fmt: skip


@contextlib.contextmanager
def recorded(*, seed: int) -> Iterator[list[Tensor]]:
    """Keeps what `torch.randn` gives, from a generator of its own."""
    generator, drawn, original = torch.Generator().manual_seed(seed), list[Tensor](), torch.randn

    def randn(*shape: Any, **options: Any) -> Tensor:
        drawn.append(original(*shape, **(options | {"generator": generator})))
        return drawn[-1].clone()

    torch.randn = randn
    try:
        yield drawn
    finally:
        torch.randn = original


def their_action(planner: Any, window: Inputs) -> Tensor:
    """The public planner's action, [7], the first of its plan."""
    with torch.inference_mode():
        action: Tensor = planner.infer_next_action(window.z_BTND[:, :1], window.states_BTP[:, :1], window.z_goal_BND[:, None])
    return action[0].clone()


class GivenNoise(CEM):
    """Our CEM with noise that was drawn elsewhere."""

    def with_noise(self, drawn: list[Tensor], horizon: int) -> GivenNoise:
        """Takes the public planner's draws: for every iteration, one [S, 4] per step."""
        self._drawn_noise = [torch.stack(drawn[i : i + horizon], dim=1) for i in range(0, len(drawn), horizon)]
        return self

    def draw(self, sources: list[torch.Generator], shape_SHA: tuple[int, int, int], problem: Problem) -> Tensor:
        """The next of them."""
        noise_SHA = torch.zeros(shape_SHA)
        noise_SHA[..., list(_DRAWN)] = self._drawn_noise.pop(0)
        return noise_SHA[None]


@torch.no_grad()
def problem_of(predictor: VJepa2ACPredictor, window: Inputs, preset: VJepa2ACPlanning) -> Problem:
    """The planning problem; the model is the predictor itself, on given latents."""
    z_BTND, states = window.z_BTND[:, :1], window.states_BTP[:, :1]
    context = predictor.prime(z_BTND, states, window.actions_BTA[:, :0])
    return Problem(
        model=predictor,  # type: ignore[arg-type] # a search asks it for rollouts alone
        context=context, z_goal_BGND=window.z_goal_BND[:, None], action_set=preset.action_set(), situation=Situation(),
        objective=preset.objective(), horizon=preset.horizon, dt_s=0.25, start_time_s=(0.0,),
    )  # fmt: skip


def our_action(predictor: VJepa2ACPredictor, window: Inputs, preset: VJepa2ACPlanning, drawn: list[Tensor]) -> Tensor:
    """Our preset's action for the same noise, [7]."""
    planner = GivenNoise(preset.cem_config()).with_noise(drawn, preset.horizon)
    plan, _ = planner.plan(problem_of(predictor, window, preset), PlannerState.initial([0]))
    return preset.settled(plan.actions_BHA)[0, 0]
