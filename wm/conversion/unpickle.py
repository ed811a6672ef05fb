"""Writes the tensors of a `.pt` file to a safetensors file: a program of its own, and the only place that opens such files.

    python -I unpickle.py SOURCE TARGET SECTION...

A `.pt` file is a pickle. `weights_only` restricts it to tensors, numbers, strings and containers of them, and refuses anything else before
it is run; that this happens in a process of its own, which ends with it, is the second wall. Imports nothing of Goalward.

Prints one line of JSON: what the file holds, or what is wrong with it (exit code 3).
"""

from __future__ import annotations

import json
import re
import sys
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


class Fault(Exception):
    """What is wrong with the file, for people."""


def main(arguments: Sequence[str]) -> int:
    """Reads SOURCE, and writes its SECTIONs to TARGET as `number/name`, numbered as they were given."""
    source, target, *sections = arguments
    try:
        content = _read(Path(source))
        found = [_section(content, section) for section in sections]
        tensors = {f"{number}/{name}": tensor for number, section in enumerate(found) for name, tensor in section.items()}
        save_file(tensors, target)
    except Fault as fault:
        print(json.dumps({"fault": str(fault)}))
        return 3
    print(json.dumps({"holds": sorted(map(str, content))[:100]}))
    return 0


def _read(path: Path) -> Mapping[Any, Any]:
    """The file's content, a mapping."""
    with path.open("rb") as file:
        begins_as_zip = file.read(2) == b"PK"
    whole = zipfile.is_zipfile(path)  # looks for the directory at the end
    if begins_as_zip and not whole:
        raise Fault("is truncated: its directory, which stands at the end, is missing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on unusual protocols: what is read of them is checked all the same
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=whole)
    except Exception as error:
        said = " ".join(str(error).split())
        if named := re.search(r"(?:Unsupported global: GLOBAL|unsupported global|Unsupported class) (\S+)", said, re.IGNORECASE):
            raise Fault(f"holds {named.group(1)}, which is no plain tensor; nothing of it was run") from error
        if "Weights only load failed" in said or "Unsupported" in said:
            raise Fault(f"holds something other than plain tensors, or is damaged ({_short(said)}); nothing of it was run") from error
        raise Fault(f"cannot be read: truncated, or no checkpoint ({_short(said)})") from error
    if not isinstance(content, Mapping):
        raise Fault(f"holds a {type(content).__name__}; must hold a mapping of names")
    return content


def _section(content: Mapping[Any, Any], section: str) -> dict[str, torch.Tensor]:
    """One mapping of names to tensors in it."""
    found = content.get(section)
    if not isinstance(found, Mapping) or not found:
        raise Fault(f"holds no mapping {section!r} of tensors; it has {', '.join(sorted(map(str, content))[:12]) or 'nothing'}")
    if wrong := [f"{name} ({type(value).__name__})" for name, value in found.items() if not _is_plain(value)]:
        raise Fault(f"holds in {section!r} what is no plain tensor: {', '.join(wrong[:12])}")
    # Copies: safetensors refuses memory that two tensors share.
    return {str(name): value.detach().clone().contiguous() for name, value in found.items()}


def _is_plain(value: Any) -> bool:
    """Whether it is a dense tensor with memory of its own, and exactly a tensor: subclasses carry behaviour."""
    exactly = type(value) in (torch.Tensor, torch.nn.Parameter)
    return exactly and value.layout is torch.strided and not value.is_quantized and not value.is_meta


def _short(text: str) -> str:
    return text[:160]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
