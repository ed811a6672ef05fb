"""The comparison with other libraries' planners: what it counts, prices and says, without any of them installed."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from goalward import UserError
from goalward.experiments.bench.peers import environment, measure, solvers
from goalward.experiments.bench.peers.analytic import CASES, analytic_task, curved_valley, in_hole, many_minima, with_nan
from goalward.experiments.bench.peers.contender import REFERENCE, Contender, Search, our_config, ours
from goalward.experiments.bench.peers.environment import NOTE_NAME, PEERS, ensure
from goalward.experiments.bench.peers.reach import _problem as reach_problem
from goalward.experiments.bench.peers.reach import reach_tasks
from goalward.experiments.bench.peers.rerun import RerunCost
from goalward.experiments.bench.peers.summary import THEIRS, case_rows, case_table, contract_table, verdicts
from goalward.experiments.bench.peers.task import Costs, Meter, Task
from goalward.experiments.bench.planner_peers import PeersCommand
from goalward.planners.objectives.latent import UNRELATED
from goalward.planners.registry import PLANNERS


def quiet(what: str) -> None:
    """Says nothing."""


def small(task: Task) -> Task:
    return replace(task, num_samples=16, num_iterations=2, num_elites=4)


def fixed(plan_u: float, *, name: str = "peer fixed", shown: Tensor | None = None) -> Contender:
    """A contender that shows the cost object two candidates and returns a plan of one number."""

    def prepare(task: Task, seed: int, meter: Meter, rate: float | None) -> Search:
        costs = Costs(task, meter)
        B, H, A = task.shape_BHA

        def search() -> Tensor:
            costs.prime()
            costs(torch.zeros(B, 2, H, A) if shown is None else shown)
            return costs.plan(torch.full((B, H, A), plan_u if rate is None else rate))

        return search

    return Contender(name=name, prepare=prepare, warm_start="none")


# --- problems and prices


@pytest.mark.parametrize("case", CASES)
def test_no_action_in_the_box_beats_the_optimum(case: str) -> None:
    task = analytic_task(case, 1)
    low, high = task.problem.action_set.low_A, task.problem.action_set.high_A
    actions = low + (high - low) * torch.rand(500, *task.shape_BHA[1:], generator=torch.Generator().manual_seed(0))
    assert task.optimum is not None
    assert min(float(task.price(action[None])) for action in actions) >= task.optimum - 1e-5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_optimum_of_the_linear_quadratic_world_is_riccatis(seed: int) -> None:
    task = analytic_task("linear-quadratic", seed)
    world: Any = task.problem.model
    assert task.problem.z_BTND is not None
    F, G = world.F_DD.double().numpy(), world.G_DA.double().numpy()
    (D, A), H = G.shape, task.problem.horizon
    goal = task.problem.z_goal_BGND.flatten().double().numpy()
    transition, control = np.block([[F, np.zeros((D, 1))], [np.zeros((1, D)), np.eye(1)]]), np.vstack([G, np.zeros((1, A))])
    error = np.hstack([np.eye(D), -goal[:, None]])
    stage, effort = error.T @ error / (D * H * UNRELATED["l2"]), 4.0 * np.eye(A) / (16.0 * A * H)
    value = np.zeros((D + 1, D + 1))
    for _ in range(H):
        after = stage + value
        gain = np.linalg.solve(effort + control.T @ after @ control, control.T @ after @ transition)
        value = transition.T @ after @ (transition - control @ gain)
    x0 = np.append(task.problem.z_BTND.flatten().double().numpy(), 1.0)
    # Where the bounds are not felt; the least cost in the box can only be higher.
    assert task.optimum == pytest.approx(float(x0 @ value @ x0), rel=1e-6)


def test_functions_are_least_at_zero() -> None:
    points = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0))
    for function in (curved_valley, many_minima):
        assert float(function(torch.zeros(8))) == 0
        assert bool((function(points) > 0).all())


def test_a_plan_is_clipped_to_the_box_before_it_is_priced() -> None:
    task = analytic_task("linear-quadratic, bounds active", 0)
    edge = task.problem.action_set.high_A.expand(task.shape_BHA)
    assert float(task.price(edge + 7.0)) == float(task.price(edge))
    assert bool(torch.isfinite(task.price(torch.full(task.shape_BHA, torch.nan))).all())


def test_peers_and_ours_see_the_same_cost() -> None:
    task = analytic_task("linear-quadratic, bounds active", 3)
    u = torch.rand(1, 5, *task.shape_BHA[1:], generator=torch.Generator().manual_seed(0)) * 2 - 1
    seen = Costs(task, Meter())(u)
    actions = task.centre_A + task.half_A * u
    assert torch.equal(seen[0], torch.cat([task.price(actions[:, s]) for s in range(5)]))


def test_thirty_percent_of_actions_have_no_cost_and_the_referee_is_whole() -> None:
    task = analytic_task("linear-quadratic", 0)
    holed = with_nan(task)
    u = torch.rand(1, 4000, *task.shape_BHA[1:], generator=torch.Generator().manual_seed(0)) * 2 - 1
    share = float(torch.isnan(Costs(holed, Meter())(u)).float().mean())
    assert share == pytest.approx(0.3, abs=0.03)
    assert float(in_hole(u, 0.3).float().mean()) == pytest.approx(0.3, abs=0.03)
    assert holed.referee is task.referee


# --- counting and timing


def test_candidates_and_plans_outside_the_box_are_counted() -> None:
    task = analytic_task("curved valley", 0)
    shown = torch.zeros(1, 4, *task.shape_BHA[1:])
    shown[0, 1, 2, 0], shown[0, 2, 0, 1], shown[0, 3, 0, 0] = 1.01, -1.5, 1.0 + 1e-7
    _, sample = measure.one(fixed(1.2, shown=shown), task, 0)
    assert (sample["outside"], sample["candidates"], sample["plan_outside"]) == (2, 4, True)
    _, sample = measure.one(fixed(1.0), task, 0)
    assert (sample["outside"], sample["plan_outside"], sample["finite"]) == (0, False, True)
    _, sample = measure.one(fixed(float("nan")), task, 0)
    assert (sample["plan_outside"], sample["finite"]) == (True, False)


def test_backward_passes_count_as_time_in_the_model_and_torch_is_left_as_it_was() -> None:
    before, meter = (torch.autograd.grad, torch.autograd.backward), Meter()
    x = torch.ones(3, requires_grad=True)
    with meter.backward():
        torch.autograd.grad((x * 2).sum(), x)
        first = meter.inside_s
        (x * 2).sum().backward()
    assert 0 < first < meter.inside_s
    assert before == (torch.autograd.grad, torch.autograd.backward)


def test_every_planner_of_ours_is_compared_and_stays_inside() -> None:
    task = small(analytic_task("linear-quadratic, bounds active", 0))
    contenders = [c for c in ours() if not c.needs_model]
    assert {c.name for c in contenders} == {f"goalward {name}" for name in PLANNERS}
    for contender in contenders:
        _, sample = measure.one(contender, task, 0)
        assert sample["finite"], contender.name
        assert (sample["outside"], sample["plan_outside"]) == (0, False), contender.name
        assert 0 < sample["inside_ms"] <= sample["ms"], contender.name


def test_sampling_planners_get_the_budget_of_the_task() -> None:
    task = analytic_task("linear-quadratic", 0)
    for name in ("random", "cem", "mppi", "cma_es"):
        _, sample = measure.one(next(c for c in ours() if c.name == f"goalward {name}"), task, 0)
        assert sample["candidates"] == task.num_samples * task.num_iterations, name
    assert our_config("adam", task).num_starts == task.num_samples // 16
    assert our_config("cem", task).num_elites == task.num_elites


# --- the run


def test_the_best_value_of_a_constant_is_chosen() -> None:
    tasks = [analytic_task("linear-quadratic", seed) for seed in (0, 1)]
    contender = replace(fixed(0.0), rates=(5.0, 0.0, float("nan"), -5.0))
    assert measure.tuned(contender, tasks) == 0.0
    assert measure.tuned(fixed(0.0), tasks) is None


def test_a_peer_that_breaks_is_named_and_the_others_are_compared() -> None:
    def broken(task: Task, seed: int, meter: Meter, rate: float | None) -> Search:
        raise RuntimeError("no such luck")

    tasks = [small(analytic_task("linear-quadratic", seed)) for seed in (0, 1)]
    reference = next(c for c in ours() if c.name == REFERENCE)
    bad = Contender(name="peer broken", prepare=broken, warm_start="none")
    rolled = replace(fixed(0.0, name="peer rolled"), needs_model=True)
    case = measure.compare([reference, fixed(0.0), bad, rolled], tasks, tasks, 2, quiet)
    assert case["faults"] == {"peer broken": "RuntimeError: no such luck"}
    rows = {row["contender"]: row for row in case_rows(case)}
    assert list(rows) == [REFERENCE, "peer fixed"]
    assert rows[REFERENCE]["times_ours"] == rows[REFERENCE]["best_times_ours"] == rows[REFERENCE]["cost_to_ours"] == 1
    assert rows["peer fixed"]["plans"] == 4
    assert rows["peer fixed"]["above_optimum"] > rows[REFERENCE]["above_optimum"] >= -1e-6
    assert case_table(case).drawn().row_count == 2
    assert case_table(case).markdown().count("\n| peer fixed |") == 1
    json.dumps(case)


def test_contract_sees_nan_plans_and_batches_that_matter() -> None:
    def by_batch(task: Task, seed: int, meter: Meter, rate: float | None) -> Search:
        return lambda: torch.full(task.shape_BHA, 0.1 * task.shape_BHA[0])

    mixed = Contender(name="peer mixed", prepare=by_batch, warm_start="none")
    reference = next(c for c in ours() if c.name == REFERENCE)
    found = measure.contract([reference, fixed(float("nan")), mixed], 2, quiet)
    assert [row["batch_change"] for row in found[::2]] == [0.0, pytest.approx(0.05)]
    assert all(plan["finite"] and not plan["own_cost_nan"] for plan in found[0]["nan"])
    assert not any(plan["finite"] for plan in found[1]["nan"])
    assert contract_table(found).drawn().row_count == 3


def test_missing_libraries_are_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        raise ImportError(f"no {name} here")

    monkeypatch.setattr(importlib, "import_module", refuse)
    found, missing = measure.available()
    assert set(missing) == set(PEERS) == set(measure.ADAPTERS)
    assert all("ImportError: no " in why for why in missing.values())
    assert len(found) == len(ours())


def test_verdict_compares_with_stable_worldmodels_own_rollout() -> None:
    common = {"problem": 0, "seed": 0, "optimum": None, "outside": 0, "candidates": 10, "plan_outside": False, "finite": True}
    samples = [
        common | {"contender": REFERENCE, "ms": 10.0, "inside_ms": 9.8, "cost": 0.5},
        common | {"contender": THEIRS, "ms": 60.0, "inside_ms": 59.0, "cost": 0.6},
    ]
    speed, quality = verdicts({"cases": [{"case": "reach", "samples": samples, "rates": {}}]})
    assert "takes 6.0 times as long" in speed
    assert "plans cost 1.200 times as much" in quality
    assert "overhead of ours 2.0 %" in quality


# --- stable-worldmodel's manner


@pytest.fixture(scope="module")
def exact() -> Task:
    from goalward.wm.model import load_model

    model = load_model("reach", dtype=torch.float32)
    rng = torch.Generator().manual_seed(0)
    N, D = model.description.num_tokens, model.description.dim
    problem = reach_problem(model, torch.randn(1, 2, N, D, generator=rng), torch.randn(1, 1, N, D, generator=rng))
    return Task(case="reach", problem=problem, referee=problem, num_samples=6, num_iterations=2, num_elites=2, rerun=RerunCost)


def _expanded(info: dict[str, Tensor], num_samples: int) -> dict[str, Tensor]:
    """As its solvers hand `info` over."""
    return {name: value.unsqueeze(1).expand(-1, num_samples, *value.shape[1:]) for name, value in info.items()}


def test_rerun_rollout_is_ours_for_one_step_and_stays_near(exact: Task) -> None:
    rerun = RerunCost(exact.problem)
    actions = 0.05 * (2 * torch.rand(1, 6, 3, 3, generator=torch.Generator().manual_seed(1)) - 1)
    theirs = rerun.rollout(_expanded(rerun.info(), 6), actions)
    cached = exact.problem.model.rollout(exact.problem.context, actions)
    assert theirs.shape == cached.shape
    torch.testing.assert_close(theirs[:, :, 0], cached[:, :, 0], rtol=1e-4, atol=1e-5)
    # Later steps see a truncated window of predicted frames instead of all there is: another prediction, not another problem.
    still = exact.problem.context.z_BND[:, None, None]
    assert float((theirs - cached).square().mean()) < 0.2 * float((cached - still).square().mean())


def test_rerun_cost_carries_gradients_through_all_steps(exact: Task) -> None:
    rerun = RerunCost(exact.problem)
    actions = torch.zeros(1, 2, 3, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(rerun.cost(_expanded(rerun.info(), 2), actions, exact.half_A).sum(), actions)
    assert bool((gradient.abs().amax(dim=-1) > 0).all())


def test_recorded_moments_become_tasks(exact: Task, tmp_path: Path) -> None:
    assert exact.problem.z_BTND is not None
    np.savez(tmp_path / "r.npz", z_MTND=exact.problem.z_BTND.numpy(), z_goal_MND=exact.problem.z_goal_BGND[:, 0].numpy())
    (task,) = reach_tasks(tmp_path / "r.npz", "reach", (16, 2))
    _, sample = measure.one(next(c for c in ours() if c.name == REFERENCE), task, 0)
    assert sample["candidates"] == 32
    assert sample["finite"]


class FakeSolver:
    """Takes the best of a few candidates, through the protocol that stable-worldmodel's solvers use."""

    def __init__(self, model: Any, **options: Any) -> None:
        self.model, self.options = model, options

    def configure(self, *, action_space: Any, n_envs: int, config: Any) -> None:
        self.shape = (n_envs, 4, config.horizon, action_space.shape[1] * config.action_block)

    def solve(self, info: dict[str, Tensor]) -> dict[str, Tensor]:
        print("solved")
        candidates = torch.rand(self.shape, generator=torch.Generator().manual_seed(self.options["seed"]))
        cost = self.model.get_cost(_expanded(info, 4), candidates)
        return {"actions": candidates[torch.arange(len(cost)), cost.argmin(dim=1)]}


def test_stable_worldmodel_is_imported_without_its_package_and_driven_by_its_protocol(
    exact: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "stable_worldmodel"
    package.mkdir()
    (package / "__init__.py").write_text("import a_library_that_planning_does_not_need\n")
    (package / "solver.py").write_text("CEMSolver = ICEMSolver = MPPISolver = GradientSolver = None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("stable_worldmodel", "stable_worldmodel.solver"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = solvers.load_solvers()
    for name in ("CEMSolver", "ICEMSolver", "MPPISolver", "GradientSolver"):
        monkeypatch.setattr(module, name, FakeSolver)
    for name in ("stable_worldmodel", "stable_worldmodel.solver"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(solvers, "load_solvers", lambda: module)
    spaces = types.SimpleNamespace(Box=lambda low, high, shape, dtype: types.SimpleNamespace(shape=shape))
    monkeypatch.setitem(sys.modules, "gymnasium.spaces", spaces)  # type: ignore[arg-type]
    found = {c.name.removeprefix("stable-worldmodel "): c for c in solvers.contenders()}
    assert {"CEM", "CEM, own rollout", "CEM, own rollout in bfloat16", "iCEM", "MPPI", "gradient, SGD", "gradient, AdamW"} <= set(found)
    samples = {name: measure.one(found[name], exact, 0)[1] for name in ("CEM", "CEM, own rollout")}
    assert all(sample["finite"] and sample["candidates"] == 4 for sample in samples.values())
    assert capsys.readouterr().out == ""
    # Each problem of a batch, planned by itself, is priced as that problem.
    batch = analytic_task("linear-quadratic", 0, num_problems=3)
    costs, candidates = Costs(batch, Meter()), torch.ones(3, 1, 4, 2)
    rows = [solvers.Costable(costs, None).get_cost({"row": torch.tensor([[row]])}, candidates[:1]) for row in range(3)]
    assert torch.equal(torch.cat(rows), costs(candidates))


# --- the environment


class Calls:
    """Notes the programs that are started; fails where told to."""

    def __init__(self, failing: str = "nothing") -> None:
        self.commands: list[Sequence[str]] = []
        self.failing = failing

    def __call__(self, command: Sequence[str]) -> None:
        self.commands.append(command)
        if any(word.startswith(self.failing) for word in command):
            raise subprocess.CalledProcessError(1, list(command), stderr="noise\nERROR: no such wheel\n")


def test_environment_is_made_once_and_again_when_requirements_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, calls = tmp_path / "peers", Calls()
    assert ensure(folder, quiet, run=calls) == {}
    made = len(calls.commands)
    assert made == 2 + sum(map(len, PEERS.values()))
    assert all("--constraint" in command for command in calls.commands[1:])
    assert ensure(folder, quiet, run=calls) == {}
    assert len(calls.commands) == made
    monkeypatch.setattr(environment, "CORE", ("torch",))
    ensure(folder, quiet, run=calls)
    assert len(calls.commands) == 2 * made
    ensure(folder, quiet, rebuild=True, run=calls)
    assert len(calls.commands) == 3 * made


def test_a_peer_that_cannot_be_installed_is_remembered_in_words(tmp_path: Path) -> None:
    calls = Calls(failing="torchrl")
    expected = {"torchrl": "not installed: ERROR: no such wheel"}
    assert ensure(tmp_path / "peers", quiet, run=calls) == expected
    assert ensure(tmp_path / "peers", quiet, run=calls) == expected
    assert any("stable-worldmodel==0.1.1" in command for command in calls.commands)


def test_an_interrupted_or_impossible_environment_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "peers"
    with pytest.raises(UserError, match="torch cannot be installed"):
        ensure(folder, quiet, run=Calls(failing="torch=="))
    calls = Calls()
    ensure(folder, quiet, run=calls)
    assert calls.commands


def test_a_folder_of_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("words")
    with pytest.raises(UserError, match="holds something else"):
        ensure(tmp_path, quiet, run=Calls())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert not (tmp_path / NOTE_NAME).exists()


@pytest.mark.parametrize("change", [{"problems": 0}, {"seeds": -1}, {"threads": 0}, {"libraries": ("nevergrad",)}])
def test_wrong_options_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(change))):
        PeersCommand(**change)
