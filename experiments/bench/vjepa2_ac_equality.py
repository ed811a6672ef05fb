"""V-JEPA 2-AC, ours beside the public code: the same weights and inputs, and how far the numbers are apart.

    git clone https://github.com/facebookresearch/vjepa2
    python -m goalward.experiments.bench.vjepa2_ac_equality --checkout vjepa2

Makes a virtual environment for the public code (once), and compares in it, in one process: predictions of a window, rollouts of several
steps, poses, the energy landscape of the public notebook, and the actions that both planners return for the same noise. Weights are random
(`vjepa2_ac/synthetic.py`); nothing of the public code is in this repository.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goalward import UserError

TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True, slots=True)
class EqualityCommand:
    """Compare V-JEPA 2-AC's numbers, ours and the public code's."""

    checkout: Path
    """Folder of a checkout of facebookresearch/vjepa2."""
    golden: Path | None = None
    """Also write the golden values of the test suite to this file."""
    threads: int = 1
    """Threads of torch."""
    env_dir: Path | None = None
    """Folder of the public code's virtual environment; none: in the user's cache."""
    rebuild: bool = False
    """Make that environment anew."""
    out: Path = Path("vjepa2_ac_equality.json")
    """All figures, as JSON."""

    def __post_init__(self) -> None:
        """Checks the number of threads."""
        if not 1 <= self.threads <= 1000:
            raise UserError(f"threads: {self.threads} is not allowed; give a whole number from 1 to 1000")


def run(config: EqualityCommand) -> int:
    """Runs the comparison, prints it, and writes the figures.

    Returns:
        Exit code: 0 if all differences are at most 1e-5, else 1.
    """
    from rich.console import Console

    from goalward.experiments.bench.vjepa2_ac.process import measured

    console, talk = Console(width=140, soft_wrap=True), Console(stderr=True)
    request = {"checkout": str(config.checkout), "golden": None if config.golden is None else str(config.golden.resolve())}
    result = measured("equality", request, env_dir=config.env_dir, rebuild=config.rebuild, threads=config.threads, say=talk.print)
    config.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    for line in report(result):
        console.print(line, highlight=False, markup=False)
    worst = largest(result)
    console.print(f"largest difference: {worst:.1e}; at most {TOLERANCE:.0e} wanted; figures: {config.out}", highlight=False)
    return 0 if worst <= TOLERANCE else 1


def report(result: dict[str, Any]) -> list[str]:
    """The figures as lines of Markdown."""
    lines = ["| size | parameters | largest entry | window, apart | rollout, apart |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {row['parameters']:,.0f} | {row['largest']:.1f} | {row['window']:.1e} | {row['rollout']:.1e} |"
        for name, row in result["predictions"].items()
    ]
    poses, scape = result["poses"], result["landscape"]
    lines += [
        "",
        f"poses: after an action {poses['after']:.1e} apart, differences {poses['difference']:.1e}",
        f"energy landscape: {scape['actions']:.0f} actions, energies from least to most {scape['range']:.1e}, {scape['apart']:.1e} apart, "
        f"heat map {scape['heatmap_apart']:.1e} apart, {'the same' if scape['same_order'] else 'another'} order",
        "",
        "| preset | public action (x, y, z, gripper) | ours | apart |",
        "|---|---|---|---|",
    ]
    for name, row in result["presets"].items():
        theirs, ours = (" ".join(f"{row[who][dim]:+.5f}" for dim in (0, 1, 2, 6)) for who in ("theirs", "ours"))
        lines.append(f"| {name} | {theirs} | {ours} | {row['apart']:.1e} |")
    return lines


def largest(result: dict[str, Any]) -> float:
    """The largest of all differences."""
    apart = [row[what] for row in result["predictions"].values() for what in ("window", "rollout")]
    apart += [*result["poses"].values(), result["landscape"]["apart"], *(row["apart"] for row in result["presets"].values())]
    return float(max(apart))


def main() -> None:
    """Entry point."""
    from goalward.experiments.command_line import parse
    from goalward.experiments.errors import exit_code_of

    sys.exit(exit_code_of(lambda: run(parse(EqualityCommand, prog="vjepa2_ac_equality", args=sys.argv[1:]))))


if __name__ == "__main__":
    main()
