"""Running a benchmark: resumed where it stopped, the same to the last bit however it is run, complete in what it writes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from goalward import UserError
from goalward.experiments.benchmark import command, run, worker
from goalward.experiments.benchmark.cells import Cell
from goalward.experiments.benchmark.command import BenchmarkCommand
from goalward.experiments.benchmark.methods import Opened
from goalward.experiments.benchmark.run import run_cells
from goalward.experiments.benchmark.spec import MethodSpec
from goalward.experiments.benchmark.summary import trace_sha256
from goalward.experiments.evaluation import hold_method, oracle_method

VERSIONS = {"goalward": "0"}


def cell(name: str = "oracle", *, episodes: int = 7, env: str = "reach") -> Cell:
    return Cell(env=env, split="validation", name=name, method=MethodSpec(kind=name), training_seed=None, episodes=episodes)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """What runs in this process computes on one thread; afterwards everything is as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    worker._desk.clear()


@pytest.fixture
def point(monkeypatch: pytest.MonkeyPatch, point_env: Any) -> list[Any]:
    """Cells are run in the small world of points; gives the environments that were opened."""
    envs: list[Any] = []

    @contextlib.contextmanager
    def opened(cell: Cell) -> Iterator[Opened]:
        envs.append(point_env())
        yield Opened(env=envs[-1], method=oracle_method(envs[-1]) if cell.name == "oracle" else hold_method(), goals_split="validation")

    monkeypatch.setattr("goalward.experiments.benchmark.methods.opened", opened)
    return envs


def go(tmp_path: Path, *cells: Cell, seed: int = 0, **options: Any) -> list[run.FinishedCell]:
    return run_cells(cells, seed=seed, out=tmp_path, workers=0, versions=VERSIONS, **options)


def test_every_episode_of_every_cell(tmp_path: Path, point: list[Any]) -> None:
    finished = go(tmp_path, cell("oracle"), cell("hold", episodes=3), seed=5)
    assert [[e.index for e in done.episodes] for done in finished] == [list(range(7)), list(range(3))]
    assert [e.seed for e in finished[0].episodes] == list(range(5, 12))
    assert all(e.strict for e in finished[0].episodes)
    assert not any(e.strict for e in finished[1].episodes)
    assert len(point) == 2, "a cell is opened once"


def test_an_interrupted_run_goes_on_and_ends_the_same(tmp_path: Path, point: list[Any]) -> None:
    whole = go(tmp_path / "whole", cell(episodes=9))
    seen = []

    def stop(_: Cell, record: Any) -> None:
        seen.append(record.index)
        if len(seen) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "cut", cell(episodes=9), on_episode=stop)
    ran = sum(len(env.resets) for env in point)
    resumed = go(tmp_path / "cut", cell(episodes=9))
    assert resumed[0].resumed == 6
    assert sum(len(env.resets) for env in point) - ran == 3
    assert trace_sha256(resumed[0].episodes) == trace_sha256(whole[0].episodes)


def test_a_cell_grows_and_shrinks(tmp_path: Path, point: list[Any]) -> None:
    go(tmp_path, cell(episodes=4))
    (grown,) = go(tmp_path, cell(episodes=6))
    assert (grown.resumed, len(grown.episodes)) == (4, 6)
    (shrunk,) = go(tmp_path, cell(episodes=2))
    assert (shrunk.resumed, len(shrunk.episodes)) == (2, 2)


def test_what_is_recorded_can_be_counted_while_it_grows(tmp_path: Path, point: list[Any]) -> None:
    def count(episodes: int = 5) -> int:
        return run.count_recorded(cell(episodes=episodes), seed=0, out=tmp_path, versions=VERSIONS)

    assert count() == 0
    assert not any(tmp_path.iterdir()), "looking leaves nothing behind"
    counts: list[int] = []
    go(tmp_path, cell(episodes=5), on_episode=lambda *_: counts.append(count()))
    assert counts == [1, 2, 3, 4, 5]
    assert count(episodes=3) == 3


def test_another_seed_or_version_begins_anew(tmp_path: Path, point: list[Any]) -> None:
    go(tmp_path, cell())
    assert go(tmp_path, cell(), seed=1)[0].resumed == 0
    assert run_cells([cell()], seed=0, out=tmp_path, workers=0, versions={"goalward": "1"})[0].resumed == 0


def test_weights_that_are_missing_come_to_light_before_anything_runs(tmp_path: Path, point: list[Any]) -> None:
    policy = MethodSpec(kind="policy", weights=str(tmp_path / "none"))
    missing = Cell(env="reach", split="test", name="gcbc", training_seed=0, episodes=1, method=policy)
    with pytest.raises(UserError, match="no such folder; goalward train and goalward imitate"):
        go(tmp_path, cell(), missing)
    assert not point


def test_a_process_that_dies_is_replaced_and_one_that_always_dies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dying_block.py").write_text(
        "import os, pathlib\n"
        "from goalward.experiments.results import EpisodeRecord\n"
        "def run_block(cell, indices, *, seed):\n"
        "    mark = pathlib.Path(cell.method.weights)\n"
        "    if cell.name == 'always' or not mark.exists():\n"
        "        mark.touch()\n"
        "        os._exit(9)\n"
        "    return [EpisodeRecord(method=cell.name, index=i, goal_id='g', seed=seed, distances_m=(1.0,), energies=None, actions=(),"
        " plan_ms=(), strict=True, moderate=True, steps=0, failure=None) for i in indices]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import dying_block  # type: ignore[import-not-found]

    monkeypatch.setattr(run, "run_block", dying_block.run_block)
    monkeypatch.setattr(run, "cell_hashes", lambda cell: {})

    def mortal(name: str) -> Cell:
        method = MethodSpec(kind="policy", weights=str(tmp_path / "died"))
        return Cell(env="reach", split="test", name=name, method=method, training_seed=0, episodes=2)

    (done,) = run_cells([mortal("once")], seed=0, out=tmp_path / "out", workers=1, versions=VERSIONS)
    assert len(done.episodes) == 2
    with pytest.raises(UserError, match="a process died three times in reach/test/always/0"):
        run_cells([mortal("always")], seed=0, out=tmp_path / "out", workers=1, versions=VERSIONS)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    body = {
        "format": "goalward-benchmark",
        "name": "Two <tasks>",
        "seed": 0,
        "against": "oracle",
        "methods": {"oracle": {"kind": "oracle"}, "hold": {"kind": "hold"}, "random": {"kind": "random"}},
        "cells": [
            {"envs": ["wall"], "splits": ["validation", "validation-look", "validation-noise"], "methods": ["oracle", "hold", "random"],
             "episodes": 2},
        ],
    }  # fmt: skip
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(body))
    return path


def traces(out: Path) -> dict[str, str]:
    results = json.loads((out / "results.json").read_text())
    return {f"{c['env']}/{c['split']}/{c['method']}": c["trace_sha256"] for c in results["cells"]}


def test_processes_and_none_agree_to_the_last_bit(tmp_path: Path, written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for workers in (0, 2):
        assert command.run(BenchmarkCommand(spec=written, out=tmp_path / str(workers), workers=workers, quiet=True)) == 0
    assert traces(tmp_path / "0") == traces(tmp_path / "2")
    results = json.loads((tmp_path / "0" / "results.json").read_text())
    assert {c["split"] for c in results["comparisons"]} == {"validation", "validation-look", "validation-noise", "all varied"}
    page = (tmp_path / "0" / "report.html").read_text()
    assert "Two &lt;tasks&gt;" in page
    assert "<tasks>" not in page
    for drawing in page.split("<svg")[1:]:
        ET.fromstring("<svg" + drawing.split("</svg>")[0] + "</svg>")
    table = (tmp_path / "0" / "tables.md").read_text()
    assert "| validation | hold | 0.0 [" in table
    assert "oracle †" in table
    assert "--spec" in results["command"]
    assert capsys.readouterr().out.count("# Two <tasks>") == 2


def test_only_some_cells(tmp_path: Path, written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = BenchmarkCommand(spec=written, out=tmp_path / "o", only=("*/validation/hold",), list=True)
    assert command.run(config) == 0
    assert capsys.readouterr().out == "wall/validation/hold: 0 of 2 episodes\n"
    assert not (tmp_path / "o").exists()
    with pytest.raises(UserError, match="no cell matches nothing"):
        command.run(BenchmarkCommand(spec=written, only=("nothing",)))
    with pytest.raises(UserError, match="5000 episodes, and 200 goals"):
        command.run(BenchmarkCommand(spec=written, episodes=5000))


def test_numbers_are_checked() -> None:
    for options in ({"episodes": 0}, {"workers": -1}):
        with pytest.raises(UserError, match=next(iter(options))):
            BenchmarkCommand(**options)  # type: ignore[arg-type]


def test_episodes_are_computed_on_one_thread_and_can_be_interrupted() -> None:
    interrupted = signal.getsignal(signal.SIGINT)
    worker.start()
    assert torch.get_num_threads() == 1
    assert signal.getsignal(signal.SIGINT) is interrupted


PARENT = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from goalward.experiments.benchmark.worker import start_process
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=start_process)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(600)
"""


def test_no_process_outlives_the_command_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    with subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
    end = time.monotonic() + 30
    while (gone := not _runs(pid)) is False and time.monotonic() < end:
        time.sleep(0.1)
    if not gone:
        os.kill(pid, signal.SIGKILL)
    assert gone


def _runs(pid: int) -> bool:
    """Whether a process is there; one that has ended and that nobody has asked for is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
