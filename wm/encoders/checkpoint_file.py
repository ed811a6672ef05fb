"""Tensors out of PyTorch checkpoint files, without unpickling anything here: another process does that and writes safetensors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from goalward import UserError

_WORKER = "goalward.wm.encoders.unpickle"
_REFUSED = 3


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """One entry of a checkpoint."""

    tensors: dict[str, Tensor]
    """By the names of the file."""
    sha256: str
    """Of the whole file."""
    entries: tuple[str, ...]
    """Names of everything that is in it."""


def read_checkpoint(path: str | Path, *, entry: str = "encoder", scratch: Path | None = None) -> CheckpointFile:
    """Reads one entry of a checkpoint file.

    Args:
        path: File, as `torch.save` wrote it.
        entry: Which of its entries; empty: the file is itself a mapping of names to tensors.
        scratch: Folder for a temporary copy of the tensors; None: the system's.

    Raises:
        UserError: No such file, truncated, no such entry, or anything in it that is not a plain tensor; nothing of it was executed.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"checkpoint: {file} is not a file; give the .pt file as it was downloaded")
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".unpickled-") as folder:
        target = Path(folder) / "tensors.safetensors"
        command = [sys.executable, "-m", _WORKER, str(file.resolve()), str(target), entry]
        # The worker finds the package where this process found it.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode == _REFUSED:
            raise UserError(f"checkpoint {file}: {' '.join(done.stderr.split())}; nothing of it was executed; download it again")
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}, perhaps for lack of memory"]
            raise UserError(f"checkpoint {file}: could not be read ({last[0][:200]}); nothing of it is kept")
        said = json.loads(done.stdout)
        return CheckpointFile(load_file(target), said["sha256"], tuple(said["entries"]))
