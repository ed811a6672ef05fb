"""`./run`: uses an environment that is there, and explains itself where it cannot make one. Nothing is installed here."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")


def _executable(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def _run(*args: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "run"), *args]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, **environment})


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """An environment that was set up earlier, with one command."""
    venv = tmp_path / "venv"
    _executable(venv / "bin" / "show", 'echo "$#"; for word in "$@"; do echo "$word"; done; command -v show; exit 3')
    (venv / ".goalward-installed").touch()
    return venv


@pytest.mark.parametrize("script", ["run", ".ci/run"])
def test_scripts_are_executable_and_parse(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(ROOT / script)], check=False).returncode == 0


def test_passes_arguments_directory_and_exit_code_on(made: Path, tmp_path: Path) -> None:
    done = _run("show", "two words", "--flag=*", "", cwd=tmp_path, GOALWARD_VENV=str(made))
    assert done.returncode == 3
    assert done.stdout.splitlines() == ["3", "two words", "--flag=*", "", str(made / "bin" / "show")]
    assert done.stderr == ""


def test_without_a_command_it_says_how_it_is_used(made: Path, tmp_path: Path) -> None:
    done = _run(cwd=tmp_path, GOALWARD_VENV=str(made))
    assert done.returncode == 2
    assert done.stdout.startswith("./run COMMAND")
    assert "set -" not in done.stdout


def test_unknown_command_is_one_line(made: Path, tmp_path: Path) -> None:
    done = _run("plan-evil", cwd=tmp_path, GOALWARD_VENV=str(made))
    assert done.returncode == 2
    assert done.stderr.startswith("error: no command plan-evil")
    assert len(done.stderr.splitlines()) == 1


def test_old_python_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    old = _executable(tmp_path / "old", 'if [ "$1" = -V ]; then echo "Python 3.9.6"; else exit 1; fi')
    done = _run("pytest", cwd=tmp_path, GOALWARD_VENV=str(tmp_path / "new"), PYTHON=str(old))
    assert done.returncode == 2
    assert "needs Python 3.11 or newer" in done.stderr
    assert "Python 3.9.6" in done.stderr
    assert not (tmp_path / "new").exists()


def test_set_up_installs_torch_first_and_everything_pinned_and_only_once(tmp_path: Path) -> None:
    """A stand-in interpreter writes down what it is asked; the environment it makes contains itself."""
    log, venv = tmp_path / "log", tmp_path / "venv"
    body = f"""echo "$*" >> {log}
if [ "$1 $2" = "-m venv" ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$0" "$3/bin/pytest"; fi"""
    python = _executable(tmp_path / "python", body)
    for _ in range(2):
        assert _run("pytest", cwd=tmp_path, GOALWARD_VENV=str(venv), PYTHON=str(python)).returncode == 0
    asked = log.read_text().splitlines()
    installs = [line for line in asked if "pip install" in line]
    assert len(installs) == 2
    assert installs[0].split()[-1].startswith("torch==")
    assert f"-c {ROOT}/constraints.txt -e {ROOT}[dev]" in installs[1]
    assert not any("http" in line for line in asked)


def test_failed_installation_is_tried_again(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    body = """if [ "$1 $2" = "-m venv" ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi
if [ "$2" = pip ]; then echo "no network" >&2; exit 1; fi"""
    python = _executable(tmp_path / "python", body)
    for _ in range(2):
        done = _run("pytest", cwd=tmp_path, GOALWARD_VENV=str(venv), PYTHON=str(python))
        assert done.returncode == 1
        assert "no network" in done.stderr
        assert not (venv / ".goalward-installed").exists()


@pytest.mark.parametrize(("user", "with_sudo"), [(0, False), (1000, True), (1000, False)])
def test_missing_opengl_is_installed_or_explained(user: int, with_sudo: bool, tmp_path: Path) -> None:
    """With root or sudo the libraries are installed, the lists updated first; without, it says what to install and goes on."""
    tools, log, venv = tmp_path / "tools", tmp_path / "log", tmp_path / "venv"
    _executable(tools / "apt-get", f'echo "apt-get $*" >> {log}')
    _executable(tools / "id", f"echo {user}")
    if with_sudo:
        _executable(tools / "sudo", f'echo sudo >> {log}; "$@"')
    # Only what the script itself needs, so that no real sudo or apt-get can be reached.
    for name in ("bash", "sh", "dirname", "env", "grep", "mkdir", "cp", "touch", "cat"):
        (tools / name).symlink_to(shutil.which(name) or name)
    body = """if [ "$1 $2" = "-m venv" ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$0" "$3/bin/pytest"; fi
case "$2" in *available_backends*) exit 1;; esac"""
    python = _executable(tmp_path / "python", body)
    done = _run("pytest", cwd=tmp_path, GOALWARD_VENV=str(venv), PYTHON=str(python), PATH=str(tools))
    assert done.returncode == 0, done.stderr
    if user == 0 or with_sudo:
        asked = [line for line in log.read_text().splitlines() if line != "sudo"]
        assert asked[0].startswith("apt-get update")
        assert asked[1].endswith("libegl1 libgl1")
        assert ("sudo" in log.read_text()) is with_sudo
    else:
        assert not log.exists()
        assert "apt-get install libegl1 libgl1" in done.stderr
