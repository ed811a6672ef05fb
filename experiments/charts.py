"""The figures of a report as inline SVG: no library, colours from the page's style sheet, values on hover.

Every function returns one `<svg>` element. Sizes are in the SVG's own units; the page scales them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """The plotting area of a figure and its scales."""

    width: float = 560
    height: float = 300
    left: float = 48
    right: float = 18
    top: float = 14
    bottom: float = 40

    def x(self, share: float) -> float:
        """Horizontal position of a share 0..1 of the plotting area."""
        return self.left + share * (self.width - self.left - self.right)

    def y(self, share: float) -> float:
        """Vertical position of a share 0..1, upwards."""
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)

    def svg(self, parts: Sequence[str], *, title: str, css: str = "chart") -> str:
        """Wraps the parts."""
        box = f"0 0 {self.width:g} {self.height:g}"
        return f'<svg class="{css}" viewBox="{box}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'

    def grid_y(self, ticks: Sequence[tuple[float, str]]) -> list[str]:
        """Horizontal grid lines with labels, at (share, label)."""
        x0, x1 = self.x(0), self.x(1)
        return [
            line(x0, self.y(share), x1, self.y(share), "grid") + text(x0 - 8, self.y(share) + 4, label, "tick end")
            for share, label in ticks
        ]

    def ticks_x(self, ticks: Sequence[tuple[float, str]], label: str, *, grid: bool = False) -> list[str]:
        """Labels under the plotting area at (share, label), and the axis' name."""
        parts = [text(self.x(s), self.y(0) + 17, name, "tick mid") for s, name in ticks]
        if grid:
            parts += [line(self.x(share), self.y(0), self.x(share), self.y(1), "grid") for share, _ in ticks]
        return [*parts, text(self.x(0.5), self.height - 5, label, "axis mid")]


def text(x: float, y: float, content: str, css: str = "tick") -> str:
    """A piece of text; the class says how it is aligned."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}">{escape(content)}</text>'


def line(x0: float, y0: float, x1: float, y1: float, css: str) -> str:
    """A straight line."""
    return f'<line class="{css}" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'


def rect(x: float, y: float, width: float, height: float, css: str, *, label: str = "", radius: float = 0) -> str:
    """A rectangle, with a text on hover where one is given."""
    attributes = f' rx="{radius:g}"' * bool(radius) + f" {tip(label)}" * bool(label)
    return f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"{attributes}/>'


def tip(content: str) -> str:
    """The attribute that shows a text on hover, and to readers of screens."""
    return f'data-tip="{escape(content)}"'


def line_path(points: Sequence[tuple[float, float]]) -> str:
    """The `d` of a polyline."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def percent(rate: float) -> str:
    """96 %, 97.5 %."""
    return f"{100 * rate:.1f}".removesuffix(".0") + "\u202f%"


def interval_bars(methods: Sequence[Mapping[str, Any]], *, classes: Mapping[str, str]) -> str:
    """Strict success of every method: a dot, its 95 % interval as a bar, and the moderate rate as a hollow dot."""
    row = 42.0
    frame = Frame(width=560, height=30 + row * len(methods) + 30, left=86, right=86, top=8, bottom=40)
    parts = frame.ticks_x([(p / 100, f"{p}") for p in (0, 25, 50, 75, 100)], "success rate, %", grid=True)
    for number, method in enumerate(methods):
        y = frame.top + row * (number + 0.5) + 6
        css, strict, moderate = classes[method["name"]], method["strict"], method["moderate"]
        label = (
            f"{method['name']}: strict {percent(strict['rate'])}, 95 % interval {percent(strict['low'])} to {percent(strict['high'])}; "
            f"moderate {percent(moderate['rate'])} ({percent(moderate['low'])} to {percent(moderate['high'])})"
        )
        x0, x1 = frame.x(strict["low"]), frame.x(strict["high"])
        parts += [
            f'<g class="{css}" {tip(label)}>',
            rect(0, y - row / 2, frame.width, row, "hit"),
            line(frame.x(0), y, frame.x(1), y, "track"),
            rect(x0, y - 7, max(2.0, x1 - x0), 14, "span", radius=7),
            f'<circle class="ring" cx="{frame.x(moderate["rate"]):.1f}" cy="{y:.1f}" r="5"/>',
            f'<circle class="dot" cx="{frame.x(strict["rate"]):.1f}" cy="{y:.1f}" r="5.5"/>',
            text(frame.left - 14, y + 5, method["name"], "name end"),
            text(frame.width - frame.right + 14, y + 5, percent(strict["rate"]), "value"),
            "</g>",
        ]
    return frame.svg(parts, title="Strict success of every method with 95 % intervals")


def success_over_steps(reached: Mapping[str, Sequence[int | None]], *, max_steps: int, classes: Mapping[str, str], dt_s: float) -> str:
    """Share of goals reached strictly within so many steps, one staircase a method.

    Args:
        reached: method -> step of success of each episode, None where there was none.
        max_steps: right end.
        classes: method -> CSS class.
        dt_s: duration of a step.
    """
    frame = Frame(top=30)
    every = max(1, round(max_steps / 6))
    parts = frame.grid_y([(p / 100, f"{p}") for p in (0, 25, 50, 75, 100)])
    parts += frame.ticks_x([(s / max_steps, str(s)) for s in range(0, max_steps + 1, every)], "steps")
    parts.append(text(frame.x(0) - 40, frame.top - 16, "% of goals reached", "axis"))
    shares = {}
    for name, steps in reached.items():
        share = [sum(s is not None and s <= k for s in steps) / len(steps) for k in range(max_steps + 1)]
        shares[name] = share
        points = [(frame.x(0), frame.y(share[0]))]
        for k in range(1, max_steps + 1):
            points += [(frame.x(k / max_steps), frame.y(share[k - 1])), (frame.x(k / max_steps), frame.y(share[k]))]
        parts.append(f'<path class="line {classes[name]}" d="{line_path(points)}"/>')
    width = frame.x(1 / max_steps) - frame.x(0)
    for k in range(max_steps + 1):
        label = f"within {k} steps ({k * dt_s:.1f} s): " + ", ".join(f"{name} {percent(share[k])}" for name, share in shares.items())
        parts.append(rect(frame.x(k / max_steps) - width / 2, frame.top, width, frame.y(0) - frame.top, "hit", label=label))
    return frame.svg(parts, title="Success over steps")


def log_share(value: float, low: float, high: float) -> float:
    """Where a value lies on a logarithmic axis, clipped to 0..1."""
    clipped = min(max(value, low), high)
    return math.log(clipped / low) / math.log(high / low)


def distance_swarm(
    finals_m: Mapping[str, Sequence[tuple[float, str]]], *, classes: Mapping[str, str], thresholds_m: Sequence[tuple[float, str]]
) -> str:
    """Final distances, one dot an episode, on a logarithmic axis.

    Args:
        finals_m: method -> (distance, label) of each episode; infinite for failures, drawn at the right edge.
        classes: method -> CSS class.
        thresholds_m: tolerances to mark, with their names.
    """
    rows = len(finals_m)
    frame = Frame(left=70, height=max(322, 54 * rows + 66), top=26)
    finite = [d for ds in finals_m.values() for d, _ in ds if math.isfinite(d)] or [0.01]
    low, high = max(1e-3, min(0.005, *finite)), max(0.5, 1.05 * max(finite))
    ticks = [t for t in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0) if low <= t <= high]
    parts = frame.ticks_x([(log_share(t, low, high), f"{100 * t:g}") for t in ticks], "final distance, cm (logarithmic)", grid=True)
    for tolerance, name in thresholds_m:
        x = frame.x(log_share(tolerance, low, high))
        parts.append(line(x, frame.top - 4, x, frame.y(0), "threshold") + text(x, frame.top - 10, name, "note mid"))
    height = (frame.y(0) - frame.top) / max(1, rows)
    for number, (name, distances) in enumerate(finals_m.items()):
        middle = frame.top + height * (number + 0.5)
        parts.append(text(frame.left - 12, middle + 4, name, "name end"))
        taken: dict[int, int] = {}
        for distance, label in sorted(distances):
            x = frame.x(1.0 if not math.isfinite(distance) else log_share(distance, low, high))
            cell = round(x / 6.5)
            rank = taken.get(cell, 0)
            taken[cell] = rank + 1
            offset = (rank + 1) // 2 * 6.0 * (1 if rank % 2 else -1)
            y = middle + max(-height / 2 + 5, min(height / 2 - 5, offset))
            css = classes[name] if math.isfinite(distance) else "failed"
            parts.append(f'<circle class="bead {css}" cx="{x:.1f}" cy="{y:.1f}" r="3.2" {tip(label)}/>')
    return frame.svg(parts, title="Distribution of final distances")


def nice_step(span: float, wanted: int) -> float:
    """A step of 1, 2 or 5 times a power of ten that cuts a span into about so many parts."""
    raw = span / max(1, wanted)
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)


def histogram(values: Sequence[float], *, unit: str, marks: Sequence[tuple[str, float | None]], css: str, bins: int = 36) -> str:
    """A histogram with marked values.

    Args:
        values: at least one.
        unit: name of the horizontal axis.
        marks: (name, value) drawn as lines; None is left out.
        css: class of the bars.
        bins: about so many.
    """
    frame = Frame(top=34)
    shown = [value for _, value in marks if value is not None]
    low, high = min(values), max(values)
    # A few slow outliers must not squeeze everything else into one bar; they are counted in the last one.
    high = min(high, max(3 * sorted(values)[len(values) // 2], *shown, low + 1e-9) * 1.08)
    step = nice_step(max(high - low, 1e-6 + 0.02 * abs(high)), bins)
    first = math.floor(low / step)
    count = max(1, math.ceil(high / step) - first)
    tally = [0] * count
    for value in values:
        tally[min(count - 1, max(0, int(value / step) - first))] += 1
    start, end = first * step, (first + count) * step
    share: Callable[[float], float] = lambda value: (value - start) / (end - start)  # noqa: E731
    spacing = nice_step(end - start, 6)
    ticks = [k * spacing for k in range(math.ceil(start / spacing), math.floor(end / spacing) + 1)]
    parts = frame.ticks_x([(share(t), f"{t:g}") for t in ticks], unit)
    peak = max(tally)
    spacing = max(1.0, nice_step(peak, 4))
    parts += frame.grid_y([(k * spacing / peak, f"{k * spacing:g}") for k in range(int(peak / spacing) + 1)])
    for k, number in enumerate(tally):
        if number:
            x0, x1 = frame.x(k / count) + 0.7, frame.x((k + 1) / count) - 0.7
            label = f"{number} decisions of {start + k * step:g} to {start + (k + 1) * step:g} ms" + (
                " and more" if k == count - 1 and max(values) > end else ""
            )
            top = frame.y(number / peak)
            parts.append(rect(x0, top, x1 - x0, frame.y(0) - top, f"bar {css}", label=label, radius=1.5))
    last_x = -math.inf
    for name, mark in sorted(marks, key=lambda m: m[1] if m[1] is not None else math.inf):
        if mark is None:
            continue
        x = frame.x(min(1.0, share(mark)))
        level = frame.top - (22 if x - last_x < 62 else 8)
        last_x = x if level == frame.top - 8 else -math.inf
        parts.append(line(x, level + 4, x, frame.y(0), "threshold") + text(x, level, f"{name} {mark:.0f}", "note mid"))
    return frame.svg(parts, title=f"Histogram, {unit}")


def energy_scatter(points: Sequence[tuple[float, float, str]], *, css: str) -> str:
    """True distance (m) against latent energy, one dot a time step: does the model's own measure rank the truth?"""
    frame = Frame(top=34)
    high_x = max(0.1, 1.04 * max(x for x, _, _ in points))
    high_y = max(1e-9, 1.06 * max(y for _, y, _ in points))
    step_x, step_y = nice_step(high_x, 6), nice_step(high_y, 4)
    parts = frame.grid_y([(k * step_y / high_y, f"{k * step_y:.3g}") for k in range(int(high_y / step_y) + 1)])
    parts += frame.ticks_x(
        [(k * step_x / high_x, f"{100 * k * step_x:g}") for k in range(int(high_x / step_x) + 1)], "true distance to the goal, cm"
    )
    parts.append(text(frame.x(0) - 40, frame.top - 16, "latent energy", "axis"))
    parts += [
        f'<circle class="grain {css}" cx="{frame.x(x / high_x):.1f}" cy="{frame.y(y / high_y):.1f}" r="2.6" {tip(label)}/>'
        for x, y, label in points
    ]
    return frame.svg(parts, title="Latent energy against true distance")


def curve(
    values: Sequence[float | None],
    *,
    max_steps: int,
    name: str,
    unit: str,
    css: str,
    thresholds: Sequence[float] = (),
    ghost: Sequence[float | None] = (),
) -> str:
    """A small curve over the steps of one episode; the page adds a cursor that follows the pointer and the video.

    Args:
        values: one per instant, the first before any step; None leaves a gap.
        max_steps: right end of the axis, common to all episodes so that they can be compared.
        name: what it is.
        unit: of the values.
        css: class of the line.
        thresholds: values to mark.
        ghost: another method's curve, drawn faintly behind.
    """
    frame = Frame(width=360, height=112, left=36, right=10, top=20, bottom=18)
    known = [v for v in (*values, *ghost) if v is not None]
    high = max([*known, *thresholds, 1e-9]) * 1.06
    step = nice_step(high, 3)
    parts = frame.grid_y([(k * step / high, f"{k * step:.3g}") for k in range(int(high / step) + 1)])
    parts += [
        text(frame.x(s / max_steps), frame.height - 4, str(s), "tick mid") for s in range(0, max_steps + 1, max(1, round(max_steps / 5)))
    ]
    parts.append(text(4, 11, f"{name}, {unit}" if unit else name, "axis"))
    parts += [line(frame.x(0), frame.y(t / high), frame.x(1), frame.y(t / high), "threshold") for t in thresholds]
    for series, style in ((ghost, "line ghost"), (values, f"line {css}")):
        points = [(frame.x(k / max_steps), frame.y(v / high)) for k, v in enumerate(series) if v is not None]
        if points:
            parts.append(f'<path class="{style}" d="{line_path(points)}"/>')
    parts += [
        '<line class="cursor idle" y1="20" y2="94"/><circle class="cursor-dot idle" r="3.4"/>',
        text(frame.width - 10, 11, "", "readout end"),
    ]
    dots = ",".join("" if v is None else f"{v:.4g}" for v in values)
    area = f'data-x0="{frame.x(0):g}" data-x1="{frame.x(1):g}" data-y0="{frame.y(0):g}" data-y1="{frame.y(1):g}"'
    data = f'data-values="{dots}" data-unit="{escape(unit)}" data-n="{max_steps}" data-high="{high:.6g}" {area}'
    return frame.svg(parts, title=f"{name} over the steps", css="curve").replace("<svg ", f"<svg {data} ", 1)
