"""Guards of the packaging: real folders on top, a thin `goalward/` of links, a wheel that never needs the links."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("wm", "planners", "policies", "envs", "datasets", "experiments")
DATA_SUFFIXES = {".json", ".safetensors", ".md", ".html", ".css", ".js"}


def _run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONWARNINGS": "default", **environment}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _files() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return listed.stdout.splitlines()
    # An unpacked archive: what a build can need.
    tops = ("goalward", *FOLDERS)
    inside = [path for top in tops for path in (ROOT / top).rglob("*") if "__pycache__" not in path.parts and not path.is_dir()]
    links = [ROOT / "goalward" / folder for folder in FOLDERS]
    single = [ROOT / name for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE")]
    return [str(path.relative_to(ROOT)) for path in (*inside, *links, *single)]


def _copy(destination: Path, *, links_as_text: bool) -> Path:
    """The tracked files, as an archive would unpack them; optionally with every link turned into a text file."""
    destination.mkdir()
    for name in _files():
        source, target = ROOT / name, destination / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            if links_as_text:
                target.write_text(os.readlink(source))
            else:
                target.symlink_to(os.readlink(source))
        elif source.is_file():
            shutil.copy(source, target)
    return destination


def _wheel(tree: Path, out: Path) -> set[str]:
    script = (
        "import sys, setuptools.build_meta as backend\n"
        "print('wheel=' + backend.build_wheel(sys.argv[1]))"
    )
    out.mkdir()
    printed = _run(sys.executable, "-c", script, str(out), cwd=tree)
    wheel = next(line.removeprefix("wheel=") for line in printed.splitlines() if line.startswith("wheel="))
    with zipfile.ZipFile(out / wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def _expected() -> set[str]:
    expected = {"goalward/__init__.py", "goalward/py.typed"}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            parts = path.relative_to(ROOT).parts
            if path.is_file() and "__pycache__" not in parts and (path.suffix == ".py" or path.suffix in DATA_SUFFIXES):
                expected.add("goalward/" + "/".join(parts))
    return expected - {"goalward/datasets/README.md"}


def test_p1_wheel_holds_every_file_and_works_outside_the_repository(tmp_path: Path) -> None:
    tree = _copy(tmp_path / "tree", links_as_text=False)
    assert _wheel(tree, tmp_path / "out") == _expected()
    site = tmp_path / "site"
    with zipfile.ZipFile(next((tmp_path / "out").glob("*.whl"))) as archive:
        archive.extractall(site)
    code = (
        "import importlib, pkgutil, goalward\n"
        f"assert goalward.__file__.startswith({str(site)!r}), goalward.__file__\n"
        "import goalward.envs, goalward.wm, goalward.planners, goalward.policies, goalward.experiments, goalward.datasets\n"
        "for package in (goalward.envs, goalward.wm, goalward.planners, goalward.policies, goalward.experiments, goalward.datasets):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "from goalward.experiments.plan_eval import main\n"
        "import sys; sys.argv = ['plan-eval', '--help']; main()\n"
    )
    assert "--env" in _run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(site))


def test_p1_source_distribution_builds_the_same_wheel(tmp_path: Path) -> None:
    tree = _copy(tmp_path / "tree", links_as_text=False)
    script = "import sys, setuptools.build_meta as b; print('sdist=' + b.build_sdist(sys.argv[1]))"
    (tmp_path / "sdist").mkdir()
    printed = _run(sys.executable, "-c", script, str(tmp_path / "sdist"), cwd=tree)
    name = next(line.removeprefix("sdist=") for line in printed.splitlines() if line.startswith("sdist="))
    shutil.unpack_archive(tmp_path / "sdist" / name, tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert _wheel(unpacked, tmp_path / "out") == _expected()


def test_p2_hugging_face_datasets_is_never_shadowed(tmp_path: Path) -> None:
    assert not (ROOT / "datasets" / "__init__.py").exists()
    package = tmp_path / "datasets"
    package.mkdir()
    (package / "__init__.py").write_text("STAND_IN = True\n")
    probe = "import datasets, goalward.datasets.store; assert datasets.STAND_IN; print(datasets.__file__)"
    # The root of the repository comes first on the path, as with `python -m`.
    printed = _run(sys.executable, "-c", f"import sys; sys.path.insert(0, ''); {probe}", cwd=ROOT, PYTHONPATH=str(tmp_path))
    assert Path(printed.strip()).parent == package


def test_p3_no_file_is_loaded_under_two_names() -> None:
    code = (
        "import importlib, pkgutil, sys, goalward\n"
        "for folder in ('wm', 'planners', 'policies', 'envs', 'datasets', 'experiments'):\n"
        "    package = importlib.import_module('goalward.' + folder)\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "import os\n"
        f"root = {str(ROOT)!r}\n"
        "files = [os.path.realpath(m.__file__) for m in list(sys.modules.values()) if getattr(m, '__file__', None)]\n"
        "ours = [f for f in files if f.startswith(root + os.sep) and '.venv' not in f]\n"
        "assert len(ours) == len(set(ours)) and len(ours) > 30, ours\n"
    )
    _run(sys.executable, "-c", code, cwd=ROOT)


def test_p4_links_exist_are_relative_and_match_setup() -> None:
    setup = (ROOT / "setup.py").read_text()
    for folder in FOLDERS:
        link = ROOT / "goalward" / folder
        assert link.is_symlink()
        assert os.readlink(link) == f"../{folder}"
        assert f'"{folder}"' in setup
    assert {p.name for p in (ROOT / "goalward").iterdir() if p.is_symlink()} == set(FOLDERS)


def test_p4_archive_without_links_still_builds_the_whole_wheel(tmp_path: Path) -> None:
    tree = _copy(tmp_path / "tree", links_as_text=True)
    assert (tree / "goalward" / "wm").read_text() == "../wm"
    assert _wheel(tree, tmp_path / "out") == _expected()


def test_p5_import_is_light() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import goalward; print(time.perf_counter() - start)\n"
        "assert not {'torch', 'mujoco', 'numpy', 'gymnasium'} & set(sys.modules)"
    )
    # The quickest of three: the bound is on the work done, not on how busy the machine is.
    assert min(float(_run(sys.executable, "-c", code, cwd=ROOT)) for _ in range(3)) < 0.3


def test_dependencies_are_pinned_and_bounded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["hf"], *(name for name in extras["dev"] if name != "goalward[hf]")]
    names = {requirement.split("[")[0].split(">")[0].split("<")[0].strip().lower().replace("_", "-") for requirement in wanted}
    assert names <= pinned
    assert not {"torchvision", "timm", "torchcodec"} & (names | pinned)


def test_base_install_never_imports_the_fragile_three() -> None:
    code = (
        "import sys, goalward.wm.model, goalward.wm.train, goalward.envs.reach\n"
        "assert not {'torchvision', 'timm', 'torchcodec'} & set(sys.modules)"
    )
    _run(sys.executable, "-c", code, cwd=ROOT)


@pytest.mark.parametrize("command", ["plan-eval", "goalward"])
def test_commands_are_declared(command: str) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, function = scripts[command].split(":")
    assert function == "main"
    assert (ROOT / Path(*module.split(".")[1:])).with_suffix(".py").exists()
