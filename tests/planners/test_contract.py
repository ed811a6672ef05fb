"""What every registered planner promises; see the top of `planners/base.py`."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from goalward.planners.actions import Box, Intersection, Situation, Workspace
from goalward.planners.base import Plan, PlannerState
from goalward.planners.methods.adam import AdamConfig
from goalward.planners.methods.cem import CEMConfig
from goalward.planners.methods.cma_es import CMAESConfig
from goalward.planners.methods.grasp import GRASPConfig
from goalward.planners.methods.hybrid import HybridConfig
from goalward.planners.methods.icem import ICEMConfig
from goalward.planners.methods.knots import Knots
from goalward.planners.methods.mppi import MPPIConfig
from goalward.planners.methods.random_shooting import RandomShootingConfig
from goalward.planners.objectives import ActionEffort, LatentDistance, Objective, Outcome
from goalward.planners.registry import PLANNERS, make_planner

SMALL: dict[str, Any] = {
    "random": RandomShootingConfig(num_samples=24, num_iterations=4),
    "cem": CEMConfig(num_samples=24, num_iterations=4, num_elites=6, num_kept_elites=2),
    "icem": ICEMConfig(num_samples=24, num_iterations=4, num_elites=6, num_kept_elites=2),
    "mppi": MPPIConfig(num_samples=24, num_iterations=4),
    "cma_es": CMAESConfig(num_samples=16, num_iterations=4),
    "adam": AdamConfig(num_starts=6, num_iterations=5),
    "hybrid": HybridConfig(num_samples=24, num_iterations=5, num_elites=6, num_sampling=2, num_refined=3),
    "grasp": GRASPConfig(num_starts=5, num_iterations=4, num_parallel=2),
}
# One rollout an iteration, for tests that count rollouts.
PLAIN = SMALL | {"grasp": GRASPConfig(num_starts=5, num_iterations=4, num_parallel=0)}
every_planner = pytest.mark.parametrize("name", sorted(PLANNERS))
PATH = Objective(terms=(LatentDistance(step_weights="linear"), ActionEffort(weight=0.01)))


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def three_problems(worlds: SimpleNamespace, **options: Any):
    world = worlds.random_world(0)
    return world, worlds.make_problem(world, normal(1, 3, 3), normal(2, 3, 3), objective=PATH, **options)


def same(first: Plan, second: Plan) -> bool:
    names = (
        "actions_BHA",
        "z_BHND",
        "cost_B",
        "best_cost_BI",
        "mean_cost_BI",
        "num_iterations_B",
        "num_nonfinite_B",
        "failed_B",
        "times_BH",
    )
    equal = all(torch.equal(getattr(first, n).nan_to_num(7.0), getattr(second, n).nan_to_num(7.0)) for n in names)
    return equal and first.stop_reason == second.stop_reason


def test_every_registered_planner_is_tested_here() -> None:
    assert sorted(SMALL) == sorted(PLANNERS)


def any_cem(draw: Any, kind: Any = CEMConfig, **more: Any) -> Any:
    samples = draw(st.integers(1, 12))
    elites = draw(st.integers(1, samples))
    return kind(
        num_samples=samples,
        num_iterations=draw(st.integers(1, 4)),
        num_elites=elites,
        num_kept_elites=draw(st.integers(0, elites)),
        init_std=draw(st.sampled_from([0.01, 0.6, 10.0])),
        min_std=draw(st.sampled_from([0.0, 0.1])),
        momentum=draw(st.sampled_from([0.0, 0.9])),
        noise_exponent=draw(st.sampled_from([0.0, 2.5])),
        **more,
    )


counts, sizes = st.integers(1, 5), st.sampled_from([1e-3, 0.3, 10.0])
ANY_CONFIG: dict[str, Any] = {
    "random": st.builds(RandomShootingConfig, num_samples=counts, num_iterations=counts),
    "cem": st.composite(lambda draw: any_cem(draw, return_mean=draw(st.booleans())))(),
    "icem": st.composite(lambda draw: any_cem(draw, ICEMConfig, decay=draw(st.sampled_from([1.0, 1.25, 10.0]))))(),
    "mppi": st.builds(MPPIConfig, num_samples=counts, num_iterations=counts, temperature=sizes, init_std=sizes, min_std=sizes),
    "cma_es": st.builds(
        CMAESConfig, num_samples=st.integers(4, 9), num_iterations=counts, init_std=sizes, diagonal=st.booleans(), penalty=sizes
    ),
    "adam": st.builds(AdamConfig, num_starts=counts, num_iterations=counts, learning_rate=sizes),
    "hybrid": st.composite(
        lambda draw: any_cem(draw, HybridConfig, num_refined=1, num_sampling=draw(counts), step=draw(sizes), grow=draw(st.floats(1, 10)))
    )(),
    "grasp": st.builds(
        GRASPConfig, num_starts=counts, num_iterations=counts, num_parallel=st.integers(0, 2), state_rate=sizes, state_noise=sizes
    ),
}


@every_planner
def test_plan_is_complete_and_consistent_with_the_model(name: str, worlds: SimpleNamespace) -> None:
    world, problem = three_problems(worlds, start_time_s=(0.0, 5.0, 7.5))
    plan, state = make_planner(name, SMALL[name]).plan(problem, PlannerState.initial([0, 1, 2]))
    assert plan.actions_BHA.shape == (3, 4, 2)
    assert plan.actions_BHA.dtype == torch.float32
    assert plan.times_BH[1].tolist() == [5.0, 5.25, 5.5, 5.75]
    z_BSHND = world.rollout(problem.context, plan.actions_BHA[:, None])
    assert torch.equal(z_BSHND[:, 0], plan.z_BHND)
    half = torch.ones(2)
    assert torch.allclose(PATH(worlds.outcome(problem, z_BSHND, plan.actions_BHA[:, None], half))[:, 0], plan.cost_B)
    assert torch.equal(plan.best_cost_BI[:, -1], plan.cost_B)
    assert bool((plan.best_cost_BI.diff(dim=1) <= 0).all())
    assert bool((plan.best_cost_BI <= plan.mean_cost_BI).all())
    assert plan.stop_reason == ("iterations",) * 3
    assert plan.num_iterations_B.tolist() == [plan.num_iterations] * 3 == [SMALL[name].num_iterations] * 3
    assert not bool(plan.failed_B.any())
    assert state.steps == (1, 1, 1)
    assert state.start_time_s == (0.0, 5.0, 7.5)


@every_planner
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_anything_finite_from_the_model_gives_a_feasible_plan(name: str, worlds: SimpleNamespace, data: st.DataObject) -> None:
    """R35, with any valid configuration and shapes down to one sample, one step, one action."""
    horizon, num_actions = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3))
    seed, size = data.draw(st.integers(0, 10**6)), data.draw(st.sampled_from([1e-6, 1.0, 1e6, 1e25]))
    config = data.draw(ANY_CONFIG[name])
    low = -normal(seed, num_actions).abs()
    box = Box.of(low, low + normal(seed + 1, num_actions).abs() * data.draw(st.sampled_from([0.0, 1e-3, 2.0])))
    world = worlds.direct_world(horizon, num_actions)
    answer = normal(seed + 2, 1, 64, horizon, 1, num_actions) * size
    world.corrupt = lambda z, a: answer[:, : z.shape[1], : z.shape[2]] + 0 * z
    knots = data.draw(st.sampled_from([None, Knots(spacing_s=0.4, order="cubic"), Knots(spacing_s=0.3, order="zero")]))
    problem = worlds.make_problem(world, normal(seed, 2, num_actions), normal(seed, 2, num_actions), horizon=horizon, action_set=box)
    problem = replace(problem, knots=knots)
    plan, _ = make_planner(name, config).plan(problem, PlannerState.initial([seed, seed + 1]))
    assert plan.actions_BHA.shape == (2, horizon, num_actions)
    for actions in (*world.seen, plan.actions_BHA):
        assert bool((torch.isfinite(actions) & (actions >= box.low_A) & (actions <= box.high_A)).all())


@every_planner
def test_every_candidate_lies_inside_box_and_workspace(name: str, worlds: SimpleNamespace) -> None:
    """The cost pulls out of both."""
    world = worlds.PointWorld()
    start = torch.tensor([[0.5, 0.5, 0.5], [0.21, 0.79, 0.4]])
    low, high = torch.tensor([0.2, 0.3, 0.3]), torch.tensor([0.8, 0.8, 0.55])
    box = Box.of(world.action_low, world.action_high)
    bounds = Intersection(box, (Workspace.of(low.tolist(), high.tolist()),))
    problem = worlds.make_problem(
        world,
        start,
        torch.tensor([[9.0, 9.0, 9.0], [-9.0, 9.0, 9.0]]),
        action_set=bounds,
        situation=Situation(position_BE=start),
        horizon=6,
    )
    planner, state = make_planner(name, SMALL[name]), PlannerState.initial([0, 1])
    for _ in range(3):
        plan, state = planner.plan(problem, state)
        world.seen.append(plan.actions_BHA[:, None])
    for seen in world.seen:
        actions = seen.reshape(2, -1, 6, 3)  # grasp rolls the steps of its sequences out side by side
        reached = start.double()[:, None, None] + actions.double().cumsum(dim=2)
        assert bool(((actions >= box.low_A) & (actions <= box.high_A)).all())
        assert bool(((reached >= low.double()) & (reached <= high.double())).all())
    if name not in ("random", "grasp"):  # which take longer than this
        assert plan.actions_BHA.double().sum(1)[0].tolist() == pytest.approx([0.3, 0.3, 0.05], abs=0.02), "and it goes to the wall"


@every_planner
def test_frozen_entries_stay_frozen(name: str, worlds: SimpleNamespace) -> None:
    world = worlds.random_world(0)
    problem = worlds.make_problem(world, normal(1, 1, 3), normal(2, 1, 3), action_set=Box.of([-1.0, 0.25], [1.0, 0.25]), objective=PATH)
    plan, _ = make_planner(name, SMALL[name]).plan(problem, PlannerState.initial([0]))
    assert plan.actions_BHA[..., 1].tolist() == [[0.25] * 4]
    assert not bool(plan.failed_B.any())


@every_planner
def test_results_are_bitwise_independent_of_the_batch(name: str, worlds: SimpleNamespace) -> None:
    _world, problem = three_problems(worlds)
    planner = make_planner(name, replace(SMALL[name], stop_tolerance=0.05))
    together, state = planner.plan(problem, PlannerState.initial([5, 6, 7]))
    together_again, _ = planner.plan(problem, state)
    for b in range(3):
        alone = worlds.pick(problem, [b])
        plan, mine = planner.plan(alone, PlannerState.initial([5 + b]))
        plan_again, _ = planner.plan(alone, mine)
        for batch, single in ((together.problem(b), plan), (together_again.problem(b), plan_again)):
            assert torch.equal(batch.actions_BHA, single.actions_BHA)
            assert torch.equal(batch.cost_B, single.cost_B)
            assert torch.equal(batch.num_iterations_B, single.num_iterations_B)
            assert batch.stop_reason == single.stop_reason


@every_planner
def test_permuting_the_batch_permutes_the_plans(name: str, worlds: SimpleNamespace) -> None:
    _, problem = three_problems(worlds)
    order = [2, 0, 1]
    planner = make_planner(name, SMALL[name])
    plan, _ = planner.plan(problem, PlannerState.initial([5, 6, 7]))
    permuted = worlds.pick(problem, order)
    other, _ = planner.plan(permuted, PlannerState.initial([7, 5, 6]))
    assert torch.equal(other.actions_BHA, plan.actions_BHA[order])


@every_planner
def test_planning_is_a_pure_function(name: str, worlds: SimpleNamespace) -> None:
    _, problem = three_problems(worlds)
    planner, state = make_planner(name, SMALL[name]), PlannerState.initial([5, 6, 7])
    torch.manual_seed(0)
    first, after = planner.plan(problem, state)
    torch.manual_seed(99)
    second, _ = planner.plan(problem, state)
    assert same(first, second)
    later, _ = planner.plan(problem, after)
    earlier_again, _ = make_planner(name, SMALL[name]).plan(problem, state)
    assert same(first, earlier_again)
    assert not torch.equal(later.mean_cost_BI, first.mean_cost_BI), "the next step draws other numbers"


@every_planner
def test_more_iterations_never_worsen_the_best_cost(name: str, worlds: SimpleNamespace) -> None:
    _, problem = three_problems(worlds)
    costs = [
        make_planner(name, replace(SMALL[name], num_iterations=n)).plan(problem, PlannerState.initial([5, 6, 7]))[0].cost_B
        for n in (1, 2, 4, 8, 12)
    ]
    for fewer, more in itertools.pairwise(costs):
        assert bool((more <= fewer).all())


class Shifted:
    """An objective with all costs shifted and scaled by exact powers of two."""

    def __init__(self, scale: float, offset: float) -> None:
        self.scale, self.offset = scale, offset

    def __call__(self, outcome: Outcome) -> Tensor:
        # Rounded to a coarse grid so that neither operation loses a bit.
        cost = (PATH(outcome) * 1024).round() / 1024
        return cost * self.scale + self.offset


@pytest.mark.parametrize("name", ["random", "cem", "icem", "mppi", "cma_es"])
@pytest.mark.parametrize(("scale", "offset"), [(4.0, 0.0), (0.25, 0.0), (1.0, 16.0), (2.0, -32.0)])
def test_sampling_ignores_shift_and_positive_scale_of_costs(name: str, scale: float, offset: float, worlds: SimpleNamespace) -> None:
    """R37."""
    _, problem = three_problems(worlds)
    plans = [
        make_planner(name, SMALL[name]).plan(replace(problem, objective=Shifted(*how)), PlannerState.initial([1, 2, 3]))[0]
        for how in ((1.0, 0.0), (scale, offset))
    ]
    assert torch.equal(plans[0].actions_BHA, plans[1].actions_BHA)


# Noise on the states knows no action entries, and a full covariance is factored in an order of its own.
PERMUTABLE = SMALL | {
    "grasp": GRASPConfig(num_starts=5, num_iterations=4, num_parallel=2, state_noise=0.0),
    "cma_es": CMAESConfig(num_samples=16, num_iterations=4, diagonal=True),
}


@every_planner
def test_permuting_action_entries_permutes_the_plan(name: str, worlds: SimpleNamespace) -> None:
    order = [2, 0, 1]
    world = worlds.random_world(3, dim=3, num_actions=3)
    turned = worlds.LinearWorld(world.F_DD, world.G_DA[:, order])
    low, high = torch.tensor([-1.0, -0.5, -0.2]), torch.tensor([0.5, 1.0, 0.9])
    plans = []
    for model, permutation in ((world, [0, 1, 2]), (turned, order)):
        planner: Any = make_planner(name, PERMUTABLE[name])
        draw = planner.draw
        planner.draw = lambda *args, draw=draw, permutation=permutation: draw(*args)[..., permutation]
        problem = worlds.make_problem(model, normal(1, 1, 3), normal(2, 1, 3), action_set=Box.of(low[permutation], high[permutation]))
        plans.append(planner.plan(problem, PlannerState.initial([0]))[0])
    # Sums over entries run in another order, hence the tolerance.
    assert torch.allclose(plans[0].actions_BHA[..., order], plans[1].actions_BHA, atol=2e-4)


class Spoiled:
    """Replaces the costs of the candidates in a slot of the action space, the worst ones or all, by something not finite."""

    def __init__(self, value: float, keep_below: float) -> None:
        self.value, self.keep_below = value, keep_below

    def __call__(self, outcome: Outcome) -> Tensor:
        cost = PATH(outcome)
        return torch.where(outcome.actions_BSHA[..., 0, 0] > self.keep_below, self.value, cost)


NOT_FINITE = [float("nan"), float("inf"), float("-inf")]


@every_planner
@given(seed=st.integers(0, 10**6), keep_below=st.floats(-0.5, 0.9))
@settings(max_examples=15, deadline=None)
def test_costs_that_are_not_finite_are_excluded_and_counted(name: str, worlds: SimpleNamespace, seed: int, keep_below: float) -> None:
    """R38: NaN, +inf and -inf are the same; none of them wins."""
    world = worlds.random_world(seed)
    problem = worlds.make_problem(world, normal(seed, 2, 3), normal(seed + 1, 2, 3))
    plans = []
    for value in NOT_FINITE:
        world.seen.clear()
        plan, _ = make_planner(name, PLAIN[name]).plan(replace(problem, objective=Spoiled(value, keep_below)), PlannerState.initial([1, 2]))
        spoiled = sum((actions[..., 0, 0] > keep_below).sum(dim=1) for actions in world.seen)
        assert torch.equal(plan.num_nonfinite_B, spoiled)
        won = plan.actions_BHA[~plan.failed_B]
        assert bool((won[:, 0, 0] <= keep_below).all())
        assert bool(torch.isfinite(plan.cost_B[~plan.failed_B]).all())
        plans.append(plan)
    assert same(plans[0], plans[1])
    assert same(plans[0], plans[2])


@pytest.mark.parametrize("name", ["random", "cem", "icem"])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_spoiling_the_worst_candidates_changes_nothing_but_the_count(name: str, worlds: SimpleNamespace, seed: int) -> None:
    """R38 for planners that look at the best alone: 30 % of the candidates, none of them an elite."""
    world = worlds.random_world(seed)
    problem = worlds.make_problem(world, normal(seed, 1, 3), normal(seed + 1, 1, 3))
    picked = torch.Generator().manual_seed(seed)
    values = torch.tensor(NOT_FINITE)

    def spoil(outcome: Outcome) -> Tensor:
        cost = PATH(outcome)
        worst = cost.topk(7, dim=1).indices
        return cost.scatter(1, worst, values[torch.randint(0, 3, worst.shape, generator=picked)])

    config = replace(SMALL[name], num_samples=24, **({"decay": 1.0} if name == "icem" else {}))
    clean, _ = make_planner(name, config).plan(replace(problem, objective=PATH), PlannerState.initial([0]))
    spoiled, _ = make_planner(name, config).plan(replace(problem, objective=spoil), PlannerState.initial([0]))
    assert spoiled.num_nonfinite_B.tolist() == [28]
    assert torch.equal(clean.actions_BHA, spoiled.actions_BHA)
    assert torch.equal(clean.best_cost_BI, spoiled.best_cost_BI)


@every_planner
@pytest.mark.parametrize("value", NOT_FINITE)
def test_without_any_finite_candidate_the_plan_fails_and_holds(name: str, value: float, worlds: SimpleNamespace) -> None:
    world, problem = three_problems(worlds)
    world.corrupt = lambda z, a: torch.cat([z[:1], z[1:2] * 0 + value, z[2:]])  # the second problem alone
    planner = make_planner(name, PLAIN[name])
    plan, state = planner.plan(problem, PlannerState.initial([1, 2, 3]))
    assert plan.failed_B.tolist() == [False, True, False]
    assert plan.stop_reason == ("iterations", "failed", "iterations")
    assert plan.actions_BHA[1].tolist() == [[0.0, 0.0]] * 4
    assert plan.cost_B[1] == float("inf")
    assert plan.num_nonfinite_B[1] == sum(actions.shape[1] for actions in world.seen)
    assert bool(torch.isfinite(plan.actions_BHA).all())
    assert state.start_time_s[1] == float("-inf"), "a failed plan is no warm start"


@every_planner
def test_a_model_that_breaks_down_half_way_keeps_the_best_plan_so_far(name: str, worlds: SimpleNamespace) -> None:
    world, problem = three_problems(worlds)
    good, _ = make_planner(name, replace(PLAIN[name], num_iterations=2)).plan(problem, PlannerState.initial([1, 2, 3]))
    world.seen.clear()
    world.corrupt = lambda z, a: z if len(world.seen) <= 2 else z * float("nan")
    broken, _ = make_planner(name, PLAIN[name]).plan(problem, PlannerState.initial([1, 2, 3]))
    assert torch.equal(broken.actions_BHA, good.actions_BHA)
    assert torch.equal(broken.cost_B, good.cost_B)
    assert not bool(broken.failed_B.any())


@every_planner
def test_a_warm_start_is_never_worse_at_the_first_iteration(name: str, worlds: SimpleNamespace) -> None:
    """R40: the same state and the previous plan; also against the cold start's own centre after a shift."""
    for seed in range(10):
        world = worlds.random_world(seed)
        problem = worlds.make_problem(world, normal(seed, 2, 3), normal(seed + 50, 2, 3), objective=PATH)
        planner = make_planner(name, SMALL[name])
        cold, state = planner.plan(problem, PlannerState.initial([seed, seed + 1]))
        warm, _ = planner.plan(problem, state)
        assert bool((warm.best_cost_BI[:, 0] <= cold.cost_B).all())
        assert bool((warm.best_cost_BI[:, 0] <= cold.best_cost_BI[:, 0]).all())
        later, _ = planner.plan(replace(problem, start_time_s=(0.25, 0.25)), state)
        world.seen.clear()
        middle = PATH(worlds.outcome(problem, world.rollout(problem.context, torch.zeros(2, 1, 4, 2)), torch.zeros(2, 1, 4, 2)))[:, 0]
        assert bool((later.best_cost_BI[:, 0] <= middle).all())


@every_planner
def test_the_deadline_stops_the_search_at_most_one_iteration_late(name: str, worlds: SimpleNamespace) -> None:
    clock = worlds.FakeClock()
    world, problem = three_problems(worlds)

    def slowly(z: Tensor, actions: Tensor) -> Tensor:
        clock.now_s += 0.010
        return z

    world.corrupt = slowly
    planner = make_planner(name, replace(PLAIN[name], num_iterations=50), clock=clock)
    for budget_s, iterations in ((0.0, 1), (0.005, 1), (0.0101, 1), (0.0301, 3), (0.0399, 3), (10.0, 50)):
        begun = clock.now_s
        plan, _ = planner.plan(problem, PlannerState.initial([1, 2, 3]), deadline_s=begun + budget_s)
        assert plan.num_iterations == iterations
        assert plan.stop_reason == (("deadline" if iterations < 50 else "iterations"),) * 3
        assert clock.now_s <= max(begun + budget_s, begun + 0.0101)
        assert plan.plan_ms == pytest.approx(iterations * 10.0)
        assert not bool(plan.failed_B.any())


@every_planner
def test_an_iteration_slower_than_all_before_is_the_only_overrun(name: str, worlds: SimpleNamespace) -> None:
    clock = worlds.FakeClock()
    world, problem = three_problems(worlds)
    durations = iter([0.010, 0.010, 0.500])

    def slowly(z: Tensor, actions: Tensor) -> Tensor:
        clock.now_s += next(durations)
        return z

    world.corrupt = slowly
    planner = make_planner(name, replace(PLAIN[name], num_iterations=50), clock=clock)
    plan, _ = planner.plan(problem, PlannerState.initial([1, 2, 3]), deadline_s=clock.now_s + 0.060)
    assert plan.num_iterations == 3


@every_planner
def test_the_plan_at_a_deadline_is_the_prefix_of_the_full_search(name: str, worlds: SimpleNamespace) -> None:
    clock = worlds.FakeClock()
    world, problem = three_problems(worlds)
    full, _ = make_planner(name, replace(PLAIN[name], num_iterations=9)).plan(problem, PlannerState.initial([1, 2, 3]))

    def slowly(z: Tensor, actions: Tensor) -> Tensor:
        clock.now_s += 1.0
        return z

    world.corrupt = slowly
    planner = make_planner(name, replace(PLAIN[name], num_iterations=9), clock=clock)
    cut, _ = planner.plan(problem, PlannerState.initial([1, 2, 3]), deadline_s=clock.now_s + 4.5)
    assert torch.equal(cut.best_cost_BI, full.best_cost_BI[:, :4])


@every_planner
def test_converged_problems_stop_by_themselves(name: str, worlds: SimpleNamespace) -> None:
    world = worlds.random_world(0)
    calls: list[int] = []

    def objective(outcome: Outcome) -> Tensor:
        """The first problem is solved by doing nothing; the second gets cheaper by the call, seven times."""
        calls.append(1)
        return PATH(outcome) - torch.tensor([[0.0], [100.0 * min(len(calls), 7)]])

    problem = worlds.make_problem(world, torch.tensor([[0.0, 0, 0], [1.0, 2, 3]]), torch.zeros(2, 3), objective=objective)
    planner = make_planner(name, replace(PLAIN[name], num_iterations=12, stop_tolerance=0.01))
    plan, _ = planner.plan(problem, PlannerState.initial([0, 1]))
    assert plan.stop_reason == ("converged", "converged")
    assert plan.num_iterations_B.tolist() == [3, 9]
    assert plan.num_iterations == 9
    assert len(set(plan.mean_cost_BI[0, 2:].tolist())) == 1, "a converged problem's history stays"


@every_planner
def test_the_model_is_all_a_planner_touches(name: str, worlds: SimpleNamespace) -> None:
    """R41: rollouts of its own actions, and nothing else, during a plan; grasp also predicts from states of its own."""
    world, problem = three_problems(worlds)
    allowed = {"rollout", "prime"} if name == "grasp" else {"rollout"}

    class RolloutOnly:
        def __getattribute__(self, attribute: str) -> Any:
            assert attribute in allowed, f"the planner asked the model for {attribute}"
            return getattr(world, attribute)

    plan, _ = make_planner(name, SMALL[name]).plan(replace(problem, model=RolloutOnly()), PlannerState.initial([1, 2, 3]))
    assert not bool(plan.failed_B.any())


@every_planner
def test_inputs_are_left_as_they_were(name: str, worlds: SimpleNamespace) -> None:
    _world, problem = three_problems(worlds)
    context, goal = problem.context.clone(), problem.z_goal_BGND.clone()
    planner = make_planner(name, SMALL[name])
    first, state = planner.plan(problem, PlannerState.initial([1, 2, 3]))
    actions = first.actions_BHA.clone()
    planner.plan(problem, state)
    assert torch.equal(problem.context, context)
    assert torch.equal(problem.z_goal_BGND, goal)
    assert torch.equal(first.actions_BHA, actions)
    assert not first.actions_BHA.requires_grad
    assert not first.z_BHND.requires_grad


@every_planner
def test_a_model_of_the_wrong_shape_is_named(name: str, worlds: SimpleNamespace) -> None:
    world, problem = three_problems(worlds)
    world.corrupt = lambda z, a: z[:, :, 1:]
    with pytest.raises(ValueError, match=r"shape .*expected \(3, "):
        make_planner(name, SMALL[name]).plan(problem, PlannerState.initial([1, 2, 3]))
