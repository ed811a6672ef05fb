"""Runs a measurement in an environment of its own, with the public checkout's requirements and this checkout on its path."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from goalward import UserError
from goalward.experiments.bench.peers.environment import checkout, default_folder, ensure, python_of

REQUIREMENTS = {"vjepa2": (("scipy", "tqdm"),)}
"""What the public planner imports besides torch and numpy; for timm see `public.py`."""


def measured(module: str, request: dict[str, Any], *, env_dir: Path | None, rebuild: bool, threads: int, say: Callable[[str], None]) -> Any:
    """Makes the environment, once, and runs `goalward.experiments.bench.vjepa2_ac.<module>` in it.

    Returns:
        What it wrote.

    Raises:
        UserError: The checkout is missing, the environment cannot be made, or the measurement broke off.
    """
    source = Path(request["checkout"])
    if not (source / "src/models/ac_predictor.py").is_file():
        raise UserError(f"checkout: {source} is no checkout of the public vjepa2 repository; git clone it, and give its folder")
    root, folder = checkout(), env_dir or default_folder().with_name("vjepa2")
    if failed := ensure(folder, say, rebuild=rebuild, peers=REQUIREMENTS):
        raise UserError(f"env_dir: {'; '.join(failed.values())}; see that packages can be installed in {folder}")
    say(f"measuring ({module})")
    with tempfile.TemporaryDirectory() as scratch:
        path, result = Path(scratch) / "request.json", Path(scratch) / "result.json"
        told = request | {"checkout": str(source.resolve()), "threads": threads, "result": str(result)}
        path.write_text(json.dumps(told), encoding="utf-8")
        environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        command = [str(python_of(folder)), "-m", f"goalward.experiments.bench.vjepa2_ac.{module}", str(path)]
        done = subprocess.run(command, env=environment, check=False)
        if done.returncode:
            raise UserError(f"the measurement ended with {done.returncode}; what it said is above; --rebuild makes the environment anew")
        return json.loads(result.read_text(encoding="utf-8"))
