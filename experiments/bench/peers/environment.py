"""The virtual environment that the peers live in: made once, reused while its requirements stay the same.

Our own package is not installed there but read from this checkout, so that it plans with the same code and weights. torch and numpy are
pinned to the versions that run here. stable-worldmodel is installed without its dependencies: its solvers need gymnasium and loguru alone,
while the whole list brings torchvision, whose common wheel does not load beside a CPU build of torch, and data-set libraries.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from goalward import UserError

NOTE_NAME = "goalward-peers.json"
CORE = ("torch", "numpy", "safetensors")
"""Installed in the versions found here."""
PEERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "cma": (("cma==4.5.0",),),
    "pytorch_mppi": (("pytorch_mppi==0.9.1",),),
    "torchrl": (("torchrl>=0.14",),),
    "stable-worldmodel": (("gymnasium>=1.0", "loguru"), ("--no-deps", "stable-worldmodel==0.1.1")),
}
"""What `pip install` is given for each library, one call after the other."""
Run = Callable[[Sequence[str]], None]


def default_folder() -> Path:
    """Where caches go on this system."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "goalward" / "peers"


def checkout() -> Path:
    """The folder that holds the package `goalward`.

    Raises:
        UserError: It is not a checkout of the repository.
    """
    import goalward

    root = Path(goalward.__file__).resolve().parents[1]
    if not (root / "pyproject.toml").exists():
        raise UserError(f"goalward runs from {root}, which is no checkout of its repository; run this benchmark from one")
    return root


def python_of(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


Peers = Mapping[str, Sequence[Sequence[str]]]


def requirements(peers: Peers = PEERS) -> dict[str, Any]:
    """All that decides what is installed."""
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "core": [f"{name}=={importlib.metadata.version(name)}" for name in CORE],
        "peers": {library: [list(arguments) for arguments in calls] for library, calls in peers.items()},
    }


def ensure(
    folder: Path, say: Callable[[str], None], *, rebuild: bool = False, run: Run | None = None, peers: Peers = PEERS
) -> dict[str, str]:
    """Makes the environment, unless it is there already.

    Args:
        folder: Where; empty, missing, or made by this function before.
        say: Told what is going on.
        rebuild: Make it anew in any case.
        run: Starts a program and raises `subprocess.CalledProcessError` if it fails.
        peers: What to install besides torch.

    Returns:
        Why libraries could not be installed, for those that could not.

    Raises:
        UserError: The folder holds something else, or not even torch can be installed.
    """
    run = run or _run
    note, wanted = folder / NOTE_NAME, requirements(peers)
    if folder.exists() and any(folder.iterdir()) and not note.exists():
        raise UserError(f"env_dir: {folder} holds something else; give a folder that is empty or does not exist")
    found = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
    if found.get("requirements") == wanted and found.get("done") and not rebuild:
        return dict(found["failed"])
    folder.mkdir(parents=True, exist_ok=True)
    say("making the environment")
    run([sys.executable, "-m", "venv", "--clear", str(folder)])
    note.write_text(json.dumps({"requirements": wanted, "done": False}), encoding="utf-8")
    pins = folder / "pins.txt"
    pins.write_text("\n".join(wanted["core"]) + "\n", encoding="utf-8")
    pip = [str(python_of(folder)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", str(pins)]
    try:
        say(f"installing {', '.join(wanted['core'])}")
        run([*pip, *wanted["core"]])
    except subprocess.CalledProcessError as error:
        raise UserError(f"env_dir: {_last_line(error)}; torch cannot be installed in {folder}") from error
    failed = {}
    for library, calls in peers.items():
        say(f"installing {library}")
        try:
            for arguments in calls:
                run([*pip, *arguments])
        except subprocess.CalledProcessError as error:
            failed[library] = f"not installed: {_last_line(error)}"
    note.write_text(json.dumps({"requirements": wanted, "done": True, "failed": failed}), encoding="utf-8")
    return failed


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def _last_line(error: subprocess.CalledProcessError) -> str:
    said = [line for line in str(error.stderr or "").splitlines() if line.startswith("ERROR")]
    return said[-1] if said else f"pip ended with {error.returncode}"
