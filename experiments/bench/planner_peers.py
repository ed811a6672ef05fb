"""Our planners beside stable-worldmodel's, pytorch_mppi's, torchrl's and cma's: the same problems, cost object and budget, in one run.

    python -m goalward.experiments.bench.planner_peers

Makes a virtual environment for the peers (once; about 1.5 GB), and measures in it, in one process: cost reached, milliseconds, candidates
and plans outside the action box, time outside the model, what NaN costs do, what a batch changes. What is equal and what is not:

* S samples, I iterations, elites, first spread, seeds, threads, the box, and the objective are equal; iCEM and others that shrink their
  population by design do; gradient methods get S / 16 starts and 2 I steps;
* peers plan in units of half the range; our planners keep their defaults, while a peer's temperature or learning rate, where it has one,
  is tuned for each case on problems that are not reported;
* every plan is clipped to the box and priced in float32 by the same objective; observed frames are digested anew for every plan;
* the order is drawn anew for every problem and seed, and ratios are taken between neighbours, so that other work on the machine tells
  on all alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from goalward import UserError
from goalward.planners.checks import require_count


@dataclass(frozen=True, kw_only=True, slots=True)
class PeersCommand:
    """Compare our planners with other libraries' on the same problems."""

    env: str = "reach"
    """Environment whose shipped model plans."""
    analytic: bool = True
    """Also compare on problems with known optima, and by contract."""
    learned: bool = True
    """Compare on the shipped model."""
    libraries: tuple[str, ...] = ()
    """Peers to compare with; none given: all."""
    problems: int = 6
    """Problems of each kind."""
    seeds: int = 2
    """Plans of each planner for each problem."""
    threads: int = 2
    """Threads of torch."""
    env_dir: Path | None = None
    """Folder of the peers' virtual environment; none: in the user's cache."""
    rebuild: bool = False
    """Make that environment anew."""
    out: Path = Path("planner_peers.json")
    """Every sample, as JSON; the tables in Markdown beside it."""

    def __post_init__(self) -> None:
        """Checks counts and names."""
        from goalward.experiments.bench.peers.environment import PEERS

        for name in ("problems", "seeds", "threads"):
            require_count(name, getattr(self, name), high=1000)
        if unknown := sorted(set(self.libraries) - set(PEERS)):
            raise UserError(f"libraries: {unknown[0]!r} is unknown; choose from {', '.join(PEERS)}")


def run(config: PeersCommand) -> int:
    """Runs the benchmark, prints the tables and writes the samples.

    Returns:
        Exit code 0.

    Raises:
        UserError: The environment cannot be made, or the measurement broke off.
    """
    from rich.console import Console
    from rich.status import Status

    from goalward.experiments.bench.peers.environment import checkout, default_folder, ensure, python_of
    from goalward.experiments.bench.peers.summary import case_table, contract_table, verdicts

    root, folder = checkout(), config.env_dir or default_folder()
    console, talk = Console(width=180), Console(stderr=True)
    with Status("", console=talk) as status:
        say = status.update if talk.is_terminal else talk.print
        failed = ensure(folder, say, rebuild=config.rebuild)
        with tempfile.TemporaryDirectory() as scratch:
            request = _request(config, Path(scratch), say)
            result = _measure(python_of(folder), root, request, say)
    result["missing"] |= failed
    config.out.write_text(json.dumps({"config": _plain(asdict(config)), **result}, indent=1), encoding="utf-8")
    tables = [case_table(case) for case in result["cases"]] + ([contract_table(result["contract"])] if result["contract"] else [])
    config.out.with_suffix(".md").write_text("\n".join(table.markdown() for table in tables), encoding="utf-8")
    for table in tables:
        console.print(table.drawn())
    for case in result["cases"]:
        for name, fault in case["faults"].items():
            console.print(f"{name}: could not be measured: {fault}", highlight=False)
    for library, why in result["missing"].items():
        console.print(f"{library} is missing from these tables: {why}", highlight=False)
    for line in verdicts(result):
        console.print(line, highlight=False)
    console.print(f"samples: {config.out}", highlight=False)
    return 0


def _request(config: PeersCommand, scratch: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """What the measuring process is told; renders observations and goals if the learned model is to plan."""
    recording = None
    if config.learned:
        from goalward.experiments.bench.peers.reach import record

        say(f"rendering observations and goals of {config.env}")
        recording = scratch / "recording.npz"
        record(recording, config.env, num_problems=config.problems + 2)
    return {
        "env": config.env, "analytic": config.analytic, "recording": recording and str(recording), "libraries": list(config.libraries),
        "problems": config.problems, "seeds": config.seeds, "threads": config.threads, "result": str(scratch / "result.json"),
    }  # fmt: skip


def _measure(python: Path, root: Path, request: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Runs `peers/measure.py` in the peers' environment, with this checkout on its path."""
    path = Path(request["result"]).with_name("request.json")
    path.write_text(json.dumps(request), encoding="utf-8")
    threads = str(request["threads"])
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [str(python), "-m", "goalward.experiments.bench.peers.measure", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            say(json.loads(line)["doing"])
    if process.returncode:
        raise UserError(f"the measurement ended with {process.returncode}; what it said is above; --rebuild makes the environment anew")
    result: dict[str, Any] = json.loads(Path(request["result"]).read_text(encoding="utf-8"))
    return result


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def main() -> None:
    """Entry point."""
    from goalward.experiments.command_line import parse
    from goalward.experiments.errors import exit_code_of

    sys.exit(exit_code_of(lambda: run(parse(PeersCommand, prog="planner_peers", args=sys.argv[1:]))))


if __name__ == "__main__":
    main()
