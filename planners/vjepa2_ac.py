"""The planner settings of V-JEPA 2-AC, in terms of our CEM.

Published: arXiv 2506.09985, section 4.2; `cem` in `notebooks/utils/mpc_utils.py` of the public repository; its callers' arguments. Each of
them plans for x, y, z and the gripper; rotation is never searched. What it says, and where it went:

    cem(...)                                        here
    samples, cem_steps, topk, rollout               num_samples, num_iterations, num_elites, horizon
    std = maxnorm, for the gripper 1                CEMConfig.init_std: 1, and 1 / 0.75 of half the range
    clip to +-maxnorm, the gripper to +-0.75        Box
    rotation fixed                                  frozen entries of the box
    momentum_mean, momentum_std, *_gripper          CEMConfig.momentum, std_momentum, one number per entry
    std over the elites, divided by their number-1  CEMConfig.unbiased
    no floor, no kept elites, the mean no candidate min_std 0, num_kept_elites 0, mean_competes False
    returns the mean of the last distribution       CEMConfig.return_mean
    |gripper| < 0.25 of what is returned becomes 0  `settled`; or, with `dead_zone_in_search`, of every candidate
    close_gripper = 0                               closed: the gripper's entry frozen at 1
    l1 of the last frame                            LatentDistance(metric="l1"), which divides by a constant

With the same noise and costs both return the same action (docs/benchmarks.md). `close_gripper` of a later step has no counterpart.

Letters: B problems, H horizon steps, A = 7 action entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.actions import Box, Gripper, Intersection, Situation
from goalward.planners.checks import require_count, require_number
from goalward.planners.methods.cem import CEMConfig
from goalward.planners.objectives import LatentDistance, Objective

_GRIPPER = 6
_LARGEST_GRIP = 0.75
_DEAD_ZONE = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class VJepa2ACPlanning:
    """How V-JEPA 2-AC plans; the defaults are those of the paper."""

    num_samples: int = 800
    """Candidates per iteration."""
    num_iterations: int = 10
    """Iterations."""
    num_elites: int = 10
    """Cheapest candidates that shape the next iteration."""
    horizon: int = 1
    """Actions in a plan."""
    max_step_m: float = 0.075
    """Largest displacement along each axis, metres; also the first spread."""
    momentum: float = 0.15
    """Share of the old mean in the new one, of x, y and z."""
    std_momentum: float = 0.15
    """The same of the spread."""
    gripper_momentum: float = 0.15
    """Share of the old mean in the new one, of the gripper."""
    gripper_std_momentum: float = 0.15
    """The same of the spread."""
    closed: bool = False
    """Keep commanding the gripper shut: whoever carries something knows so."""
    dead_zone_in_search: bool = False
    """Round small gripper commands to 0 in every candidate, not only in the result: what is predicted is then what is sent."""

    def __post_init__(self) -> None:
        """Checks what the search does not check."""
        require_count("horizon", self.horizon)
        require_number("max_step_m", self.max_step_m, low=0.0, high=1.0, open_low=True)
        self.cem_config()

    def cem_config(self) -> CEMConfig:
        """The settings of our CEM."""
        return CEMConfig(
            num_samples=self.num_samples, num_iterations=self.num_iterations, num_elites=self.num_elites,
            init_std=(1.0,) * _GRIPPER + (1.0 / _LARGEST_GRIP,), min_std=0.0,
            momentum=(self.momentum,) * _GRIPPER + (self.gripper_momentum,),
            std_momentum=(self.std_momentum,) * _GRIPPER + (self.gripper_std_momentum,),
            unbiased=True, mean_competes=False, num_kept_elites=0, return_mean=True,
        )  # fmt: skip

    def action_set(self, *, device: torch.device | str = "cpu") -> Intersection:
        """What is searched."""
        high = [self.max_step_m] * 3 + [0.0] * 3 + [_LARGEST_GRIP]
        box = Box.of([-bound for bound in high], high, device=device)
        box = box.frozen({_GRIPPER: 1.0}) if self.closed else box
        dead_zone = self.dead_zone_in_search and not self.closed
        return Intersection(box, shapes=(Gripper(_GRIPPER, dead_zone=_DEAD_ZONE),) if dead_zone else ())

    def objective(self) -> Objective:
        """What is wanted: the last predicted frame near the goal's."""
        return Objective(terms=(LatentDistance(metric="l1", step_weights="last"),))

    def settled(self, actions_BHA: Tensor) -> Tensor:
        """What is sent of a plan's actions: small gripper commands become 0."""
        if self.closed:
            return actions_BHA
        sent = Intersection(self.action_set(device=actions_BHA.device).box, shapes=(Gripper(_GRIPPER, dead_zone=_DEAD_ZONE),))
        return sent.project(actions_BHA[:, None], Situation())[:, 0]


VJEPA2_AC_PRESETS: Mapping[str, VJepa2ACPlanning] = MappingProxyType(
    {
        "paper": VJepa2ACPlanning(),
        "wrapper": VJepa2ACPlanning(num_samples=400, horizon=2, max_step_m=0.05),
        "notebook": VJepa2ACPlanning(num_samples=25, num_iterations=2, horizon=2, std_momentum=0.75),
    }
)
"""By where they stand: the paper (section 4.2), the defaults of `world_model_wrapper.py`, and `energy_landscape_example.ipynb`."""


def vjepa2_ac_planning(name: str) -> VJepa2ACPlanning:
    """Looks a preset up.

    Raises:
        UserError: No such preset.
    """
    if name not in VJEPA2_AC_PRESETS:
        raise UserError(f"preset: {name!r} is unknown; choose from {', '.join(VJEPA2_AC_PRESETS)}")
    return VJEPA2_AC_PRESETS[name]
