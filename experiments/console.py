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
    for line in [*decision_lines(results), *detection_lines(results)]:
        console.print(line, soft_wrap=True)
    for method in results["methods"]:
        if method["failures"]:
            console.print(
                f"[red]{method['name']}: {method['failures']} of {method['episodes']} episodes broken off as failed[/red]; see the report"
            )
    if results["resumed_episodes"]:
        console.print(f"{results['resumed_episodes']} episodes were taken over from an interrupted run")
    console.print(f"report: {report}", soft_wrap=True)


def decision_lines(results: Mapping[str, Any]) -> list[str]:
    """How plans came about, where there is more to tell than that every search ran to its end."""
    lines = []
    for method in results["methods"]:
        decisions = method.get("decisions")
        if not decisions:
            continue
        facts = []
        if set(decisions["stop_reasons"]) - {"iterations"}:
            reasons = ", ".join(f"{reason} {count}" for reason, count in decisions["stop_reasons"].items())
            iterations = decisions["iterations"]
            facts.append(f"{iterations['p50']:g} iterations a plan at the median, {iterations['p5']:g} at the 5th percentile ({reasons})")
        if decisions["reused"]:
            facts.append(f"{decisions['reused']} of {decisions['reused'] + decisions['planned']} actions from an earlier plan")
        if decisions["surprised"]:
            facts.append(f"{decisions['surprised']} surprises")
        if facts:
            lines.append(f"{method['name']}: {'; '.join(facts)}")
    return lines


def detection_lines(results: Mapping[str, Any]) -> list[str]:
    """Success as the controller sees it, against the true state."""
    detection = results.get("detection")
    if not detection:
        return []

    def said(figures: Mapping[str, Any] | None, about: str) -> str:
        return f"{about} -" if figures is None else f"{about} {_rate(figures)} %"

    frames, episodes = detection["frames"], detection["episodes"]
    claims = sum(claim["step"] is not None for claim in detection["claims"])
    return [
        f"success seen in latents: frames within {100 * detection['tolerance_m']:g} cm: {said(frames['precision'], 'precision')}, "
        f"{said(frames['recall'], 'recall')}; claimed in {claims} of {len(detection['claims'])} episodes: "
        f"{said(episodes['precision'], 'true')}, {said(episodes['recall'], 'of the reached')}"
    ]


def _rate(figures: Mapping[str, Any]) -> str:
    return f"{100 * figures['rate']:.1f} [{100 * figures['low']:.1f}, {100 * figures['high']:.1f}]"
