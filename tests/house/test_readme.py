"""The README is true: its commands exist with these options, its example runs as printed, its links lead somewhere."""

import dataclasses
import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from goalward.experiments.cli import VERBS
from goalward.experiments.command_line import parse
from goalward.experiments.plan_eval import PlanEvalCommand

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SINGLE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "datasets/README.md")
PAGES = [*(ROOT / name for name in SINGLE), *sorted((ROOT / "docs").glob("*.md"))]
TOOLS = ("pytest", "ruff", "mypy", "python")


def _blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _commands(text: str) -> list[list[str]]:
    """Commands of the shell blocks of a page, without `./run`; lines joined, comments dropped."""
    lines = [line for block in _blocks("bash", text) for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [w[1:] if w[0] == "./run" else w for w in words if w]


def _options(command: list[str]) -> Any:
    """The command line as its own parser understands it."""
    if command[0] == "plan-eval":
        return parse(PlanEvalCommand, prog="plan-eval", args=command[1:])
    verb = VERBS[command[1]]
    options = getattr(importlib.import_module(f"goalward.experiments.{verb.module}"), verb.command)
    return parse(options, prog=f"goalward {command[1]}", args=command[2:])


def _shown(page: Path) -> list[Any]:
    text = page.read_text(encoding="utf-8")
    return [pytest.param(command, id=f"{page.stem}: {' '.join(command)[:60]}") for command in _commands(text)]


@pytest.mark.parametrize("command", [shown for page in PAGES for shown in _shown(page)])
def test_every_command_that_is_shown_exists_with_these_options(command: list[str]) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert command[0] in (*scripts, *TOOLS)
    if command[0] in scripts:
        assert dataclasses.is_dataclass(_options(command))


def test_every_readme_command_goes_through_run() -> None:
    lines = [line for block in _blocks("bash") for line in block.splitlines() if line and not line[0].isspace()]
    assert all(line.startswith("./run ") for line in lines), lines


def test_first_two_commands_are_what_ci_runs() -> None:
    first, second = _commands(README)[:2]
    assert first == ["plan-eval", "--env", "reach"]
    assert second == ["pytest"]
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert '(cd "$scratch" && "$root/run" plan-eval --env reach)' in ci
    assert ci[-1] == "./run pytest"


def test_pipeline_feeds_each_command_from_earlier_ones() -> None:
    """Every folder that a command reads was written by a command above it, in the block that promises a model from nothing."""
    block = next(block for block in _blocks("bash") if "goalward collect" in block)
    written: set[Path] = set()
    for command in _commands(f"```bash\n{block}```"):
        options = _options(command)
        for name in ("data", "encoder", "model"):
            value = getattr(options, name, None)
            for folder in value if isinstance(value, tuple) else (value,):
                if folder is not None and "/" in str(folder):
                    assert Path(folder) in written, f"{' '.join(command)} reads {folder}, which nothing above wrote"
        out = getattr(options, "out", None)
        if out is not None:
            assert Path(out) not in written, f"{out} is written twice"
            written.add(Path(out))
    assert written


def test_every_verb_is_in_the_readme() -> None:
    missing = [verb for verb in VERBS if f"`{verb}`" not in README and f"`goalward {verb}" not in README]
    assert not missing


def test_example_is_a_dozen_lines() -> None:
    (example,) = _blocks("python")
    code = [line for line in example.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(code) <= 16, len(code)


def test_example_works_as_printed(tmp_path: Path) -> None:
    (example,) = _blocks("python")
    script = tmp_path / "example.py"
    script.write_text(example, encoding="utf-8")
    # Elsewhere than at the root, so that nothing is found only because the folders lie beside it.
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=dict(os.environ), timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    reached = re.fullmatch(r"(\d+\.\d) cm from the goal, reached: (True|False)\n", done.stdout)
    assert reached, done.stdout
    assert float(reached[1]) <= 5.0, "the example of the README should show a success"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert "://" in target or (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    """Paths in backquotes with a folder of ours in front."""
    text = page.read_text(encoding="utf-8")
    for named in re.findall(r"`((?:wm|planners|policies|envs|datasets|experiments|tests|docs|goalward)/[\w./-]*)`", text):
        assert (ROOT / named).exists() or (page.parent / named).exists(), f"{page.name} names {named}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_figure_is_left_open(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "TBD" not in text
    assert "<!-- figure:" not in text


def test_contributing_is_three_commands() -> None:
    assert len(_commands((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))) == 3
