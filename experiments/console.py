"""The table of an evaluation on a terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDTH = 118


def summary_table(results: Mapping[str, Any]) -> Table:
    """The table: a row a method.

    Args:
        results: the content of `results.json`.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("method", no_wrap=True)
    for title in ("strict success\n% [95 % interval]", "moderate success\n% [95 % interval]", "final distance\nmedian / p90 cm",
                  "steps to\nsuccess", "planning ms\np50 / p95 / p99"):  # fmt: skip
        table.add_column(title, justify="right", no_wrap=True)
    for method in results["methods"]:
        final, plan, steps = method["final_distance_m"], method["plan_ms"], method["steps_to_success"]["median"]
        style = "bold" if method["role"] == "planner" else ""
        table.add_row(
            method["name"],
            _rate(method["strict"]),
            _rate(method["moderate"]),
            " / ".join("-" if v is None else f"{100 * v:.1f}" for v in (final["median"], final["p90"])),
            "-" if steps is None else f"{steps:g}",
            "-" if plan["p50"] is None else " / ".join(f"{plan[p]:.0f}" for p in ("p50", "p95", "p99")),
            style=style,
        )
    return table


def print_summary(results: Mapping[str, Any], report: Path) -> None:
    """Prints the table, what failed, and where the report is."""
    console = Console(
        file=sys.stdout, width=None if sys.stdout.isatty() else max(_WIDTH, shutil.get_terminal_size().columns), highlight=False
    )
    config, env = results["config"], results["env"]
    strict, moderate = env.get("strict_tolerance_m"), env.get("moderate_tolerance_m")
    console.print(Text(f"\n{env['version']}, {config['episodes']} {config['split']} goals, seed {config['seed']}", style="bold"))
    console.print(summary_table(results))
    if strict is not None and moderate is not None:
        console.print(
            f"strict: within {100 * strict:g} cm at {env['strict_steps']} steps running; moderate: within {100 * moderate:g} cm at the end"
        )
    for method in results["methods"]:
        if method["failures"]:
            console.print(
                f"[red]{method['name']}: {method['failures']} of {method['episodes']} episodes broken off as failed[/red]; see the report"
            )
    if results["resumed_episodes"]:
        console.print(f"{results['resumed_episodes']} episodes were taken over from an interrupted run")
    console.print(f"report: {report}", soft_wrap=True)


def _rate(figures: Mapping[str, Any]) -> str:
    return f"{100 * figures['rate']:.1f} [{100 * figures['low']:.1f}, {100 * figures['high']:.1f}]"
