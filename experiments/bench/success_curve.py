"""Success against planning time, for every planner: the curve that users choose a planner from.

    python -m goalward.experiments.bench.success_curve --env reach --episodes 50 --out curve

Every point is a whole closed-loop evaluation on validation goals, with the same goals and seeds for all. Points that are done are kept in
the folder: the same command continues where it stopped.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from goalward import UserError

# Candidates (or starts) per iteration, and iterations.
SAMPLED = ((8, 2), (16, 2), (16, 3), (32, 3), (64, 4))
BUDGETS = {"adam": ((1, 4), (2, 4), (4, 4), (4, 8)), "grasp": ((1, 4), (4, 8)), "hybrid": ((8, 3), (16, 3), (16, 4), (32, 6))}


@dataclass(frozen=True, kw_only=True, slots=True)
class CurveCommand:
    """Evaluate every planner at several budgets; print the table and draw the curve."""

    env: str = "reach"
    """Environment; its shipped model plans."""
    planners: tuple[str, ...] = ()
    """Registered planners; none given: all."""
    episodes: int = 50
    """Goals per point."""
    split: Literal["validation", "test"] = "validation"
    """Goals to use: a default is chosen on validation goals."""
    seed: int = 0
    """Base seed; episode k has seed + k."""
    out: Path = Path("success_curve")
    """Folder for points.jsonl and curve.svg."""

    def __post_init__(self) -> None:
        if not 1 <= self.episodes <= 10_000:
            raise UserError(f"episodes={self.episodes} is out of range 1..10000")


def run(config: CurveCommand) -> int:
    """Runs the benchmark.

    Returns:
        Exit code 0.
    """
    from rich.console import Console
    from rich.progress import Progress

    from goalward import load_model
    from goalward.envs.registry import make_env
    from goalward.planners.registry import PLANNERS, find_planner

    names = config.planners or tuple(PLANNERS)
    points = [(name, *budget) for name in names if find_planner(name) for budget in BUDGETS.get(name, SAMPLED)]
    config.out.mkdir(parents=True, exist_ok=True)
    path = config.out / "points.jsonl"
    done = {_key(point): point for point in map(json.loads, path.read_text().splitlines() if path.exists() else [])}
    model = load_model(config.env)
    env = make_env(config.env, cameras=model.cameras, image_size_px=model.image_size_px)
    try:
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("points", total=len(points))
            for name, num_samples, num_iterations in points:
                key = (name, num_samples, num_iterations, config.episodes, config.split, config.seed)
                if key not in done:
                    done[key] = _point(env, model, config, name, num_samples, num_iterations)
                    with path.open("a") as file:
                        file.write(json.dumps(done[key]) + "\n")
                progress.advance(task)
    finally:
        env.close()
    keys = [(name, samples, iterations, config.episodes, config.split, config.seed) for name, samples, iterations in points]
    found = [done[key] for key in keys]
    Console(width=140).print(_table(found, config))
    (config.out / "curve.svg").write_text(drawing(found))
    return 0


def _key(point: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(point[name] for name in ("planner", "num_samples", "num_iterations", "episodes", "split", "seed"))


def _point(env: Any, model: Any, config: CurveCommand, name: str, num_samples: int, num_iterations: int) -> dict[str, Any]:
    """One closed-loop evaluation."""
    from goalward.experiments.evaluation import run_episode
    from goalward.experiments.planning import planner_config, planner_method
    from goalward.experiments.statistics import Rate, percentile

    settings = planner_config(name, num_samples=num_samples, num_iterations=num_iterations)
    method = dataclasses.replace(planner_method(model, name, settings), energies=None)
    records = [
        run_episode(env, method, index=index, seed=config.seed + index, split=config.split, warm_up=index == 0)
        for index in range(config.episodes)
    ]
    strict = Rate.of([record.strict for record in records])
    final_m = [distance for record in records if (distance := record.distances_m[-1]) is not None]
    times_ms = [ms for record in records for ms in record.plan_ms]
    return {
        "planner": name, "num_samples": num_samples, "num_iterations": num_iterations, "episodes": config.episodes, "split": config.split,
        "seed": config.seed, "strict": strict.rate, "low": strict.low, "high": strict.high,
        "median_cm": 100 * (percentile(final_m, 50) or 0.0),
        "steps": percentile([float(record.steps) for record in records], 50),
        "p50_ms": percentile(times_ms, 50), "p95_ms": percentile(times_ms, 95),
    }  # fmt: skip


def _table(points: list[dict[str, Any]], config: CurveCommand) -> Any:
    from rich.table import Table

    table = Table(title=f"{config.env}, {config.episodes} {config.split} goals: a decision, encoding included, on this machine")
    for column in ("planner", "candidates x iterations", "strict success %", "median cm", "steps p50", "ms p50", "ms p95"):
        table.add_column(column, justify="left" if column == "planner" else "right")
    for p in points:
        interval = f"{100 * p['strict']:.1f} [{100 * p['low']:.1f}, {100 * p['high']:.1f}]"
        table.add_row(
            p["planner"], f"{p['num_samples']} x {p['num_iterations']}", interval, f"{p['median_cm']:.2f}", f"{p['steps']:g}",
            f"{p['p50_ms']:.0f}", f"{p['p95_ms']:.0f}",
        )  # fmt: skip
    return table


COLOURS = ("#8a8f98", "#d1495b", "#00798c", "#edae49", "#66a182", "#2e4057", "#9b5de5", "#f15bb5")


def drawing(points: list[dict[str, Any]]) -> str:
    """The curve as SVG: milliseconds (logarithmic) against the success rate and the median final distance, one colour per planner."""
    from goalward.experiments.charts import Frame, log_share

    sides = {"width": 760, "left": 56, "right": 120, "top": 30}
    panels = (Frame(height=210, bottom=24, **sides), Frame(height=290, bottom=48, **sides))
    times = [p["p50_ms"] for p in points]
    low, high = min(times) / 1.15, max(times) * 1.15
    whole_cm = max(1, math.ceil(max(p["median_cm"] for p in points)))
    heights: tuple[Callable[[dict[str, Any]], float], ...] = (lambda p: p["strict"], lambda p: p["median_cm"] / whole_cm)
    scales = ([(n / 4, f"{25 * n} %") for n in range(5)], [(n / whole_cm, f"{n} cm") for n in range(whole_cm + 1)])
    titles = ("strict success", "final distance, median")
    ticks = [ms for ms in (10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000) if low <= ms <= high]
    parts = [_style()]
    for number, (frame, height, scale, title) in enumerate(zip(panels, heights, scales, titles, strict=True)):
        parts.append(f'<g transform="translate(0 {panels[0].height * number})">')
        parts += frame.grid_y(scale)
        label = "decision time, median, ms (logarithmic)" if number else ""
        parts += frame.ticks_x([(log_share(ms, low, high), str(ms)) for ms in ticks], label, grid=True)
        parts.append(f'<text x="{frame.left}" y="18" class="axis">{title}</text>')
        for rank, name in enumerate(dict.fromkeys(p["planner"] for p in points)):
            mine = sorted((p for p in points if p["planner"] == name), key=lambda p: float(p["p50_ms"]))
            spots = [(frame.x(log_share(p["p50_ms"], low, high)), frame.y(height(p)), p) for p in mine]
            parts += _curve(name, COLOURS[rank % len(COLOURS)], spots)
            if not number:
                y = frame.top + 16 * rank + 6
                parts.append(f'<circle cx="{frame.width - 104}" cy="{y}" r="4" fill="{COLOURS[rank % len(COLOURS)]}"/>')
                parts.append(f'<text x="{frame.width - 94}" y="{y + 4}" class="tick">{name}</text>')
        parts.append("</g>")
    together = Frame(height=sum(panel.height for panel in panels), bottom=48, **sides)
    svg = together.svg(parts, title="success and final distance against planning time")
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


def _curve(name: str, colour: str, spots: list[tuple[float, float, dict[str, Any]]]) -> list[str]:
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in spots)
    parts = [f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{corners}"/>']
    for x, y, p in spots:
        budget = f"{name} {p['num_samples']} x {p['num_iterations']}"
        label = f"{budget}: {100 * p['strict']:.0f} %, {p['median_cm']:.1f} cm, {p['p50_ms']:.0f} ms"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"><title>{label}</title></circle>')
    return parts


def _style() -> str:
    return (
        "<style>text{font:12px system-ui,sans-serif;fill:#444}.end{text-anchor:end}.mid{text-anchor:middle}"
        ".grid{stroke:#ddd;stroke-width:1}</style>"
    )


def main() -> None:
    """Entry point."""
    from goalward.experiments.command_line import parse
    from goalward.experiments.errors import exit_code_of

    sys.exit(exit_code_of(lambda: run(parse(CurveCommand, prog="success_curve", args=sys.argv[1:]))))


if __name__ == "__main__":
    main()
