"""The house rules that a machine can check: import direction, unsafe loading, sizes, leftovers.

Each check is a function of a file's text, so that it can be shown to find what it is for.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("wm", "planners", "policies", "envs", "datasets", "experiments")
SOURCES = [path for folder in (*FOLDERS, "goalward") for path in sorted((ROOT / folder).rglob("*.py"))]

# A folder may import itself and these.
MAY_IMPORT: dict[str, set[str]] = {
    "envs": set(),
    "datasets": {"envs"},
    "planners": set(),
    "wm": {"datasets"},
    "policies": {"wm", "datasets"},
    "experiments": {"wm", "planners", "policies", "envs", "datasets"},
}

UNSAFE_MODULES = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
UNSAFE_CALLS = {
    "eval", "exec", "compile", "__import__", "torch.load", "torch.save", "torch.hub.load", "torch.jit.load",
    "torch.package.PackageImporter", "yaml.load", "yaml.unsafe_load", "numpy.fromfile", "pandas.read_pickle",
}  # fmt: skip
MUST_BE_FALSE = {"allow_pickle", "trust_remote_code", "shell"}
MUST_BE_TRUE = {"weights_only"}

# The one program that opens other people's `.pt` files; what it must be is tested below.
READS_CHECKPOINTS = ROOT / "wm/conversion/unpickle.py"

# Names that differ between `import` and `pip install`.
DISTRIBUTIONS = {"PIL": "pillow", "google_crc32c": "google-crc32c", "imageio_ffmpeg": "imageio-ffmpeg"}


def _tracked(*patterns: str) -> list[Path]:
    """Files that are or will be committed, without links."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        paths = sorted({ROOT / name for name in listed.stdout.split("\0") if name})
    else:  # an unpacked archive
        paths = [path for pattern in patterns for path in sorted(ROOT.rglob(pattern)) if ".venv" not in path.parts]
    inside = [path for path in paths if path.is_file() and not path.is_symlink()]
    return [path for path in inside if path.parts[: len(ROOT.parts) + 1] != (*ROOT.parts, "goalward") or path.parent == ROOT / "goalward"]


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of every module that a file imports anywhere in it: lazily, for types, or by name in a string."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "require" and node.args and isinstance(node.args[0], ast.Constant):
            yield node.lineno, str(node.args[0].value)  # an extra's module, imported where it is needed
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"goalward\.[\w.]*(:\w+)?", node.value):
            yield node.lineno, node.value.partition(":")[0]


def wrong_directions(folder: str, source: str) -> list[str]:
    """Imports that the folder must not have."""
    wrong = []
    for line, module in imports(source):
        first, _, rest = module.partition(".")
        second = rest.split(".")[0]
        if module.startswith("."):
            wrong.append(f"{line}: relative import; write goalward.{folder}")
        elif first in set(FOLDERS) - {"datasets"}:
            wrong.append(f"{line}: {module}; write goalward.{module}")
        elif first == "goalward" and second in FOLDERS and second != folder and second not in MAY_IMPORT[folder]:
            wrong.append(f"{line}: {module}; {folder} must know nothing of {second}")
    return wrong


def _dotted(node: ast.expr, aliases: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, aliases)}.{node.attr}"
    return aliases.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def unsafe_loading(source: str) -> list[str]:
    """Everything that would run code out of a file, under whatever name it was imported."""
    tree = ast.parse(source)
    found = [f"{line}: {module}" for line, module in imports(source) if module.split(".")[0] in UNSAFE_MODULES]
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and _dotted(node, aliases) in UNSAFE_CALLS:
            found.append(f"{node.lineno}: {_dotted(node, aliases)}")
        elif isinstance(node, ast.Call):
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if (keyword.arg in MUST_BE_FALSE and value is not False) or (keyword.arg in MUST_BE_TRUE and value is not True):
                    found.append(f"{node.lineno}: {keyword.arg}={ast.unparse(keyword.value)}")
    return found


def unfinished(source: str) -> list[str]:
    """Marks of work not done in comments and texts, and functions that only say so."""
    found = [f"{n}: {line.strip()}" for n, line in enumerate(source.splitlines(), 1) if re.search(r"\b(TODO|FIXME|XXX|HACK|TBD)\b", line)]
    for node in ast.walk(ast.parse(source)):
        raised = node.exc.func if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) else getattr(node, "exc", None)
        if isinstance(raised, ast.Name) and raised.id == "NotImplementedError":
            found.append(f"{raised.lineno}: NotImplementedError")
    return found


def _offenders(check: Callable[[str], list[str]], paths: list[Path]) -> dict[str, list[str]]:
    return {str(path.relative_to(ROOT)): found for path in paths if (found := check(path.read_text(encoding="utf-8")))}


def test_there_is_something_to_check() -> None:
    assert len(SOURCES) > 30
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == {*FOLDERS, "goalward"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_dependencies_run_one_way(folder: str) -> None:
    paths = [path for path in SOURCES if path.relative_to(ROOT).parts[0] == folder]
    assert not _offenders(lambda source: wrong_directions(folder, source), paths)


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("planners", "from goalward.wm.model import WorldModel"),
        ("planners", "import goalward.envs"),
        ("planners", "from goalward import wm"),
        ("wm", "def f():\n    from goalward.envs.registry import make_env"),
        ("wm", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import goalward.planners.base"),
        ("datasets", "import importlib\nimportlib.import_module('goalward.wm.model')"),
        ("envs", "ENTRY = 'goalward.datasets.store:open_store'"),
        ("envs", "from wm.model import WorldModel"),
        ("policies", "from goalward.planners.actions import Box"),
        ("policies", "def f():\n    import goalward.experiments.planning"),
        ("wm", "from goalward.policies.policy import LatentPolicy"),
        ("experiments", "import planners"),
        ("experiments", "from .cli import main"),
    ],
)
def test_wrong_direction_is_found(folder: str, source: str) -> None:
    assert wrong_directions(folder, source)


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("datasets", "import datasets"),  # Hugging Face's, by an importer
        ("datasets", "from goalward.envs.registry import make_env"),
        ("wm", "from goalward import UserError\nfrom goalward.datasets.store import open_store"),
        ("experiments", "import goalward.planners.methods.cem, goalward.wm, goalward.envs"),
        ("planners", '"""A model, e.g. from goalward.wm, is seen through a protocol."""'),
    ],
)
def test_right_direction_is_left_alone(folder: str, source: str) -> None:
    assert not wrong_directions(folder, source)


def test_nothing_unpickles_or_evaluates() -> None:
    assert not _offenders(unsafe_loading, [path for path in SOURCES if path != READS_CHECKPOINTS])


def test_other_peoples_checkpoints_are_read_by_one_program_that_is_started_and_never_imported() -> None:
    source = READS_CHECKPOINTS.read_text(encoding="utf-8")
    assert [found.partition(": ")[2] for found in unsafe_loading(source)] == ["torch.load"]
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"]
    assert [ast.unparse(word) for call in calls for word in call.keywords if word.arg == "weights_only"] == ["weights_only=True"]
    assert not [module for _, module in imports(source) if module.startswith("goalward")]
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert not [module for _, module in imports(text) if module.startswith("goalward.wm.conversion.unpickle")], path


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import cloudpickle as c",
        "import torch\ntorch.load('x')",
        "import torch as th\nth.load('x', weights_only=True)",
        "from torch import load as read\nread('x')",
        "import torch.hub\ntorch.hub.load('a', 'b')",
        "from functools import partial\nimport torch\nread = partial(torch.load, weights_only=True)",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import numpy as np\nflag = True\nnp.load('x', allow_pickle=flag)",
        "import yaml\nyaml.load('x')",
        "eval('1')",
        "exec('1')",
        "model(weights_only=False)",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
        "import subprocess\nsubprocess.run('ls', shell=True)",
    ],
)
def test_unsafe_loading_is_found(source: str) -> None:
    assert unsafe_loading(source)


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "import re\nre.compile('x')",
        "import torch\ntorch.compile(f)",
        "import json\njson.load(f)",
        "import numpy as np\nnp.load('x', allow_pickle=False)",
        "from safetensors.torch import load_file\nload_file('x')",
        "from goalward.wm.model import load_model as load\nload('reach')",
    ],
)
def test_safe_loading_is_left_alone(source: str) -> None:
    assert not unsafe_loading(source)


def test_no_file_is_above_six_hundred_lines() -> None:
    counts = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in _tracked("*.py")}
    assert not {name: lines for name, lines in counts.items() if lines > 600}


def test_contracts_can_be_read_alone() -> None:
    for folder in ("wm", "planners", "policies", "envs"):
        assert len((ROOT / folder / "base.py").read_text(encoding="utf-8").splitlines()) <= 200, folder


def test_tests_are_at_least_thirty_five_percent_of_lines() -> None:
    counts = {True: 0, False: 0}
    for path in _tracked("*.py"):
        counts[path.relative_to(ROOT).parts[0] == "tests"] += len(path.read_text(encoding="utf-8").splitlines())
    assert counts[True] / sum(counts.values()) >= 0.35, counts


def test_nothing_is_left_unfinished() -> None:
    assert not _offenders(unfinished, SOURCES)


@pytest.mark.parametrize(
    "source", ["x = 1  # TO" "DO: later", "def f():\n    raise NotImplementedError", "def f():\n    raise NotImplementedError('x')"]
)
def test_unfinished_work_is_found(source: str) -> None:
    assert unfinished(source)


def test_catching_what_others_left_unfinished_is_allowed() -> None:
    assert not unfinished("try:\n    f()\nexcept NotImplementedError:\n    pass")


def test_every_third_party_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["hf"]]
    declared = {re.split(r"[\[<>=!~ ]", requirement)[0].lower().replace("_", "-") for requirement in requirements}
    own = {*sys.stdlib_module_names, "goalward"}
    used = {module.split(".")[0] for path in SOURCES for _, module in imports(path.read_text(encoding="utf-8"))} - own
    names = {DISTRIBUTIONS.get(module, module).lower().replace("_", "-") for module in used}
    assert names == declared, f"undeclared: {names - declared}; unused: {declared - names}"


def test_every_package_says_what_it_is() -> None:
    for folder in ("wm", "planners", "policies", "envs", "experiments", "goalward"):
        assert ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text(encoding="utf-8"))), folder
    for path in SOURCES:
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_tests_are_not_packages() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_nothing_names_a_package_index_or_a_place_on_somebodys_machine() -> None:
    index = re.compile(r"--(extra-)?index-url|--find-links|(?<![\w.])/(home|root|Users|workspace|work|mnt)/[\w.]")
    for path in _tracked("*.py", "*.md", "*.toml", "*.txt", "*.json", "*.sh", "run", ".ci/run"):
        if path != Path(__file__):
            found = index.search(path.read_text(encoding="utf-8"))
            assert not found, f"{path.relative_to(ROOT)}: {found}"
