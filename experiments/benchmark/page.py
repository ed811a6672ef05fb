"""The report page of a benchmark: one file, no network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from importlib import resources
from typing import Any

from goalward.experiments.benchmark.figures import against_data, against_time, colours_of, intervals
from goalward.experiments.benchmark.tables import PRIVILEGED, attribution_table, comparison_table, provenance, success_table, tasks
from goalward.experiments.charts import percent


def build_page(results: Mapping[str, Any]) -> str:
    """Builds the page from `results.json`."""
    css = (resources.files("goalward.experiments") / "report.css").read_text(encoding="utf-8")
    colours = colours_of(results)
    body = [
        f'<header class="hero alone"><div class="hero-text"><p class="over"><b>goalward</b> benchmark</p><h1>{escape(results["name"])}</h1>'
        f'<p class="lede">{escape(_lede(results))}</p><p class="note">{_code(provenance(results))}</p></div></header><main>'
    ]
    for env in tasks(results):
        entries = [entry for entry in results["methods"] if entry["env"] == env]
        figures = (
            ("Success", "Strict success, every split; bars are 95 % intervals.", intervals(entries, colours)),
            ("Success against time", "Time of a decision on one thread, other processes beside it.", against_time(entries, colours)),
            ("Success against data", "The same training on nested shares of the episodes.", against_data(entries, colours)),
        )
        body.append(f'<section><h2>{escape(env)}</h2><div class="figures">')
        body += [f"<figure><h3>{title}</h3><p>{about}</p>{svg}</figure>" for title, about, svg in figures if svg]
        body.append(f'</div><div class="scroll">{success_table(results, env).html()}</div><p class="note">{PRIVILEGED}</p></section>')
    if results["comparisons"]:
        body.append(f'<section><h2>{escape(results["against"])} against the others</h2><p class="note">{_COMPARED}</p>')
        body.append(f'<div class="scroll">{comparison_table(results["comparisons"]).html()}</div></section>')
    if results["attribution"]:
        body.append(f'<section><h2>Where failures come from</h2><p class="note">{_ATTRIBUTED}</p>')
        body.append(f'<div class="scroll">{attribution_table(results["attribution"]).html()}</div></section>')
    made = f"Made by goalward {escape(str(results['versions'].get('goalward', '')))} on {escape(results['created'])}."
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(results["name"])} · goalward benchmark</title>'
        f'<link rel="icon" href="data:,"><style>{css}</style></head><body>{"".join(body)}</main><footer><p class="note">{made}</p></footer>'
        "</body></html>\n"
    )


_COMPARED = (
    "Same goals, same seeds. Points of strict success, with 95 % intervals from a bootstrap over training seeds, then goals; "
    "p is the exact paired test over all pairs."
)
_ATTRIBUTED = (
    "Points of strict success lost by each part, found by replacing parts with ones that cannot err: true dynamics (model), "
    "a linear read-out of the position instead of the latent distance (objective), the true distance (perception); the rest is the "
    "planner's own."
)


def _code(text: str) -> str:
    """Escapes, and sets what stands between backticks as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _lede(results: Mapping[str, Any]) -> str:
    """The planner in one sentence."""
    plain = [e for e in results["methods"] if e["method"] == results["against"] and e["split"] in ("test", "validation")]
    found = ", ".join(f"{percent(e['strict']['rate'])} on {e['env']}" for e in plain)
    return f"{results['against']}: strict success {found}." if found else f"{results['against']} against the others."
