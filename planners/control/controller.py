"""The controller of one arm: `make_controller(model, goal_pixels)`, then `controller.act(observation)` at every control step.

The decisions are made by `receding_horizon.RecedingHorizon`, a pure function of state and observation; `Controller` keeps the state.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goalward import UserError
from goalward.planners.actions import ActionSet, Box, Intersection, Workspace
from goalward.planners.base import Plan, Planner, WorldModel
from goalward.planners.control.advice import Advice, advised_planner
from goalward.planners.control.conditioning import StateConditioned
from goalward.planners.control.monitor import Calibration
from goalward.planners.control.observation import displacement_dims, steered_axes
from goalward.planners.control.receding_horizon import Proposer, RecedingHorizon
from goalward.planners.control.state import ControllerConfig, GoalMode
from goalward.planners.methods.search import Clock
from goalward.planners.objectives import LatentDistance, Objective
from goalward.planners.registry import make_planner


class Controller:
    """One arm's controller, with a state of its own.

    Args:
        policy: What decides.
        goal_pixels: uint8 [V, h, w, 3], or several goals, [G, V, h, w, 3].
        seed: Of the planner's random numbers.
    """

    def __init__(self, policy: RecedingHorizon, goal_pixels: Any, *, seed: int = 0) -> None:
        self.policy = policy
        self.state = policy.start(goal_pixels, seed=seed)

    def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        """Chooses the next action, float32 [A], physical units, inside the action set; holds if anything is wrong with the moment.

        Raises:
            UserError: The observation does not fit the model.
        """
        action_A, self.state = self.policy.act(self.state, observation)
        return action_A

    def reset(self, goal_pixels: Any, *, seed: int = 0) -> None:
        """Begins another episode: nothing of the past is kept."""
        self.state = self.policy.start(goal_pixels, seed=seed)

    def set_goal(self, goal_pixels: Any) -> None:
        """Changes the goal, or goals, in mid-episode; the previous plan is dropped."""
        self.state = self.policy.new_goal(self.state, goal_pixels)

    @property
    def last_plan(self) -> Plan | None:
        """The plan in execution; None before the first, and after a fault of the observation."""
        return self.state.plan

    @property
    def last_plan_ms(self) -> float:
        """Wall time of the last `act`: encoding, priming and planning."""
        return self.state.plan_ms

    @property
    def last_hold_reason(self) -> str | None:
        """Why the last action was to hold; None if it was planned."""
        return self.state.hold_reason

    @property
    def last_energy(self) -> float:
        """Distance of the last observation's latents from the goal's (the nearest goal's): mean squared difference."""
        return self.state.energy

    @property
    def last_surprise(self) -> float | None:
        """How far the last observation was from what the plan predicted, in units of the model's typical error.

        None if the model is not calibrated, and where there was no prediction to compare with: at the start, after a fault, after a new
        goal.
        """
        return self.state.surprise

    @property
    def last_success(self) -> bool | None:
        """Whether the goal (the last of a sequence) is reached, judged by latents alone; None if the model is not calibrated."""
        return self.state.success

    @property
    def last_delay_steps(self) -> int:
        """By how many steps commands are believed to act late, see `delay.py`; 0 until something else is seen."""
        return self.state.delay.steps

    @property
    def goal_index(self) -> int:
        """Which goal of a sequence is pursued, from 0."""
        return self.state.goal_index


def bounded_by(model: WorldModel, low_m: Sequence[float], high_m: Sequence[float]) -> Intersection:
    """The model's own action bounds inside a workspace, on the axes that its actions steer.

    Args:
        model: A world model.
        low_m: Lower corner [3], metres.
        high_m: Upper corner [3].

    Raises:
        UserError: No action displaces the end effector, or a corner is out of order.
    """
    dims, axes = displacement_dims(model.action_names), steered_axes(model.action_names)
    if len(low_m) != 3 or len(high_m) != 3:
        raise UserError(f"workspace: corners of {len(low_m)} and {len(high_m)} numbers; give x, y and z of the lower and the upper corner")
    low, high = ([float(corner[axis]) for axis in axes] for corner in (low_m, high_m))
    box = Box.of(model.action_low, model.action_high, device=model.device)
    return Intersection(box, (Workspace.of(low, high, action_dims=dims, device=model.device),))


def make_controller(
    model: WorldModel,
    goal_pixels: Any,
    *,
    planner: str | Planner | None = None,
    planner_config: Any = None,
    workspace: tuple[Sequence[float], Sequence[float]] | None = None,
    action_set: ActionSet | None = None,
    objective: Objective | None = None,
    horizon: int | None = None,
    execute_steps: int = 1,
    budget_ms: float | None = None,
    surprise_threshold: float | None = None,
    goal_mode: GoalMode = "any",
    max_delay_steps: int | None = None,
    calibration: Calibration | None = None,
    proposer: Proposer | None = None,
    seed: int = 0,
    clock: Clock = time.perf_counter,
) -> Controller:
    """Makes a receding-horizon controller for a goal image.

    Args:
        model: A world model, such as `goalward.load_model("reach")`.
        goal_pixels: uint8 [V, h, w, 3], one frame per camera of the model; or several goals, [G, V, h, w, 3], see `goal_mode`.
        planner: Registered name, or a planner; None for the model's own choice (`model.planning`, see `Advice`), or else `cem`.
        planner_config: The named planner's configuration; None for its defaults.
        workspace: Lower and upper corner [3] of the box the end effector must not leave, metres, in the frame of the proprio entries
            `ee_x_m`, `ee_y_m`, `ee_z_m`; axes along which no action displaces it do not count.
        action_set: What may be done, instead of the model's bounds and the workspace.
        objective: What is wanted; None for the squared latent distance, over the predicted frames that the model's own choice counts, or
            else averaged over all (the last frame alone does not care when the arm arrives, and reached 80 % of 25 validation goals
            instead of all).
        horizon: Actions in a plan; None for the model's own choice, or else 3.
        execute_steps: Actions executed from each plan at most; with a calibrated model, a surprise ends a plan before.
        budget_ms: Plan by a deadline, this long after the observation; None for the planner's full budget.
        surprise_threshold: Surprise above which a plan and its warm start are dropped at once; None for the calibration's own.
        goal_mode: `any`: reach whichever goal is nearest; `sequence`: one after the other, each until it is detected.
        max_delay_steps: Commands may act by so many steps late: how many is found out from what is seen (`delay.py`), and planned for;
            0: never late; None for 2, and for 0 where the model predicts from the robot's state too.
        calibration: Typical errors and success threshold; None for the model's own (`model.calibration`), if it has one.
        proposer: Offers the planner action sequences to look at first, for instance an imitation policy's.
        seed: Of the planner's random numbers.
        clock: Monotonic seconds.

    Raises:
        UserError: The goal image does not fit the model, the planner is unknown, or a value is out of range.
    """
    advice: Advice | None = getattr(model, "planning", None)
    if planner is None:
        planner, planner_config = advised_planner(advice, planner_config)
    if objective is None and advice is not None:
        objective = Objective(terms=(LatentDistance(step_weights=advice.step_weights),))
    if horizon is None:
        horizon = ControllerConfig().horizon if advice is None else advice.horizon
    if max_delay_steps is None:
        max_delay_steps = 0 if isinstance(model, StateConditioned) else ControllerConfig().max_delay_steps
    config = ControllerConfig(
        horizon=horizon, execute_steps=execute_steps, budget_ms=budget_ms, surprise_threshold=surprise_threshold, goal_mode=goal_mode,
        max_delay_steps=max_delay_steps,
    )  # fmt: skip
    if isinstance(planner, str):
        planner = make_planner(planner, planner_config, clock=clock)
    elif planner_config is not None:
        raise UserError("planner_config: given together with a planner that is made already; give the planner's name instead")
    if workspace is not None:
        if action_set is not None:
            raise UserError("workspace: given together with action_set; put a Workspace into the action set, or give the workspace alone")
        action_set = bounded_by(model, *workspace)
    if calibration is None:
        calibration = getattr(model, "calibration", None)
    policy = RecedingHorizon(
        model, planner, action_set=action_set, objective=objective, config=config, calibration=calibration, proposer=proposer, clock=clock
    )
    return Controller(policy, goal_pixels, seed=seed)
