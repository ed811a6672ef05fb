"""The controller in a closed loop with a world whose images are its state, and its behaviour when something is wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import goalward
from goalward import UserError
from goalward.planners.actions import Box, Intersection, RateLimit
from goalward.planners.control.controller import make_controller
from goalward.planners.control.receding_horizon import ControllerConfig, RecedingHorizon
from goalward.planners.methods.adam import AdamConfig
from goalward.planners.methods.cem import CEM, CEMConfig
from goalward.planners.objectives import LatentDistance, Objective

START, GOAL = np.array([0.2, 0.7, 0.5]), np.array([0.55, 0.4, 0.45])
QUICK: dict[str, Any] = {
    "cem": CEMConfig(num_samples=64, num_iterations=5, num_elites=10),
    "adam": AdamConfig(num_starts=4, num_iterations=12),
}
PATH = Objective(terms=(LatentDistance(step_weights="uniform"),))


def controller_of(world, goal=GOAL, planner: str = "cem", **options: Any):
    # Many arms here do not obey, or what the model is asked is counted; test_delay.py lets the controller look for delays.
    options = {"objective": PATH, "planner_config": QUICK.get(planner), "max_delay_steps": 0, **options}
    return make_controller(world, world.image(goal), planner=planner, **{"horizon": 4, **options})


def drive(world, controller, start=START, steps: int = 12) -> np.ndarray:
    positions = [np.array(start, dtype=np.float64)]
    for step in range(steps):
        action = controller.act(world.observation(positions[-1], step * world.dt_s))
        positions.append(positions[-1] + action)
    return np.array(positions)


@pytest.mark.parametrize("planner", sorted(QUICK))
def test_the_goal_is_reached_from_images(planner: str, worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, planner=planner)
    positions = drive(world, controller)
    assert np.linalg.norm(positions[-1] - GOAL) < 0.01
    assert controller.last_hold_reason is None
    assert controller.last_energy < 1e-4
    plan = controller.last_plan
    assert plan is not None
    assert plan.times_BH[0, 0] == pytest.approx(11 * 0.25)
    assert plan.best_cost_BI.shape == (1, QUICK[planner].num_iterations)
    assert controller.last_plan_ms >= plan.plan_ms > 0


def test_actions_are_float32_arrays_inside_the_limits(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, goal=[0.9, 0.1, 0.9])
    action = controller.act(world.observation(START))
    assert (action.dtype, action.shape) == (np.float32, (3,))
    assert np.abs(action).max() <= np.float32(0.1)
    again = controller.act(world.observation(START))
    action[:] = 99.0
    assert np.abs(again).max() <= np.float32(0.1), "what the user does to an action does not come back"
    assert np.abs(controller.state.last_action_A).max() <= np.float32(0.1)


def test_the_workspace_is_never_left(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    low, high = np.array([0.1, 0.45, 0.3]), np.array([0.4, 0.8, 0.7])
    controller = controller_of(world, workspace=(low.tolist(), high.tolist()))
    positions = drive(world, controller)
    assert (positions >= low).all()
    assert (positions <= high).all()
    assert np.linalg.norm(positions[-1] - GOAL.clip(low, high)) < 0.01, "it ends at the wall, nearest to the goal"


def test_the_workspace_finds_its_entries_by_name(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    world.proprio_names = ("joint", "ee_z_m", "ee_x_m", "ee_y_m")
    controller = controller_of(world, goal=[0.9, 0.9, 0.9], workspace=([0.0, 0.0, 0.0], [0.21, 1.0, 1.0]))
    observation = world.observation(START)
    observation["proprio"] = np.array([np.float32(9.0), START[2], START[0], START[1]], dtype=np.float32)
    action = controller.act(observation)
    assert START[0] + action[0] <= 0.21
    assert action[1] > 0.05


def test_the_same_seed_gives_the_same_episode(worlds: SimpleNamespace) -> None:
    runs = []
    for seed in (3, 3, 4):
        world = worlds.PointWorld()
        runs.append(drive(world, controller_of(world, seed=seed), steps=5))
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_several_arms_in_one_call_act_as_each_would_alone(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    policy = RecedingHorizon(world, CEM(QUICK["cem"]), objective=PATH, config=ControllerConfig(execute_steps=2))
    starts, goals = [START, GOAL, np.array([0.5, 0.5, 0.5])], [GOAL, START, np.array([0.3, 0.6, 0.5])]

    def lone(b: int, late: int) -> list[np.ndarray]:
        state, position, actions = policy.start(world.image(goals[b]), seed=b), starts[b].copy(), []
        for step in range(6 - late):
            action, state = policy.act(state, world.observation(position, step * world.dt_s))
            position = position + action
            actions.append(action)
        return actions

    states = [policy.start(world.image(goal), seed=b) for b, goal in enumerate(goals)]
    positions, together = [start.copy() for start in starts], [[], [], []]
    for step in range(6):
        # The third joins one step later: the arms then plan at different steps.
        present = [0, 1] if step == 0 else [0, 1, 2]
        observations = [world.observation(positions[b], (step - (b == 2)) * world.dt_s) for b in present]
        actions, after = policy.act_batch([states[b] for b in present], observations)
        for row, b in enumerate(present):
            states[b] = after[row]
            positions[b] = positions[b] + actions[row]
            together[b].append(actions[row])
    for b in range(3):
        assert np.array_equal(np.array(together[b]), np.array(lone(b, late=int(b == 2))))


def test_acting_is_a_pure_function_of_state_and_observation(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    policy = RecedingHorizon(world, CEM(QUICK["cem"]), objective=PATH)
    state = policy.start(world.image(GOAL), seed=1)
    first, after = policy.act(state, world.observation(START))
    second, _ = policy.act(state, world.observation(START))
    assert np.array_equal(first, second)
    assert state.z_1TND is None
    assert (state.num_acts, after.num_acts) == (0, 1)


def test_the_ring_repeats_the_first_frame_and_then_holds_the_last_ones(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world)
    for step, red in enumerate((0.2, 0.4, 0.6)):
        controller.act(world.observation([red, 0.5, 0.5], step * world.dt_s))
    seen = [context[0, :, 0, 0].tolist() for context in world.contexts]
    assert seen == [pytest.approx(pair, abs=0.003) for pair in ([0.2, 0.2], [0.2, 0.4], [0.4, 0.6])]
    assert world.num_encoded == 4, "the goal once, each observation once"


def test_plans_are_reused_for_the_steps_asked_for(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, execute_steps=3)
    plans, actions = [], []
    for step in range(6):
        actions.append(controller.act(world.observation(START, step * world.dt_s)))
        plans.append(controller.last_plan)
    assert plans[0] is plans[1] is plans[2]
    assert plans[3] is not plans[2]
    assert plans[3] is plans[5]
    assert np.array_equal(np.array(actions[:3]), plans[0].actions_BHA[0, :3].numpy())
    assert len(world.contexts) == 2


def test_a_reused_action_still_respects_the_workspace_from_where_the_arm_is(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, goal=[0.9, 0.7, 0.5], execute_steps=4, workspace=([0.0] * 3, [0.6, 1.0, 1.0]))
    controller.act(world.observation(START, 0.0))
    # Pushed ahead by something else.
    pushed = np.array([0.58, 0.7, 0.5])
    action = controller.act(world.observation(pushed, 0.25))
    assert pushed[0] + action[0] <= 0.6


def test_the_next_plan_starts_from_the_last_one_shifted(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world)
    controller.act(world.observation(START, 0.0))
    plan = controller.last_plan
    world.seen.clear()
    controller.act(world.observation(START, 0.25))
    assert torch.equal(world.seen[0][0, 0, :3], plan.actions_BHA[0, 1:])


def test_a_new_goal_drops_the_warm_start_and_keeps_the_past(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, execute_steps=4)
    controller.act(world.observation(START, 0.0))
    world.seen.clear()
    controller.set_goal(world.image([0.1, 0.9, 0.5]))
    action = controller.act(world.observation([0.3, 0.7, 0.5], 0.25))
    assert torch.equal(world.seen[0][0, 0], torch.zeros(4, 3)), "cold"
    assert world.contexts[-1][0, :, 0, 0].tolist() == pytest.approx([0.2, 0.3], abs=0.003)
    assert action[0] < -0.05


def test_a_reset_begins_anew(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, seed=5)
    first = drive(world, controller, steps=4)
    controller.reset(world.image(GOAL), seed=5)
    assert np.array_equal(drive(world, controller, steps=4), first)


# --- faults of the moment: hold, and say why ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_proprio_that_is_not_finite_holds(value: float, worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world)
    controller.act(world.observation(START, 0.0))
    observation = world.observation(START, 0.25)
    observation["proprio"][1] = value
    world.contexts.clear()
    assert controller.act(observation).tolist() == [0.0, 0.0, 0.0]
    assert controller.last_hold_reason == "proprio is not finite: ee_y_m"
    assert not world.contexts, "nothing was planned"
    assert controller.last_plan is None
    action = controller.act(world.observation(START, 0.5))
    assert np.abs(action).max() > 0.01
    assert controller.last_hold_reason is None, "and goes on when the reading is back"


def test_a_fault_ends_the_reuse_of_the_plan(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, execute_steps=4)
    controller.act(world.observation(START, 0.0))
    controller.act({**world.observation(START, 0.25), "time_s": float("nan")})
    assert controller.last_hold_reason == "time_s is not finite"
    controller.act(world.observation(START, 0.5))
    assert len(world.contexts) == 2


@pytest.mark.parametrize("execute_steps", [1, 3])
def test_a_failed_plan_holds_and_the_next_step_tries_again(execute_steps: int, worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, execute_steps=execute_steps)
    world.corrupt = lambda z, a: z * float("nan")
    for step in range(3):
        assert controller.act(world.observation(START, step * 0.25)).tolist() == [0.0, 0.0, 0.0]
        assert controller.last_hold_reason == "planning failed: none of the 320 candidates had a finite cost"
        assert controller.last_plan is not None
        assert controller.last_plan.stop_reason == ("failed",)
    assert len(world.contexts) == 3
    world.corrupt = lambda z, a: z
    assert np.abs(controller.act(world.observation(START, 0.75))).max() > 0.01


def test_latents_that_are_not_finite_hold_and_do_not_enter_the_ring(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world)
    controller.act(world.observation(START, 0.0))
    encode = world.encode
    world.encode = lambda pixels: encode(pixels) * float("nan")
    assert controller.act(world.observation(START, 0.25)).tolist() == [0.0, 0.0, 0.0]
    assert "latents" in controller.last_hold_reason
    world.encode = encode
    assert np.abs(controller.act(world.observation(START, 0.5))).max() > 0.01
    assert bool(torch.isfinite(world.contexts[-1]).all())


def test_holding_respects_a_box_without_zero(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, action_set=Box.of([0.02, -0.1, -0.1], [0.1, 0.1, -0.03]))
    world.corrupt = lambda z, a: z * float("nan")
    assert controller.act(world.observation(START)).tolist() == pytest.approx([0.02, 0.0, -0.03])


def test_a_fault_of_one_arm_does_not_touch_the_others(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    policy = RecedingHorizon(world, CEM(QUICK["cem"]), objective=PATH)
    states = [policy.start(world.image(GOAL), seed=seed) for seed in (0, 1)]
    bad = world.observation(START)
    bad["proprio"][:] = np.nan
    actions, after = policy.act_batch(states, [bad, world.observation(START)])
    alone, _ = policy.act(states[1], world.observation(START))
    assert actions[0].tolist() == [0.0, 0.0, 0.0]
    assert np.array_equal(actions[1], alone)
    assert [state.hold_reason is None for state in after] == [False, True]


def test_the_budget_becomes_a_deadline_that_includes_encoding(worlds: SimpleNamespace) -> None:
    clock, world = worlds.FakeClock(), worlds.PointWorld()

    def slow_encode(pixels: torch.Tensor, encode: Any = world.encode) -> torch.Tensor:
        clock.now_s += 0.020
        return encode(pixels)

    def slow_rollout(z: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        clock.now_s += 0.010
        return z

    world.encode, world.corrupt = slow_encode, slow_rollout
    controller = controller_of(world, budget_ms=51.0, clock=clock)
    controller.act(world.observation(START))
    assert controller.last_plan.num_iterations == 3
    assert controller.last_plan.stop_reason == ("deadline",)
    assert controller.last_plan_ms == pytest.approx(50.0)


def test_a_rate_limit_counts_from_the_action_executed_last(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    limits = Intersection(Box.of([-0.1] * 3, [0.1] * 3), (RateLimit.of([0.02] * 3),))
    controller = controller_of(world, action_set=limits)
    actions = [controller.act(world.observation(START, step * 0.25)).astype(np.float64) for step in range(4)]
    changes = np.abs(np.diff([np.zeros(3), *actions], axis=0))
    assert changes.max() <= 0.02
    assert changes[1].max() > 0.01


def test_proprio_and_time_may_be_missing_where_nothing_needs_them(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world)
    for _ in range(2):
        controller.act({"pixels": world.image(START)})
    assert controller.last_plan.times_BH[0, 0] == pytest.approx(world.dt_s)


def test_the_top_level_shortcut_is_this_controller(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    assert type(goalward.make_controller(world, world.image(GOAL))) is type(controller_of(world))


# --- mistakes of the program: one line, with the fix -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda goal: goal.astype(np.float32) / 255, r"float32 .* expects uint8 .*astype\(np.uint8\)"),
        (lambda goal: goal.astype(np.int64), r"int64 .*convert to 0..255"),
        (lambda goal: goal[0], r"\(8, 8, 3\); the model expects uint8 of shape \(1, 8, 8, 3\), views front; .*\[None\]"),
        (lambda goal: goal[0, 0, 0], "stack one frame per camera"),
        (lambda goal: goal.transpose(0, 3, 1, 2), r"put the colours last: goal_pixels.transpose\(0, 2, 3, 1\)"),
        (lambda goal: np.concatenate([goal, goal]), "give the model's cameras, in its order"),
        (lambda goal: goal[:, ::2, ::2], "render or resize to 8 by 8 pixels"),
        (lambda goal: goal[..., :1], "give RGB"),
    ],
)
def test_goal_images_that_do_not_fit_are_explained(spoil, says: str, worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    with pytest.raises(UserError, match=says) as caught:
        make_controller(world, spoil(world.image(GOAL)))
    assert str(caught.value).startswith("goal_pixels: ")
    assert "\n" not in str(caught.value)
    controller = controller_of(world)
    with pytest.raises(UserError, match=r"^pixels: "):
        controller.act({**world.observation(START), "pixels": spoil(world.image(START))})


def test_images_may_be_tensors(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    make_controller(world, torch.from_numpy(world.image(GOAL)))
    frozen = world.image(GOAL)
    frozen.flags.writeable = False
    make_controller(world, frozen[:, ::-1])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda observation: observation.pop("pixels"), r"no entry 'pixels' in \(proprio, time_s\)"),
        (lambda observation: observation.update(proprio=np.zeros(2, np.float32)), r"proprio: float32 of shape \(2,\); .*ee_x_m, ee_y_m"),
        (lambda observation: observation.update(proprio=np.array(["a"] * 3)), "proprio: "),
        (lambda observation: observation.pop("proprio"), "needs the end-effector position"),
    ],
)
def test_observations_that_do_not_fit_are_explained(spoil, says: str, worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    controller = controller_of(world, workspace=([0.0] * 3, [1.0] * 3))
    observation = world.observation(START)
    spoil(observation)
    with pytest.raises(UserError, match=says):
        controller.act(observation)
    with pytest.raises(UserError, match="give a dictionary"):
        controller.act(world.image(START))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"planner": "cemm"}, "did you mean cem"),
        ({"planner_config": AdamConfig()}, "does not fit planner 'cem'"),
        ({"planner": CEM(), "planner_config": CEMConfig()}, "made already"),
        ({"horizon": 0}, "horizon: 0"),
        ({"execute_steps": 5}, "execute_steps: 5 .* 1 to 3"),
        ({"budget_ms": 0.0}, "budget_ms: 0.0"),
        ({"workspace": ([0.0] * 3, [0.0] * 3)}, "workspace: low"),
        ({"workspace": ([0.0] * 2, [1.0] * 2)}, "workspace: corners"),
        ({"workspace": ([0.0] * 3, [1.0] * 3), "action_set": Box.of([-1.0] * 3, [1.0] * 3)}, "together with action_set"),
        ({"action_set": Box.of([-1.0], [1.0])}, "bounds for 1 entries"),
    ],
)
def test_options_that_do_not_fit_are_explained(options: dict[str, Any], says: str, worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    with pytest.raises(UserError, match=says):
        make_controller(world, world.image(GOAL), **options)


def test_a_model_without_named_positions_has_no_workspace(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    world.proprio_names = ("joint_rad",)
    with pytest.raises(UserError, match=r"proprio lacks ee_x_m, ee_y_m, ee_z_m .*it has joint_rad"):
        make_controller(world, world.image(GOAL), workspace=([0.0] * 3, [1.0] * 3))
    world.action_names = ("torque_1", "torque_2", "torque_3")
    with pytest.raises(UserError, match="actions lack dx"):
        make_controller(world, world.image(GOAL), workspace=([0.0] * 3, [1.0] * 3))
