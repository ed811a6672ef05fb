"""The figures of a benchmark as inline SVG, with colours of their own, so that they can also stand in a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from goalward.experiments.charts import Frame, line, log_share, percent, rect, text

COLOURS = (
    "#00798c", "#d1495b", "#edae49", "#66a182", "#2e4057", "#9b5de5", "#f15bb5", "#8a8f98", "#b56576", "#3a86ff", "#6a994e", "#bc6c25",
)  # fmt: skip
_TICKS = [(share / 4, f"{25 * share} %") for share in range(5)]


def colours_of(results: Mapping[str, Any]) -> dict[str, str]:
    """One colour a method, the same in all figures; grey for references."""
    names = list(dict.fromkeys(entry["method"] for entry in results["methods"]))
    return {name: COLOURS[rank % len(COLOURS)] for rank, name in enumerate(names)}


def intervals(entries: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> str:
    """Strict success with 95 % intervals, one row a method, splits one below another."""
    row, gap = 19.0, 26.0
    splits = list(dict.fromkeys(entry["split"] for entry in entries))
    frame = Frame(width=620, height=row * len(entries) + gap * len(splits) + 46, left=150, right=64, top=6, bottom=40)
    parts = [_style(), *frame.ticks_x([(p / 100, str(p)) for p in (0, 25, 50, 75, 100)], "strict success, %", grid=True)]
    y = frame.top
    for split in splits:
        y += gap
        parts.append(text(6, y - 7, split, "axis strong"))
        for entry in (entry for entry in entries if entry["split"] == split):
            strict, colour = entry["strict"], colours[entry["method"]]
            low, high, middle = frame.x(strict["low"]), frame.x(strict["high"]), y + row / 2
            label = f"{entry['method']}, {split}: {percent(strict['rate'])}, {percent(strict['low'])} to {percent(strict['high'])}"
            parts += [
                f'<g style="color:{colour}"><title>{escape(label)}</title>',
                rect(low, middle - 4, max(2.0, high - low), 8, "span", radius=4),
                f'<circle class="dot" cx="{frame.x(strict["rate"]):.1f}" cy="{middle:.1f}" r="4"/>',
                text(frame.left - 8, middle + 4, entry["method"] + " †" * entry["privileged"], "tick end"),
                text(frame.width - frame.right + 8, middle + 4, percent(strict["rate"]), "tick"),
                "</g>",
            ]
            y += row
    return _standing(frame.svg(parts, title="strict success of every method, with 95 % intervals"))


def against_time(entries: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> str:
    """Strict success against the median time of a decision, logarithmic; methods that are not timed are left out."""
    timed = [entry for entry in entries if entry["plan_ms"]["p50"]]
    if not timed:
        return ""
    times = [entry["plan_ms"]["p50"] for entry in timed]
    low, high = min(times) / 1.5, max(times) * 1.5
    frame = Frame(width=620, height=300, left=52, right=120, top=14, bottom=42)
    ticks = [ms for ms in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000) if low <= ms <= high]
    parts = [_style(), *frame.grid_y(_TICKS)]
    parts += frame.ticks_x([(log_share(ms, low, high), str(ms)) for ms in ticks], "time of a decision, median, ms", grid=True)
    for entry in timed:
        strict, x = entry["strict"], frame.x(log_share(entry["plan_ms"]["p50"], low, high))
        label = f"{entry['method']}, {entry['split']}: {percent(strict['rate'])} at {entry['plan_ms']['p50']:.0f} ms"
        parts += [
            f'<g style="color:{colours[entry["method"]]}"><title>{escape(label)}</title>',
            line(x, frame.y(strict["low"]), x, frame.y(strict["high"]), "whisker"),
            f'<circle class="dot" cx="{x:.1f}" cy="{frame.y(strict["rate"]):.1f}" r="4.5"/></g>',
        ]
    names = {entry["method"]: colours[entry["method"]] for entry in timed}
    return _standing(frame.svg([*parts, *_legend(frame, names)], title="success and time of a decision"))


def against_data(entries: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> str:
    """Strict success against the share of the data, logarithmic, one line a family."""
    families: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        if entry["family"]:
            families.setdefault(entry["family"], []).append(entry)
    families = {name: sorted(members, key=lambda e: e["data_fraction"]) for name, members in families.items() if len(members) > 1}
    if not families:
        return ""
    shares = sorted({entry["data_fraction"] for members in families.values() for entry in members})
    low, high = shares[0] / 1.2, shares[-1] * 1.2
    frame = Frame(width=620, height=300, left=52, right=120, top=14, bottom=42)
    parts = [_style(), *frame.grid_y(_TICKS)]
    parts += frame.ticks_x([(log_share(s, low, high), f"{100 * s:g} %") for s in shares], "share of the training episodes", grid=True)
    used = {}
    for members in families.values():
        used[members[-1]["family"]] = colour = colours[members[-1]["method"]]
        spots = [(frame.x(log_share(e["data_fraction"], low, high)), e["strict"]) for e in members]
        corners = " ".join(f"{x:.1f},{frame.y(s['rate']):.1f}" for x, s in spots)
        parts.append(f'<g style="color:{colour}"><polyline class="line" points="{corners}"/>')
        for x, strict in spots:
            parts.append(line(x, frame.y(strict["low"]), x, frame.y(strict["high"]), "whisker"))
            parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{frame.y(strict["rate"]):.1f}" r="4"/>')
        parts.append("</g>")
    return _standing(frame.svg([*parts, *_legend(frame, used)], title="success and amount of data"))


def _legend(frame: Frame, names: Mapping[str, str]) -> list[str]:
    parts = []
    for rank, (name, colour) in enumerate(names.items()):
        y = frame.top + 16 * rank + 6
        parts.append(f'<circle cx="{frame.width - frame.right + 12:.0f}" cy="{y:.0f}" r="4" fill="{colour}"/>')
        parts.append(text(frame.width - frame.right + 22, y + 4, name))
    return parts


def _standing(svg: str) -> str:
    """So that it is a file of its own as well."""
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) if svg else ""


def _style() -> str:
    return (
        "<style>text{font:12px system-ui,sans-serif;fill:#667}.strong{font-weight:600}.end{text-anchor:end}.mid{text-anchor:middle}"
        ".grid{stroke:#8883;stroke-width:1}.span{fill:currentColor;opacity:.3}.dot{fill:currentColor}"
        ".whisker{stroke:currentColor;stroke-width:1.5;opacity:.5}.line{fill:none;stroke:currentColor;stroke-width:2}</style>"
    )
