"""V-JEPA 2-AC's planner, ours beside the public code: milliseconds per action with the same weights, samples and iterations.

    git clone https://github.com/facebookresearch/vjepa2
    python -m goalward.experiments.bench.vjepa2_ac_speed --checkout vjepa2

Both plan turn by turn in one process. The floor is the time that the matrix products of a cached rollout take at the rate of large square
products, measured in the same run. The public code runs in float32, as its notebook does; ours in float32, and in bfloat16, which is what
it picks by itself where the hardware multiplies it natively. With one thread its own CPU time is counted, not the clock's.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goalward.planners.checks import require_count


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeedCommand:
    """Compare the time of V-JEPA 2-AC's planner, ours and the public code's."""

    checkout: Path
    """Folder of a checkout of facebookresearch/vjepa2."""
    only: tuple[str, ...] = ()
    """Measure the cases alone whose names contain one of these; none: all."""
    rivals: bool = True
    """Also measure one candidate-step of our own predictor, of as many parameters, beside V-JEPA 2-AC's."""
    rounds: int = 3
    """Turns."""
    threads: int = 1
    """Threads of torch."""
    env_dir: Path | None = None
    """Folder of the public code's virtual environment; none: in the user's cache."""
    rebuild: bool = False
    """Make that environment anew."""
    out: Path = Path("vjepa2_ac_speed.json")
    """All figures, as JSON."""

    def __post_init__(self) -> None:
        """Checks counts."""
        require_count("rounds", self.rounds, high=1000)
        require_count("threads", self.threads, high=1000)


def run(config: SpeedCommand) -> int:
    """Runs the comparison, prints it, and writes the figures.

    Returns:
        Exit code 0.
    """
    from rich.console import Console

    from goalward.experiments.bench.vjepa2_ac.process import measured

    console, talk = Console(width=180, soft_wrap=True), Console(stderr=True)
    request = {"checkout": str(config.checkout), "only": list(config.only), "rivals": config.rivals, "rounds": config.rounds}
    result = measured("speed", request, env_dir=config.env_dir, rebuild=config.rebuild, threads=config.threads, say=talk.print)
    config.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    for line in [*case_lines(result["cases"]), "", *step_lines(result["candidate_steps"])]:
        console.print(line, highlight=False, markup=False)
    console.print(f"figures: {config.out}", highlight=False)
    return 0


def case_lines(cases: dict[str, Any]) -> list[str]:
    """Whole actions, as lines of Markdown."""
    if not cases:
        return []
    lines = [
        "| case | samples x iterations, horizon | public ms | ours, float32 | bfloat16 | times faster | share of the floor | extra MiB | "
        "public: predictor (rotary, attention), poses | ranks |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in cases.items():
        both = [f"{row['times_faster'][dtype]:.1f}" for dtype in ("float32", "bfloat16")]
        floor = [f"{row['share_of_floor'][dtype]:.0%}" for dtype in ("float32", "bfloat16")]
        memory = ["?" if value is None else f"{value:.0f}" for value in row["extra_mib"].values()]
        parts = {part: f"{share:.0%}" for part, share in row["public_parts"].items()}
        lines.append(
            f"| {name} | {row['samples']} x {row['iterations']}, {row['horizon']} | "
            + " | ".join(f"{row['ms'][who]:.0f}" for who in ("public", "float32", "bfloat16"))
            + f" | {', '.join(both)} | {', '.join(floor)} | {', '.join(memory)} | {parts['predictor']} ({parts['of it rotary']}, "
            f"{parts['of it attention']}), {parts['poses']} | {row['rank_correlation_of_bfloat16']:.3f} |"
        )
    return lines


def step_lines(rows: list[dict[str, Any]]) -> list[str]:
    """One step of one candidate, as lines of Markdown."""
    if not rows:
        return []
    names = list(rows[0]["ms"])
    lines = [f"| patches | candidates | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for row in rows:
        times = " | ".join(f"{row['ms'][name]:.2f}" for name in names)
        lines.append(f"| {row['patches']} | {row['candidates']} | {times} |")
    counts = ", ".join(f"{name} {count:,}" for name, count in rows[0]["parameters"].items())
    return [*lines, f"context {rows[0]['context']}, horizon {rows[0]['horizon']}; milliseconds per candidate-step; parameters: {counts}"]


def main() -> None:
    """Entry point."""
    from goalward.experiments.command_line import parse
    from goalward.experiments.errors import exit_code_of

    sys.exit(exit_code_of(lambda: run(parse(SpeedCommand, prog="vjepa2_ac_speed", args=sys.argv[1:]))))


if __name__ == "__main__":
    main()
