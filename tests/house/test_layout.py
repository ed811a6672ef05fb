"""The house rules that a machine can check: import direction, sizes, unsafe loading, leftovers."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("wm", "planners", "envs", "datasets", "experiments")

# A folder may import itself and these.
MAY_IMPORT = {
    "envs": set(),
    "datasets": {"envs"},
    "planners": set(),
    "wm": {"datasets"},
    "experiments": {"wm", "planners", "envs", "datasets"},
}

UNSAFE_IMPORTS = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
UNSAFE_CALLS = {"eval", "exec", "torch.load", "torch.hub.load", "torch.save", "yaml.load"}


def _sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def _tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return [ROOT / name for name in listed.stdout.split("\0") if name and not (ROOT / name).is_symlink() and (ROOT / name).is_file()]
    return [path for folder in (*FOLDERS, "tests", "goalward") for path in _sources(folder)]


def _imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, lazily or for types."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            if node.module == "goalward":
                yield from (f"goalward.{alias.name}" for alias in node.names if alias.name in FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_dependencies_run_one_way(folder: str) -> None:
    for path in _sources(folder):
        for module in _imports(path):
            parts = module.split(".")
            assert parts[0] not in FOLDERS or parts[0] == "datasets", f"{path.name} imports {module}; write goalward.{module}"
            if parts[0] == "goalward" and len(parts) > 1 and parts[1] in FOLDERS:
                assert parts[1] == folder or parts[1] in MAY_IMPORT[folder], f"{folder}/{path.name} must not import {module}"


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("folder", (*FOLDERS, "goalward"))
def test_nothing_unpickles_or_evaluates(folder: str) -> None:
    for path in _sources(folder):
        unsafe = {module for module in _imports(path) if module.split(".")[0] in UNSAFE_IMPORTS}
        assert not unsafe, f"{path} imports {unsafe}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert _name(node.func) not in UNSAFE_CALLS, f"{path}:{node.lineno} calls {_name(node.func)}"
                keywords = {k.arg: k.value for k in node.keywords}
                for forbidden in ("allow_pickle", "trust_remote_code"):
                    value = keywords.get(forbidden)
                    assert not (isinstance(value, ast.Constant) and value.value is True), f"{path}:{node.lineno} {forbidden}=True"


def test_no_file_is_above_six_hundred_lines() -> None:
    long = {str(path.relative_to(ROOT)): n for path in _tracked("*.py") if (n := len(path.read_text().splitlines())) > 600}
    assert not long


def test_contract_files_are_short() -> None:
    for folder in FOLDERS:
        base = ROOT / folder / "base.py"
        if base.exists():
            assert len(base.read_text().splitlines()) <= 200, base


def test_tests_are_at_least_thirty_five_percent_of_lines() -> None:
    counts = {True: 0, False: 0}
    for path in _tracked("*.py"):
        counts["tests" in path.relative_to(ROOT).parts] += len(path.read_text().splitlines())
    assert counts[True] / sum(counts.values()) >= 0.35, counts


def test_nothing_is_left_unfinished() -> None:
    marks = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error")
    for path in _tracked("*.py"):
        if path == Path(__file__):
            continue
        text = path.read_text()
        assert not [mark for mark in marks if mark in text], path
