"""Reads PyTorch's own checkpoint files, in a process of its own: `python -m goalward.wm.encoders.unpickle SOURCE TARGET ENTRY`.

The only place in the project where `torch.load` is called, and only with `weights_only=True`: that unpickler knows tensors and plain
containers, and refuses everything that would have to be imported or called. Even so it never runs inside a process that holds anything
else. What it leaves behind is a safetensors file; the checkpoint's other entries (optimiser, epoch) are not looked at.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

REFUSED = 3  # exit code; the reason is the only line on standard error


class RefusedError(Exception):
    """The file holds something else than plain tensors, or not the entry that was asked for."""


def extract(source: Path, target: Path, entry: str) -> dict[str, Any]:
    """Copies the tensors of one entry into a safetensors file.

    Args:
        source: Checkpoint: a mapping of entries, each a mapping of names to tensors; or such a mapping of tensors itself.
        target: File to write.
        entry: Name of the entry; empty: the checkpoint itself.

    Returns:
        SHA-256 of the source and its entries' names.

    Raises:
        RefusedError: Anything else than plain, dense tensors under names.
    """
    with source.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        # Mapped where the format allows it: of optimiser and teacher, often most of the file, nothing is read.
        content = torch.load(source, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(source))
    except Exception as error:  # truncated, no pickle at all, or one that asks for code: all are refused alike
        reason = " ".join(str(error).split())
        raise RefusedError(f"not a file of plain tensors ({type(error).__name__}: {reason[:200]})") from error
    if not isinstance(content, dict):
        raise RefusedError(f"holds a {type(content).__name__}, must be a mapping")
    entries = [str(name) for name in content]
    chosen = content if not entry else content.get(entry)
    if chosen is None:
        raise RefusedError(f"has no entry {entry!r}; it has {', '.join(entries[:12])}")
    if not isinstance(chosen, dict) or not chosen:
        raise RefusedError(f"entry {entry!r} is a {type(chosen).__name__}, must be a mapping of names to tensors")
    tensors: dict[str, Tensor] = {}
    for name, value in chosen.items():
        # Exactly a tensor: subclasses carry behaviour.
        plain = isinstance(value, Tensor) and type(value) in (Tensor, torch.nn.Parameter) and value.layout is torch.strided
        if not isinstance(name, str) or not plain or value.is_quantized or value.is_meta:
            raise RefusedError(f"entry {str(name)[:60]!r} is a {type(value).__name__}, must be a plain tensor")
        tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
    save_file(tensors, str(target))
    return {"sha256": sha256, "entries": entries}


def main(arguments: list[str]) -> int:
    """Entry point of the process."""
    source, target, entry = arguments
    try:
        print(json.dumps(extract(Path(source), Path(target), entry)))
    except RefusedError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
