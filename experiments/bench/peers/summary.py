"""Medians and counts of a comparison, and their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from goalward.experiments.bench.peers.contender import REFERENCE

THEIRS = "stable-worldmodel CEM, own rollout"


def case_rows(case: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a contender, ours first; ratios are medians over pairs: the same problem and seed, moments apart.

    `best_times_ours` is the ratio of the quickest plans: what other work on the machine disturbs least.
    """
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for sample in case["samples"]:
        by_name.setdefault(sample["contender"], []).append(sample)
    reference = {(s["problem"], s["seed"]): s for s in by_name.get(REFERENCE, [])}
    least_ms = min((sample["ms"] for sample in reference.values()), default=None)
    rows = []
    for name, samples in by_name.items():
        pairs = [(s, reference[s["problem"], s["seed"]]) for s in samples if (s["problem"], s["seed"]) in reference]
        gaps = [s["cost"] / s["optimum"] - 1 for s in samples if s["optimum"] is not None]
        ms = [s["ms"] for s in samples]
        rows.append(
            {
                "contender": name,
                "plans": len(samples),
                "ms_least": min(ms),
                "best_times_ours": None if least_ms is None else min(ms) / least_ms,
                "ms_p50": float(np.median(ms)),
                "ms_p95": float(np.percentile(ms, 95)),
                "times_ours": _median([a["ms"] / b["ms"] for a, b in pairs]),
                "cost_to_ours": _median([a["cost"] / b["cost"] for a, b in pairs]),
                "above_optimum": _median(gaps),
                "candidates": int(np.median([s["candidates"] for s in samples])),
                "outside": sum(s["outside"] for s in samples) / max(1, sum(s["candidates"] for s in samples)),
                "plans_outside": sum(s["plan_outside"] for s in samples),
                "overhead": _median([1 - s["inside_ms"] / s["ms"] for s in samples]),
                "overhead_ms": _median([s["ms"] - s["inside_ms"] for s in samples]),
                "tuned": case["rates"].get(name),
            }
        )
    return sorted(rows, key=_family)


def _family(row: Mapping[str, Any]) -> tuple[bool, str]:
    """Ours first, then by library and method."""
    return not row["contender"].startswith("goalward"), row["contender"]


def contract_rows(contract: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a contender: counts of plans under a cost with holes, and what a batch changes."""
    rows = []
    for found in contract:
        plans = found.get("nan", [])
        rows.append(
            {
                "contender": found["contender"],
                "plans": len(plans),
                "finite": sum(plan["finite"] for plan in plans),
                "own_cost_nan": sum(plan["own_cost_nan"] for plan in plans),
                "cost_change": _median([plan["cost"] / plan["cost_without_nan"] for plan in plans]),
                "nan_fault": found.get("nan_fault"),
                "warm_start": found["warm_start"],
                "batch": found["batch"],
                "batch_change": found.get("batch_change"),
                "batch_fault": found.get("batch_fault"),
            }
        )
    return rows


@dataclass(frozen=True, slots=True)
class Cells:
    """A table as text."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def drawn(self) -> Any:
        """For a terminal."""
        from rich.table import Table

        table = Table(title=self.title)
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="right" if index else "left", no_wrap=not index)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For the documentation."""
        rule = ["---", *["---:"] * (len(self.columns) - 1)]
        lines = [f"| {' | '.join(cells)} |" for cells in (self.columns, rule, *self.rows)]
        return "\n".join([f"**{self.title}**", "", *lines, ""])


def case_table(case: Mapping[str, Any]) -> Cells:
    """The table of `case_rows`."""
    rows = case_rows(case)
    known = any(row["above_optimum"] is not None for row in rows)
    cost = "cost above optimum" if known else "cost / ours"
    columns = (
        "planner", cost, "ms p50", "p95", "least", "time / ours", "of the least", "overhead", "candidates", "outside", "plans outside",
        "tuned",
    )  # fmt: skip
    return Cells(case["case"], columns, [
        (
            row["contender"], _percent(row["above_optimum"], 2) if known else _number(row["cost_to_ours"], 3), f"{row['ms_p50']:.1f}",
            f"{row['ms_p95']:.1f}", f"{row['ms_least']:.1f}", _number(row["times_ours"], 2), _number(row["best_times_ours"], 2),
            f"{_percent(row['overhead'])}, {row['overhead_ms']:.1f} ms",
            str(row["candidates"]), _percent(row["outside"]), f"{row['plans_outside']} of {row['plans']}",
            "" if row["tuned"] is None else f"{row['tuned']:g}",
        )
        for row in rows
    ])  # fmt: skip


def contract_table(contract: Sequence[Mapping[str, Any]]) -> Cells:
    """The table of `contract_rows`."""
    cells = []
    for row in contract_rows(contract):
        of, change = f"of {row['plans']}", row["batch_change"]
        nan = (f"{row['finite']} {of}", f"{row['own_cost_nan']} {of}", _number(row["cost_change"], 3))
        same = row["batch_fault"] or ("-" if change is None else "yes" if change == 0 else f"no, by {change:.2g}")
        cells.append((row["contender"], *((row["nan_fault"], "", "") if row["nan_fault"] else nan), row["warm_start"], row["batch"], same))
    title = "linear-quadratic with 30 % of the costs NaN, and three problems in one call"
    columns = ("planner", "finite plans", "plan's own cost NaN", "cost / without NaN", "warm start", "batch", "same bits in a batch")
    return Cells(title, columns, cells)


def verdicts(result: Mapping[str, Any]) -> list[str]:
    """What was promised, beside what was measured, for every case with a learned model."""
    lines = []
    for case in result["cases"]:
        rows = {row["contender"]: row for row in case_rows(case)}
        if THEIRS in rows and REFERENCE in rows:
            theirs, own = rows[THEIRS], rows[REFERENCE]
            lines += [
                f"{case['case']}: {THEIRS} takes {theirs['times_ours']:.1f} times as long as {REFERENCE}, by the quickest plans "
                f"{theirs['best_times_ours']:.1f} times (wanted: 5)",
                f"{case['case']}: its plans cost {theirs['cost_to_ours']:.3f} times as much (wanted: at least 1); overhead of ours "
                f"{_percent(own['overhead'])} (wanted: at most 5 %)",
            ]
    return lines


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def _percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
