"""Reads tensors out of a `.pt` checkpoint file, in a separate process that runs nothing of what the file says; see `unpickle.py`."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from goalward import UserError

_PROGRAM = Path(__file__).with_name("unpickle.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorFile:
    """What was read."""

    sections: dict[str, dict[str, Tensor]]
    """Tensors by section and name."""
    sha256: str
    """Of the file, in hexadecimal digits: compare it with what the publisher says."""


def read_tensors(path: Path, sections: tuple[str, ...]) -> TensorFile:
    """Reads some sections of a checkpoint, each a mapping of names to tensors.

    Args:
        path: A file as `torch.save` writes it.
        sections: Names of the wanted entries at the top, such as "predictor"; the others are left alone.

    Raises:
        UserError: No such file, a truncated one, a pickle that is not plain tensors, or a section that is not there.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the downloaded .pt file")
    sha256 = sha256_of(path)
    with tempfile.TemporaryDirectory(prefix="goalward-") as scratch:
        target = Path(scratch) / "tensors.safetensors"
        command = [sys.executable, "-I", str(_PROGRAM), str(path.resolve()), str(target), *sections]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = done.stdout.splitlines()
        if done.returncode == 3 and lines:
            raise UserError(f"{path}: {json.loads(lines[-1])['fault']}; download it again, and compare its SHA-256 ({sha256})")
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise UserError(f"{path}: reading it ended with {done.returncode} ({last}); see that memory and disk suffice for it twice")
        tensors = load_file(target)
    read: dict[str, dict[str, Tensor]] = {section: {} for section in sections}
    for name, tensor in tensors.items():
        number, _, within = name.partition("/")
        read[sections[int(number)]][within] = tensor
    return TensorFile(sections=read, sha256=sha256)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file of any size, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
