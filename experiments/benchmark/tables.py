"""The tables of a benchmark: what they say; `Table` writes them as Markdown or HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Cells of text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: frozenset[int] = frozenset()
    """Rows that stand out."""

    def markdown(self) -> str:
        """With bars."""
        lines = ["| " + " | ".join(self.head) + " |", "|" + "---|" * len(self.head)]
        for number, row in enumerate(self.rows):
            cells = [f"**{cell}**" if number in self.marked and cell else cell for cell in row]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def html(self) -> str:
        """As a `<table>`."""
        head = "".join(f"<th>{escape(cell)}</th>" for cell in self.head)
        rows = "".join(
            f'<tr{" class=planner" * (number in self.marked)}>' + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for number, row in enumerate(self.rows)
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def markdown_report(results: Mapping[str, Any]) -> str:
    """All tables of `results.json`."""
    parts = [f"# {results['name']}", "", provenance(results)]
    for env in tasks(results):
        parts += ["", f"## {env}", "", success_table(results, env).markdown(), "", PRIVILEGED]
    if results["comparisons"]:
        parts += ["", f"## {results['against']} against the others", "", comparison_table(results["comparisons"]).markdown()]
    if results["attribution"]:
        parts += ["", "## Where failures come from", "", attribution_table(results["attribution"]).markdown()]
    return "\n".join(parts) + "\n"


PRIVILEGED = "† told what no robot knows"


def tasks(results: Mapping[str, Any]) -> list[str]:
    """Short names, each once."""
    return list(dict.fromkeys(entry["env"] for entry in results["methods"]))


def provenance(results: Mapping[str, Any]) -> str:
    """One sentence: counts, time, command."""
    episodes = sum(cell["episodes"] for cell in results["cells"])
    return (
        f"{len(results['cells'])} cells, {episodes} episodes, {results['process_hours']:.2f} hours of one core "
        f"over all runs, benchmark {results['spec_sha256'][:12]}: `{results['command']}`."
    )


def success_table(results: Mapping[str, Any], env: str) -> Table:
    """One row a method and split of one task."""
    rows: list[tuple[str, ...]] = []
    marked: set[int] = set()
    for entry in (entry for entry in results["methods"] if entry["env"] == env):
        final, times = entry["final_distance_m"], entry["plan_ms"]
        if entry["method"] == results["against"]:
            marked.add(len(rows))
        rows.append(
            (
                entry["split"], entry["method"] + " †" * entry["privileged"],
                rate(entry["strict"]), f"{100 * entry['moderate']['rate']:.1f}",
                f"{cm(final['median'])} / {cm(final['p90'])}", number(entry["steps_to_success"]["median"], 0),
                f"{number(times['p50'], 0)} / {number(times['p95'], 0)}",
                f"{entry['episodes'] // entry['training_seeds']}" + f" x {entry['training_seeds']}" * (entry["training_seeds"] > 1),
            )
        )  # fmt: skip
    head = ("split", "method", "strict % [95 %]", "moderate %", "median / p90 cm", "steps", "ms p50 / p95", "episodes")
    return Table(head=head, rows=tuple(rows), marked=frozenset(marked))


def comparison_table(comparisons: Sequence[Mapping[str, Any]]) -> Table:
    """Differences of strict success, in points."""
    rows = [
        (
            c["env"], c["split"], c["against"], f"{100 * c['difference']:+.1f} [{100 * c['low']:+.1f}, {100 * c['high']:+.1f}]",
            f"{c['wins']} / {c['losses']}", str(c["pairs"]), p_value(c["p_value"]),
        )
        for c in comparisons
    ]  # fmt: skip
    head = ("task", "split", "against", "difference, points [95 %]", "only it / only the other", "pairs", "p")
    return Table(head=head, rows=tuple(rows))


def attribution_table(attribution: Sequence[Mapping[str, Any]]) -> Table:
    """Points of strict success that each part loses."""
    parts = list(attribution[0]["lost"])
    rows = [
        (a["env"], a["split"], f"{100 * a['success']:.1f}", *(f"{100 * a['lost'][part]:+.1f}" for part in parts)) for a in attribution
    ]
    return Table(head=("task", "split", "success %", *(f"lost: {part}" for part in parts)), rows=tuple(rows))


def rate(entry: Mapping[str, float]) -> str:
    """`93.5 [89.2, 96.2]`."""
    return f"{100 * entry['rate']:.1f} [{100 * entry['low']:.1f}, {100 * entry['high']:.1f}]"


def cm(metres: float | None) -> str:
    """Centimetres; a dash where there is no number."""
    return number(None if metres is None else 100 * metres, 1)


def number(value: float | None, digits: int) -> str:
    """A number, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def p_value(p: float) -> str:
    """Two significant digits; tiny ones as a bound."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"
