"""The contract of a planner. Readable alone.

The problem solved, once per control step, for every problem b of a batch:

    min over a_1 .. a_H in the action set of   sum over terms i of  w_i cost_i(z_1 .. z_H, z_goal, a_1 .. a_H)
    subject to                                 z_1 .. z_H = model.rollout(context, a_1 .. a_H)

Letters in array names: B problems, S candidates, H horizon steps, T context frames, G goal images, V camera views, N tokens per frame (all
views together), D latent width, A action dimensions. Actions are float32 in physical units everywhere; latents and costs are float32.

What every planner promises:

* every candidate that is rolled out, and the plan returned, lies inside the action set;
* it is anytime: whenever it stops, the plan is the best feasible one seen so far; at least one iteration always runs;
* a candidate whose cost is not finite is excluded and counted, -inf included; a problem without any finite candidate gets a *failed*
  plan, whose actions are finite and hold still;
* its random numbers depend on the problem's own (seed, step) alone, so results do not depend on the batch a problem came in;
* its state is an immutable value: plan(problem, state) twice gives the same answer twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from goalward import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from goalward.planners.actions import ActionSet, Situation
    from goalward.planners.methods.knots import Knots
    from goalward.planners.objectives import Objective

StopReason = Literal["iterations", "converged", "deadline", "failed"]


class WorldModel(Protocol):
    """All that planning may know of a model."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the V views, in order."""

    @property
    def image_size_px(self) -> int:
        """Height and width of a frame."""

    @property
    def context_frames(self) -> int:
        """T, the number of observed frames the model looks back on."""

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the A action entries, e.g. `dx_m`."""

    @property
    def action_low(self) -> Tensor:
        """Smallest action, float32 [A], physical units."""

    @property
    def action_high(self) -> Tensor:
        """Largest action, float32 [A]."""

    @property
    def proprio_names(self) -> tuple[str, ...]:
        """Names of the proprioception entries, e.g. `ee_x_m`."""

    @property
    def dt_s(self) -> float:
        """Duration of one action in seconds."""

    @property
    def device(self) -> torch.device:
        """Where latents live."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Maps frames, uint8 [B, V, h, w, 3], to normalised latents z_BND, float32."""

    def prime(self, z_BTND: Tensor) -> Any:
        """Computes all that depends on the observed frames alone: a context, opaque to planners."""

    def rollout(self, context: Any, actions_BSHA: Tensor) -> Tensor:
        """Predicts z_BSHND, float32; differentiable in the actions when gradients are enabled."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Problem:
    """B planning problems of one model, action set, objective and horizon."""

    model: WorldModel
    """Predicts latents."""
    context: Any
    """`model.prime` of the observed frames of all B problems."""
    z_goal_BGND: Tensor
    """Latents of G goal images; what several of them mean is the objective's choice."""
    action_set: ActionSet
    """What may be done."""
    situation: Situation
    """What the action set needs to know about the present."""
    objective: Objective
    """What is wanted."""
    horizon: int
    """H, number of actions in a plan."""
    dt_s: float
    """Duration of one action in seconds."""
    start_time_s: tuple[float, ...]
    """When the first action of each of the B plans begins, seconds on the observations' clock."""
    knots: Knots | None = None  # None: every action is a variable of its own
    proposals_BPHA: Tensor | None = None  # actions to look at first, see methods/proposals.py
    z_BTND: Tensor | None = None  # what the context was primed with, for planners that predict from other states (grasp)

    def __post_init__(self) -> None:
        """Refuses problems that no planner could solve."""
        if self.horizon < 1:
            raise UserError(f"horizon: {self.horizon} is not allowed; give at least 1 step")
        if not 0.0 < self.dt_s < float("inf"):
            raise UserError(f"dt_s: {self.dt_s} is not allowed; give a positive number of seconds")
        if len(self.start_time_s) != self.num_problems or not self.num_problems:
            raise UserError(f"start_time_s: {len(self.start_time_s)} times for {self.num_problems} goals; give one each, at least one")

    @property
    def num_problems(self) -> int:
        """B."""
        return int(self.z_goal_BGND.shape[0])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Plan:
    """The best actions found for B problems, and how they were found."""

    actions_BHA: Tensor
    """Actions inside the action set, float32, physical units; holding still where the plan failed."""
    times_BH: Tensor
    """When each action begins, float64 seconds on the observations' clock."""
    z_BHND: Tensor
    """Latents predicted under these actions; NaN where the plan failed."""
    cost_B: Tensor
    """Cost of these actions, float32; +inf where the plan failed."""
    best_cost_BI: Tensor
    """Best cost seen up to each of I iterations, float32."""
    mean_cost_BI: Tensor
    """Mean cost of the iteration's finite candidates, float32; +inf where there was none."""
    num_iterations_B: Tensor
    """Iterations that counted, int64."""
    num_nonfinite_B: Tensor
    """Candidates excluded because their cost was not finite, int64."""
    failed_B: Tensor
    """True where no candidate had a finite cost."""
    stop_reason: tuple[StopReason, ...]
    """Why the search ended, for each problem."""
    plan_ms: float
    """Wall time of the call, for all problems together."""

    @property
    def num_iterations(self) -> int:
        """Iterations run for the problem that took the most."""
        return int(self.best_cost_BI.shape[1])

    def problem(self, index: int) -> Plan:
        """Cuts out the plan of one problem, as a batch of one."""
        cut: dict[str, Any] = {n: v[index : index + 1] for n in self.__slots__ if isinstance(v := getattr(self, n), Tensor)}
        return replace(self, **cut, stop_reason=(self.stop_reason[index],))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlannerState:
    """What a planner carries from one control step to the next, for B problems."""

    seeds: tuple[int, ...]
    """One seed per problem."""
    steps: tuple[int, ...]
    """How often each problem was planned; random numbers derive from (seed, step)."""
    actions_BHA: Tensor | None = None
    """Actions of the previous plans, or their knots, for the warm start."""
    others_BEHA: Tensor | None = None  # other good ones, the best first, where a planner keeps them
    start_time_s: tuple[float, ...] = ()
    """When those plans began; -inf says that a problem has none."""

    @classmethod
    def initial(cls, seeds: Sequence[int]) -> PlannerState:
        """Starts cold."""
        return cls(seeds=tuple(int(seed) for seed in seeds), steps=(0,) * len(seeds), start_time_s=(float("-inf"),) * len(seeds))

    def cold(self) -> PlannerState:
        """Forgets the previous plans, as a new goal demands; seeds and steps go on."""
        return replace(self, actions_BHA=None, others_BEHA=None, start_time_s=(float("-inf"),) * len(self.seeds))


class Planner(Protocol):
    """Searches action sequences."""

    def plan(self, problem: Problem, state: PlannerState, *, deadline_s: float | None = None) -> tuple[Plan, PlannerState]:
        """Plans by a deadline: a reading of the planner's monotonic clock, `time.perf_counter` unless another was given.

        The search stops before an iteration that, at the pace of the slowest one so far, would end after the deadline.
        """
