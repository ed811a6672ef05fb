"""Does a plan keep its deadline? Overruns of many plans, in milliseconds and in iterations.

    python -m goalward.experiments.bench.deadline --env reach --plans 1000

A plan may end one measured iteration after its deadline, no later: the search stops before an iteration that, at the pace of the slowest
one so far, would end too late, so only an iteration slower than all before it can overrun. The first one always runs.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field, replace

import numpy as np

from goalward import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadlineCommand:
    """Plan by deadlines, many times, and measure how late the plans are."""

    env: str = "reach"
    """Environment whose shipped model plans."""
    planner: str = "all"
    """Registered planner, or all."""
    plans: int = 1000
    """Plans of each planner, spread over the budgets."""
    budgets_ms: tuple[float, ...] = (20.0, 50.0, 100.0)
    """Budgets in turn."""
    horizon: int = 3
    """Actions in a plan."""
    goals: int = 8
    """Validation goals that problems are taken from."""

    def __post_init__(self) -> None:
        if not 1 <= self.plans <= 1_000_000:
            raise UserError(f"plans={self.plans} is out of range 1..1000000")
        if not self.budgets_ms or not all(0 < budget < 1e6 for budget in self.budgets_ms):
            raise UserError(f"budgets_ms={self.budgets_ms}: give positive numbers of milliseconds")


@dataclass(slots=True)
class _Watch:
    """A clock that remembers its readings: of a search with a deadline, begin, (iteration begins, ends) ..., end."""

    readings_s: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        self.readings_s.append(time.perf_counter())
        return self.readings_s[-1]

    def iterations_ms(self) -> list[float]:
        """Durations of the iterations of the last search."""
        inner = self.readings_s[1:-1]
        return [(end - begin) * 1e3 for begin, end in zip(inner[::2], inner[1::2], strict=False)]


def run(config: DeadlineCommand) -> int:
    """Runs the benchmark and prints a table.

    Returns:
        Exit code: 0 when every plan is feasible and the 99th percentile of the overruns is at most one iteration, else 1.
    """
    from rich.console import Console
    from rich.table import Table

    from goalward import load_model
    from goalward.experiments.bench.reach_problems import action_set_of, problem_of, snapshots
    from goalward.planners.base import PlannerState
    from goalward.planners.registry import PLANNERS, make_planner

    model = load_model(config.env)
    bounds = action_set_of(config.env, model)
    moments = snapshots(config.env, model, num_goals=config.goals)
    problems = [problem_of(model, bounds, [moment], horizon=config.horizon) for moment in moments]
    names = sorted(PLANNERS) if config.planner == "all" else [config.planner]
    table = Table(title=f"{config.plans} plans of each planner by deadline, model {config.env}")
    columns = ["planner", "budget ms", "plans", "iterations p50", "iteration ms p50"]
    columns += ["late ms p50", "p95", "p99", "p99 iterations", "feasible"]
    for column in columns:
        table.add_column(column, justify="left" if column == "planner" else "right")
    good = True
    for name in names:
        watch = _Watch()
        planner = make_planner(name, replace(make_planner(name).config, num_iterations=1000), clock=watch)  # type: ignore[attr-defined]
        planner.plan(problems[0], PlannerState.initial([0]))  # the first call of a process also allocates
        for budget_ms in config.budgets_ms:
            late, late_iterations, counts, paces, feasible = [], [], [], [], 0
            num = -(-config.plans // len(config.budgets_ms))
            state = PlannerState.initial([0])
            for index in range(num):
                problem = problems[index % len(problems)]
                watch.readings_s.clear()
                deadline_s = time.perf_counter() + budget_ms * 1e-3
                plan, state = planner.plan(problem, state.cold(), deadline_s=deadline_s)
                over_ms = max(0.0, (time.perf_counter() - deadline_s) * 1e3)
                pace = watch.iterations_ms()
                late.append(over_ms)
                late_iterations.append(over_ms / max(pace))
                counts.append(plan.num_iterations)
                paces.append(float(np.median(pace)))
                again = bounds.project(plan.actions_BHA[:, None], problem.situation)[:, 0]
                feasible += bool((again == plan.actions_BHA).all()) and not bool(plan.failed_B.any())
            p99 = float(np.percentile(late_iterations, 99))
            good = good and feasible == num and p99 <= 1.0
            p50, p95, p99_ms = np.percentile(late, [50, 95, 99])
            table.add_row(
                name, f"{budget_ms:g}", str(num), f"{np.median(counts):.0f}", f"{np.median(paces):.1f}",
                f"{p50:.1f}", f"{p95:.1f}", f"{p99_ms:.1f}", f"{p99:.2f}", f"{feasible} of {num}",
            )  # fmt: skip
    Console(width=140).print(table)
    return 0 if good else 1


def main() -> None:
    """Entry point."""
    from goalward.experiments.command_line import parse
    from goalward.experiments.errors import exit_code_of

    sys.exit(exit_code_of(lambda: run(parse(DeadlineCommand, prog="deadline", args=sys.argv[1:]))))


if __name__ == "__main__":
    main()
