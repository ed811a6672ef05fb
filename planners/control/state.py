"""What the controller is told once, and what it remembers of one arm between two control steps. All values, never changed in place.

Letters: T context frames, N tokens, D latent width, G goal images, A action dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from goalward import UserError
from goalward.planners.base import Plan, PlannerState
from goalward.planners.checks import require_count, require_number
from goalward.planners.control.delay import Delay

GoalMode = Literal["any", "sequence"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ControllerConfig:
    """How far to look ahead, how long to trust a plan, and how long to think."""

    horizon: int = 3
    """Actions in a plan."""
    execute_steps: int = 1
    """At most so many actions are executed from each plan before planning again; fewer when the world surprises (needs a calibration)."""
    budget_ms: float | None = None
    """Plan by a deadline, this long after the observation is handed over; encoding included. None: the planner's full budget."""
    surprise_threshold: float | None = None
    """Surprise above which the plan and its warm start are dropped at once; None: what the calibration says for each step."""
    goal_mode: GoalMode = "any"
    """What several goal images mean: reach any of them, or one after the other."""
    max_delay_steps: int = 2
    """Find out by how many steps, up to this many, commands act late, and plan from where the ones on their way lead; 0: never late."""

    def __post_init__(self) -> None:
        """Checks every field."""
        require_count("horizon", self.horizon)
        require_count("execute_steps", self.execute_steps, high=self.horizon, why="no more than the horizon")
        if self.budget_ms is not None:
            require_number("budget_ms", self.budget_ms, low=0.0, open_low=True)
        if self.surprise_threshold is not None:
            require_number("surprise_threshold", self.surprise_threshold, low=0.0)
        require_count("max_delay_steps", self.max_delay_steps, low=0, high=16)
        if self.goal_mode not in ("any", "sequence"):
            raise UserError(f"goal_mode: {self.goal_mode!r} is unknown; choose any or sequence")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ControllerState:
    """Everything the controller remembers of one arm."""

    z_goal_GND: Tensor
    """Latents of the goal images."""
    planner: PlannerState
    """Warm start, seed and step."""
    last_action_A: NDArray[np.float32]
    """The action returned last; zeros at the start."""
    delay: Delay
    """The commands before it, and how late they act."""
    z_1TND: Tensor | None = None
    """Latents of the last T frames; the first frame repeated until there are enough."""
    proprio_1TP: Tensor | None = None
    """The robot's states in these frames, float32, for a model that predicts from them too."""
    plan: Plan | None = None
    """The plan in execution; None after a fault."""
    next_action: int = 0
    """Which of its actions comes next; as many were executed."""
    num_acts: int = 0
    """Actions returned so far."""
    hold_reason: str | None = None
    """Why the last action was to hold; None if it was planned."""
    missed: bool = False
    """Whether the last observation's frame did not enter the ring."""
    energy: float = float("nan")
    """Distance of the observed latents from the goal's (from the nearest, if any of several will do): mean squared difference."""
    plan_ms: float = float("nan")
    """Wall time of the last call, encoding and priming included; of all arms together if several were served."""
    goal_index: int = 0
    """Which goal of a sequence is pursued."""
    num_near: int = 0
    """Observations running, up to the last, at which the goal was detected."""
    success: bool | None = None
    """Whether the goal (the last of a sequence) is reached, as far as latents tell; None without a calibration or before looking."""
    surprise: float | None = None
    """Surprise at the last observation, see `monitor`; None without a calibration, and where no prediction was to be checked."""
    surprised: bool = False
    """Whether it was too much, so that the plan and its warm start were dropped."""

    @property
    def num_goals(self) -> int:
        """G."""
        return int(self.z_goal_GND.shape[0])

    @property
    def reused(self) -> bool:
        """Whether the last action came from an earlier plan."""
        return self.plan is not None and self.hold_reason is None and self.next_action > 1
