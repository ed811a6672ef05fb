"""`goalward benchmark`: runs what a benchmark file says, or what is left of it, and writes results, tables and a page."""

from __future__ import annotations

import datetime
import fnmatch
import os
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goalward import UserError

if TYPE_CHECKING:
    from goalward.experiments.benchmark.cells import Cell

TABLES_NAME = "tables.md"
REPORT_NAME = "report.html"


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkCommand:
    """Compare methods on tasks and splits, paired by goal and seed. Interrupt it whenever you like: it goes on where it stopped."""

    spec: Path | None = None
    """Benchmark file (JSON, see docs/benchmarks.md); none given: shipped models against the references."""
    out: Path = Path("reports/benchmark")
    """Folder for journals, results.json, tables.md and report.html."""
    only: tuple[str, ...] = ()
    """Only cells whose title matches one of these patterns: 'reach/test/*', '*/gcbc/*', ...; all others are left out of the report too."""
    episodes: int | None = None
    """Episodes of every cell; none given: as the file says. More than before adds to what is there."""
    workers: int | None = None
    """Processes, of one thread each; none given: one for every core; 0: no further process."""
    list: bool = False
    """Print the cells and what is missing of each, and run nothing."""
    quiet: bool = False
    """No progress bar."""

    def __post_init__(self) -> None:
        """Checks every number."""
        if self.episodes is not None and self.episodes < 1:
            raise UserError(f"episodes is {self.episodes}; must be at least 1")
        if self.workers is not None and not 0 <= self.workers <= 1024:
            raise UserError(f"workers is {self.workers}; must lie in 0 .. 1024")


def run(config: BenchmarkCommand) -> int:
    """Runs the command.

    Returns:
        Exit code: 0, or 130 after an interruption.

    Raises:
        UserError: the file, weights, a task or the folder are not what they should be.
    """
    from goalward.experiments.benchmark.cells import cells_of
    from goalward.experiments.benchmark.run import run_cells
    from goalward.experiments.benchmark.spec import read_spec
    from goalward.experiments.benchmark.time_spent import clocked, process_hours
    from goalward.experiments.doctor import usable_cpus, versions
    from goalward.experiments.plan_eval import check_folder

    spec = read_spec(config.spec or Path(__file__).parent / "shipped.json")
    cells = chosen_cells(cells_of(spec), config)
    if config.list:
        for cell in cells:
            print(f"{cell.title}: {state_of(cell, seed=spec.seed, out=config.out)}")
        return 0
    check_folder(config.out)
    workers = usable_cpus() if config.workers is None else config.workers
    try:
        with progress(cells, quiet=config.quiet) as on_episode, clocked(config.out, workers=workers):
            finished = run_cells(cells, seed=spec.seed, out=config.out, workers=workers, versions=versions(), on_episode=on_episode)
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on from here (journals are in {config.out})", file=sys.stderr)
        return 130
    facts = {
        "name": spec.name, "against": spec.against, "spec_sha256": spec.sha256, "command": command_of(config), "workers": workers,
        "process_hours": process_hours(config.out),
    }  # fmt: skip
    write_report(config.out, spec, finished, facts)
    return 0


def state_of(cell: Cell, *, seed: int, out: Path) -> str:
    """How far a cell has come, in words."""
    from goalward.experiments.benchmark.run import count_recorded
    from goalward.experiments.doctor import versions

    try:
        done = count_recorded(cell, seed=seed, out=out, versions=versions())
    except UserError as error:
        return f"cannot run: {error}"
    return f"{done} of {cell.episodes} episodes"


def write_report(out: Path, spec: Any, finished: Any, facts: dict[str, Any]) -> None:
    """Writes `results.json`, `tables.md` and `report.html`, each complete or not at all."""
    import json

    from goalward.experiments.benchmark.page import build_page
    from goalward.experiments.benchmark.summary import summary
    from goalward.experiments.benchmark.tables import markdown_report
    from goalward.experiments.doctor import machine, versions
    from goalward.experiments.results import RESULTS_NAME, write_atomically

    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    results = facts | {"created": created, "machine": machine(), "versions": versions()} | summary(spec, finished)
    write_atomically(out / RESULTS_NAME, json.dumps(results, indent=1, allow_nan=False) + "\n")
    write_atomically(out / TABLES_NAME, markdown_report(results))
    write_atomically(out / REPORT_NAME, build_page(results))
    print(markdown_report(results))
    print(f"report: {out / REPORT_NAME}", file=sys.stderr)


def chosen_cells(cells: list[Cell], config: BenchmarkCommand) -> list[Cell]:
    """The cells that were asked for, with as many episodes.

    Raises:
        UserError: none matches, or there are not so many goals.
    """
    from goalward.envs.goals import load_manifest
    from goalward.envs.splits import find_split

    found = [cell for cell in cells if not config.only or any(fnmatch.fnmatch(cell.title, pattern) for pattern in config.only)]
    if not found:
        raise UserError(f"only: no cell matches {' or '.join(config.only)}; the first is {cells[0].title}, --list prints all")
    if config.episodes is not None:
        found = [replace(cell, episodes=config.episodes) for cell in found]
    for cell in found:
        available = len(load_manifest(cell.env, find_split(cell.env, cell.split).goals_split).goals)
        if cell.episodes > available:
            raise UserError(f"{cell.title}: {cell.episodes} episodes, and {available} goals; ask for no more")
    return found


def progress(cells: list[Cell], *, quiet: bool) -> Any:
    """A bar over all episodes on standard error; a context manager that gives what to call for each."""
    import contextlib

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    @contextlib.contextmanager
    def shown() -> Any:
        columns = (
            TextColumn("{task.description}"), BarColumn(bar_width=28), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
            TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar:
            task = bar.add_task("benchmark", total=sum(cell.episodes for cell in cells))
            counts: dict[str, list[bool]] = {}

            def on_episode(cell: Cell, record: Any) -> None:
                counts.setdefault(cell.title, []).append(record.strict)
                mine = counts[cell.title]
                bar.update(task, advance=1, description=f"{cell.title} {sum(mine)}/{len(mine)}")
                if quiet and len(mine) == cell.episodes:
                    print(f"{cell.title} {sum(mine)}/{len(mine)}", file=sys.stderr, flush=True)

            yield on_episode

    return shown()


def command_of(config: BenchmarkCommand) -> str:
    """The command line that makes these results again."""
    words = ["goalward", "benchmark"]
    if config.spec is not None:
        words += ["--spec", os.fspath(config.spec)]
    if config.only:
        words += ["--only", *config.only]
    if config.episodes is not None:
        words += ["--episodes", str(config.episodes)]
    return shlex.join([*words, "--out", os.fspath(config.out)])
