"""Small worlds whose optima are known, for the planner tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from goalward.planners.actions import ActionSet, Box, Situation
from goalward.planners.base import Problem
from goalward.planners.objectives import LatentDistance, Objective, Outcome

DT_S = 0.25


class LinearWorld:
    """z' = F z + G a with one token of width D; the context is the last observed frame. Records every action it is given."""

    def __init__(self, F_DD: Tensor, G_DA: Tensor, *, low: float = -1.0, high: float = 1.0) -> None:
        self.F_DD, self.G_DA = F_DD, G_DA
        self.dim, self.num_actions = G_DA.shape
        self.device = torch.device("cpu")
        self.action_names = tuple(f"a{i}" for i in range(self.num_actions))
        self.proprio_names: tuple[str, ...] = ("ee_x_m", "ee_y_m", "ee_z_m")
        self.cameras: tuple[str, ...] = ("front",)
        self.image_size_px, self.context_frames, self.dt_s = 8, 2, DT_S
        self.action_low = torch.full((self.num_actions,), low)
        self.action_high = torch.full((self.num_actions,), high)
        self.seen: list[Tensor] = []
        self.corrupt: Callable[[Tensor, Tensor], Tensor] = lambda z_BSHND, actions_BSHA: z_BSHND

    def encode(self, pixels: Tensor) -> Tensor:
        raise NotImplementedError

    def prime(self, z_BTND: Tensor) -> Tensor:
        return z_BTND[:, -1]

    def rollout(self, context: Tensor, actions_BSHA: Tensor) -> Tensor:
        self.seen.append(actions_BSHA.detach().clone())
        # Products by broadcasting, not by BLAS: bitwise the same in any batch.
        z_BSD = context[:, None, 0].expand(-1, actions_BSHA.shape[1], -1).to(actions_BSHA.dtype)
        frames = []
        for action_BSA in actions_BSHA.unbind(2):
            z_BSD = (z_BSD[..., None, :] * self.F_DD.to(z_BSD)).sum(-1) + (action_BSA[..., None, :] * self.G_DA.to(z_BSD)).sum(-1)
            frames.append(z_BSD)
        return self.corrupt(torch.stack(frames, dim=2).unsqueeze(3), actions_BSHA)


class PointWorld(LinearWorld):
    """A point that moves by its actions; its images have one colour, which is its position: 0..1 metre along red, green, blue."""

    def __init__(self, *, gain: float = 1.0, size: int = 8) -> None:
        super().__init__(torch.eye(3), torch.eye(3) * gain, low=-0.1, high=0.1)
        self.action_names = ("dx_m", "dy_m", "dz_m")
        self.image_size_px = size
        self.num_encoded = 0
        self.contexts: list[Tensor] = []

    def encode(self, pixels: Tensor) -> Tensor:
        assert pixels.dtype == torch.uint8
        assert pixels.ndim == 5
        self.num_encoded += 1
        return pixels[:, 0].float().mean(dim=(1, 2)).unsqueeze(1) / 255.0

    def prime(self, z_BTND: Tensor) -> Tensor:
        self.contexts.append(z_BTND.clone())
        return super().prime(z_BTND)

    def image(self, position_m: Sequence[float] | np.ndarray) -> np.ndarray:
        """uint8 [1, size, size, 3]; neighbouring pixels dither, so that the mean resolves about a millimetre."""
        wanted = np.asarray(position_m, dtype=np.float64) * 255.0
        size = self.image_size_px
        threshold = ((np.arange(size * size) + 0.5) / (size * size)).reshape(1, size, size, 1)
        return np.floor(wanted + threshold).clip(0, 255).astype(np.uint8)

    def observation(self, position_m: Sequence[float] | np.ndarray, time_s: float = 0.0) -> dict[str, Any]:
        return {"pixels": self.image(position_m), "proprio": np.asarray(position_m, dtype=np.float32), "time_s": np.float64(time_s)}


def random_world(seed: int, dim: int = 3, num_actions: int = 2) -> LinearWorld:
    rng = torch.Generator().manual_seed(seed)
    return LinearWorld(torch.eye(dim) + 0.2 * torch.randn(dim, dim, generator=rng), 0.5 * torch.randn(dim, num_actions, generator=rng))


def make_problem(
    world: LinearWorld,
    z0_BD: Tensor,
    goal_BD: Tensor,
    *,
    horizon: int = 4,
    action_set: ActionSet | None = None,
    objective: Any = None,
    situation: Situation | None = None,
    start_time_s: tuple[float, ...] | None = None,
) -> Problem:
    z_BTND = z0_BD[:, None, None].expand(-1, world.context_frames, -1, -1)
    return Problem(
        model=world,
        context=world.prime(z_BTND),
        z_BTND=z_BTND,
        z_goal_BGND=goal_BD[:, None, None],
        action_set=action_set or Box.of(world.action_low, world.action_high),
        situation=situation or Situation(),
        objective=objective or Objective(terms=(LatentDistance(),)),
        horizon=horizon,
        dt_s=DT_S,
        start_time_s=start_time_s or (0.0,) * len(goal_BD),
    )


def pick(problem: Problem, rows: list[int]) -> Problem:
    """Some of the problems of a batch."""
    assert problem.z_BTND is not None
    return replace(
        problem,
        context=problem.context[rows],
        z_goal_BGND=problem.z_goal_BGND[rows],
        z_BTND=problem.z_BTND[rows],
        start_time_s=tuple(problem.start_time_s[row] for row in rows),
    )


def outcome_of(problem: Problem, z_BSHND: Tensor, actions_BSHA: Tensor, unit_A: Tensor | None = None) -> Outcome:
    """What an objective is shown of these candidates."""
    unit_A = torch.ones(actions_BSHA.shape[-1]) if unit_A is None else unit_A
    goal = problem.z_goal_BGND.to(z_BSHND.dtype)
    return Outcome(z_BSHND=z_BSHND, z_goal_BGND=goal, actions_BSHA=actions_BSHA, unit_A=unit_A, situation=problem.situation)


class FakeClock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def direct_world(horizon: int, num_actions: int, *, low: float = -1.0, high: float = 1.0) -> LinearWorld:
    """A world whose latents do not matter, for objectives that look at the actions alone."""
    return LinearWorld(torch.eye(num_actions), torch.eye(num_actions), low=low, high=high)


@pytest.fixture(scope="session")
def worlds() -> SimpleNamespace:
    return SimpleNamespace(
        LinearWorld=LinearWorld,
        PointWorld=PointWorld,
        FakeClock=FakeClock,
        random_world=random_world,
        direct_world=direct_world,
        make_problem=make_problem,
        outcome=outcome_of,
        pick=pick,
        DT_S=DT_S,
    )
