"""The command `goalward`: verbs are found lazily, help teaches, mistakes are one line."""

import errno
import importlib
import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

import goalward
from goalward import UserError
from goalward.experiments import cli, command_line
from goalward.experiments.errors import exit_code_of


def outcome(function: Callable[[], int], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = exit_code_of(function)
    return code, capsys.readouterr().err


def raising(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


def test_success_keeps_its_code() -> None:
    assert exit_code_of(lambda: 0) == 0
    assert exit_code_of(lambda: 1) == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("episodes is 0; must be\n at least 1"), 2, "error: episodes is 0; must be at least 1\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y"),
            2,
            "error: /x/y: the disk is full; free some space and run the same command again\n",
        ),
        (OSError(errno.EROFS, "Read-only"), 2, "error: the file system is read-only; choose a folder that can be written\n"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), 2, "error: a: permission denied; choose a folder that can be written\n"),
    ],
)
def test_mistakes_are_one_line(error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(raising(error), capsys) == (code, said)


def test_interruption_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = outcome(raising(KeyboardInterrupt()), capsys)
    assert code == 130
    assert "interrupted" in said


def test_a_reader_that_went_away_is_no_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert exit_code_of(raising(BrokenPipeError())) == 141


@pytest.mark.parametrize("error", [RuntimeError("bug"), ValueError("bug"), OSError(errno.EIO, "Input/output error")])
def test_our_own_faults_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        exit_code_of(raising(error))


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What a verb does."""

    count: int = 3
    """How many."""

    def __post_init__(self) -> None:
        """Checks the count."""
        if self.count < 1:
            raise UserError(
                f"count is {self.count}; must be at least 1, in /some/long/path/that/would/be/broken/over/lines/of/a/box/by/a/terminal"
            )


def test_options_are_read() -> None:
    assert command_line.parse(Options, prog="x", args=["--count", "7"]) == Options(count=7)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--cuont", "7"], "unknown option --cuont, 7; did you mean --count?; see x y --help"),
        (["--count"], "missing value for argument '--count'. Expected 1 values; see x y --help"),
        (
            ["--count", "0"],
            "count is 0; must be at least 1, in /some/long/path/that/would/be/broken/over/lines/of/a/box/by/a/terminal; see x y --help",
        ),
        (["--count", "x"], "invalid literal for int() with base 10: 'x'"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_wrong_options_are_one_line(args: list[str], said: str, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))  # tyro draws its box with lines or without
    with pytest.raises(UserError) as caught:
        command_line.parse(Options, prog="x y", args=args)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "│" not in str(caught.value)


def test_help_of_a_verb_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command_line.parse(Options, prog="x y", args=["--help"])
    assert stop.value.code in (None, 0)
    assert "How many." in capsys.readouterr().out


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_verb(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.dispatch(args) == 0
    said = capsys.readouterr().out
    for name, verb in cli.VERBS.items():
        assert name in said
        assert verb.about in said
    assert max(map(len, said.splitlines())) <= 100


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.dispatch(["--version"]) == 0
    assert capsys.readouterr().out == f"{goalward.__version__}\n"


@pytest.mark.parametrize(
    ("typed", "meant"), [("colect", "collect"), ("planeval", "plan-eval"), ("trian", "train"), ("xyzzy", "choose one of collect")]
)
def test_an_unknown_verb_is_named_with_near_ones(typed: str, meant: str) -> None:
    with pytest.raises(UserError, match=meant):
        cli.dispatch([typed])


@pytest.mark.parametrize("name", cli.VERBS)
def test_every_verb_has_options_with_help_and_a_run(name: str) -> None:
    verb = cli.VERBS[name]
    module = importlib.import_module(f"goalward.experiments.{verb.module}")
    assert callable(module.run)
    assert getattr(module, verb.command) is not None
    with pytest.raises(UserError, match=f"goalward {name} --help"):
        command_line.parse(getattr(module, verb.command), prog=f"goalward {name}", args=["--no-such-option"])


def test_a_verb_gets_its_options_and_its_code_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    module = SimpleNamespace(Options=Options, run=lambda options: (seen.append(options), 5)[1])
    monkeypatch.setitem(sys.modules, "goalward.experiments.fake", module)
    monkeypatch.setitem(cli.VERBS, "fake", cli.Verb("fake", "Options", "does nothing"))
    assert cli.dispatch(["fake", "--count", "9"]) == 5
    assert seen == [Options(count=9)]


def test_help_is_quick_to_import_and_a_mistake_has_no_traceback() -> None:
    code = (
        "import sys; sys.argv = ['goalward', 'fly']\n"
        "from goalward.experiments import cli\n"
        "try:\n    cli.main()\nexcept SystemExit as stop:\n    code = stop.code\n"
        "heavy = sorted({'torch', 'mujoco', 'numpy', 'gymnasium', 'zarr'} & set(sys.modules))\n"
        "assert not heavy, heavy\nsys.exit(code)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith("error: unknown verb 'fly'")
    assert ran.stderr.count("\n") == 1
