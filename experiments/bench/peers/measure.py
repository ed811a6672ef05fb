"""Runs all contenders on all tasks and writes what happened; started by `planner_peers.py` in the peers' own environment.

    python -m goalward.experiments.bench.peers.measure request.json

Standard output is one JSON object a line, for progress; the samples go to the file that the request names.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from goalward.experiments.bench.peers.analytic import CASES, analytic_task, with_nan
from goalward.experiments.bench.peers.contender import OURS, Contender, ours
from goalward.experiments.bench.peers.task import Meter, Task

ADAPTERS = {
    "stable-worldmodel": "goalward.experiments.bench.peers.solvers",
    "pytorch_mppi": "goalward.experiments.bench.peers.path_integral",
    "torchrl": "goalward.experiments.bench.peers.tensordict_cem",
    "cma": "goalward.experiments.bench.peers.evolution",
}
TUNING_SEEDS = (1000, 1001, 1002)
Say = Callable[[str], None]


def available() -> tuple[list[Contender], dict[str, str]]:
    """All contenders whose library can be imported, ours first, and why the others cannot."""
    found, missing = ours(), {}
    for library, adapter in ADAPTERS.items():
        try:
            found += importlib.import_module(adapter).contenders()
        except Exception as error:
            missing[library] = f"{type(error).__name__}: {error}"
    return found, missing


def one(contender: Contender, task: Task, seed: int, rate: float | None = None, *, batch: bool = False) -> tuple[Any, dict[str, Any]]:
    """Plans once.

    Returns:
        The actions [B, H, A], and what is to be known of them; costs and counts of the first problem.
    """
    meter = Meter()
    prepare = contender.prepare_batch if batch and contender.prepare_batch is not None else contender.prepare
    search = prepare(task, seed, meter, rate)
    with meter.backward():
        begun = time.perf_counter()
        actions_BHA = search()
        took_s = time.perf_counter() - begun
    outside = [int(task.outside(actions).sum()) for actions in meter.actions]
    return actions_BHA, {
        "case": task.case, "contender": contender.name, "seed": seed, "ms": took_s * 1e3, "inside_ms": meter.inside_s * 1e3,
        "cost": float(task.price(actions_BHA)[0]), "optimum": task.optimum, "finite": bool(torch.isfinite(actions_BHA).all()),
        "plan_outside": bool(task.outside(actions_BHA).any()), "outside": sum(outside),
        "candidates": sum(actions.shape[:-2].numel() for actions in meter.actions),
    }  # fmt: skip


def tuned(contender: Contender, tasks: Sequence[Task]) -> float | None:
    """The value of its constant with the least mean cost on these tasks; not finite is worst."""
    if not contender.rates:
        return None

    def mean_cost(rate: float) -> float:
        found = [one(contender, task, TUNING_SEEDS[0], rate)[1] for task in tasks]
        return sum(sample["cost"] if sample["finite"] else float("inf") for sample in found) / len(found)

    return min(contender.rates, key=mean_cost)


def compare(contenders: Sequence[Contender], tasks: Sequence[Task], tuning: Sequence[Task], seeds: int, say: Say) -> dict[str, Any]:
    """Every contender on every task with every seed, in an order drawn anew each time, after one call that is not counted."""
    entering = [c for c in contenders if not c.needs_model or tasks[0].rerun is not None]
    rates, faults = {}, {}
    for contender in entering:
        say(f"{tasks[0].case}: first call{' and tuning' if contender.rates else ''} of {contender.name}")
        try:
            rates[contender.name] = tuned(contender, tuning)
            one(contender, tasks[0], 0, rates[contender.name])
        except Exception as error:  # whatever a peer does, the others are still compared
            faults[contender.name] = f"{type(error).__name__}: {error}"
    entering = [c for c in entering if c.name not in faults]
    order, samples = random.Random(0), []  # noqa: S311
    for seed in range(seeds):
        for index, task in enumerate(tasks):
            say(f"{task.case}: problem {index + 1} of {len(tasks)}, seed {seed + 1} of {seeds}")
            for contender in order.sample(entering, len(entering)):
                _, sample = one(contender, task, seed, rates[contender.name])
                samples.append(sample | {"problem": index})
    return {"case": tasks[0].case, "rates": {name: rate for name, rate in rates.items() if rate is not None}, "faults": faults,
            "samples": samples}  # fmt: skip


def contract(contenders: Sequence[Contender], seeds: int, say: Say) -> list[dict[str, Any]]:
    """What each does when 30 % of the costs are NaN, and when a problem is planned beside others."""
    rows = []
    tasks = [analytic_task("linear-quadratic", 50 + seed) for seed in range(seeds)]
    tuning = [analytic_task("linear-quadratic", seed) for seed in TUNING_SEEDS]
    batches = [analytic_task("linear-quadratic", 40 + seed, num_problems=3) for seed in range(3)]
    for contender in contenders:
        if not contender.contract:
            continue
        say(f"contract: {contender.name}")
        row: dict[str, Any] = {"contender": contender.name, "warm_start": contender.warm_start, "batch": contender.batch}
        rate = contender.rates[0] if contender.rates else None
        try:
            rate = tuned(contender, tuning)
            row["nan"] = [_with_nan(contender, task, seed, rate) for seed, task in enumerate(tasks)]
        except Exception as error:
            row["nan_fault"] = f"{type(error).__name__}: {error}"
        if contender.batch != "no":
            try:
                row["batch_change"] = max(_batch_change(contender, batch, rate) for batch in batches)
            except Exception as error:
                row["batch_fault"] = f"{type(error).__name__}: {error}"
        rows.append(row)
    return rows


def _with_nan(contender: Contender, task: Task, seed: int, rate: float | None) -> dict[str, Any]:
    holed = with_nan(task)
    _, whole = one(contender, task, seed, rate)
    actions_BHA, sample = one(contender, holed, seed, rate)
    own = float(replace(holed, referee=holed.problem).price(actions_BHA)[0])
    return {"finite": sample["finite"], "own_cost_nan": own != own, "cost": sample["cost"], "cost_without_nan": whole["cost"],
            "optimum": task.optimum}  # fmt: skip


def _batch_change(contender: Contender, batch: Task, rate: float | None) -> float:
    """Largest change of an action, in half ranges, when a problem is planned beside two others instead of alone; 0 if not a bit changes."""
    together, _ = one(contender, batch, 0, rate, batch=True)
    alone = [one(contender, batch.alone(row), 0, rate, batch=True)[0] for row in range(batch.problem.num_problems)]
    return float(((torch.cat(alone) - together).abs() / batch.half_A).max())


def run(request: dict[str, Any], say: Say) -> dict[str, Any]:
    """Everything that the request asks for."""
    torch.set_num_threads(request["threads"])
    contenders, missing = available()
    contenders = [c for c in contenders if not request["libraries"] or c.library in {OURS, *request["libraries"]}]
    cases = []
    if request["analytic"]:
        for case in CASES:
            tasks = [analytic_task(case, seed) for seed in range(request["problems"])]
            tuning = [analytic_task(case, seed) for seed in TUNING_SEEDS]
            cases.append(compare(contenders, tasks, tuning, request["seeds"], say))
    if request["recording"]:
        from goalward.experiments.bench.peers.reach import BUDGETS, reach_tasks

        for budget in BUDGETS:
            tasks = reach_tasks(Path(request["recording"]), request["env"], budget)
            # The last two moments are for tuning only.
            cases.append(compare(contenders, tasks[:-2], tasks[-2:], request["seeds"], say))
    rows = contract(contenders, request["seeds"], say) if request["analytic"] else []
    return {"cases": cases, "contract": rows, "missing": missing, "torch": torch.__version__, "threads": torch.get_num_threads()}


def main() -> None:
    """Entry point."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    out = sys.stdout

    def say(what: str) -> None:
        print(json.dumps({"doing": what}), file=out, flush=True)

    with contextlib.redirect_stdout(io.StringIO()):  # some peers print
        result = run(request, say)
    Path(request["result"]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
