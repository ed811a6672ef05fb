"""The safetensors files of a model folder, read by their headers alone: what is in them, whether they are whole, and their hash.

A header says where every tensor's bytes lie. So a truncated file, a tensor that is missing from its shard and a name that comes twice are
found before anything is loaded, and a hash over names and bytes does not depend on how the tensors were spread over files.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from goalward import UserError
from goalward.datasets.durable import explain
from goalward.datasets.strict_json import parse, read_regular

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_MAX_HEADER_BYTES = 64 * 2**20
_BLOCK = 8 * 2**20


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies."""

    file: Path
    """The file."""
    dtype: str
    """As safetensors names it: F32, BF16, ..."""
    shape: tuple[int, ...]
    """Sizes of its axes."""
    start: int
    """First byte in the file."""
    end: int
    """Byte after the last."""

    @property
    def numel(self) -> int:
        """Entries."""
        return math.prod(self.shape)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Lists the tensors of a folder's safetensors files.

    Raises:
        UserError: There are none, or a file is missing, truncated or not what its header says; all faults in one line.
    """
    found: dict[str, StoredTensor] = {}
    faults: list[str] = []
    for file in weight_files(folder):
        try:
            for name, tensor in _header(file).items():
                if name in found:
                    faults.append(f"tensor {name} is in {found[name].file.name} and in {file.name}")
                found[name] = tensor
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError(f"{folder}: damaged weights: {'; '.join(faults)}; download or convert them again")
    return found


def hash_tensors(tensors: dict[str, StoredTensor], used: Callable[[str], object]) -> str:
    """SHA-256 over names, types, shapes and bytes of the tensors that are used, about a second for 1.5 GB.

    Raises:
        UserError: A file cannot be read any more.
    """
    digest = hashlib.sha256()
    for name in sorted(name for name in tensors if used(name)):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        try:
            with tensor.file.open("rb") as file:
                file.seek(tensor.start)
                left = tensor.end - tensor.start
                while left and (block := file.read(min(left, _BLOCK))):
                    digest.update(block)
                    left -= len(block)
        except OSError as error:
            raise explain(error, tensor.file) from None
        if left:
            raise UserError(f"{tensor.file}: became shorter while it was read; copy it again")
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """Names the safetensors files of a folder.

    Raises:
        UserError: There are none, or not all that the index names.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not (folder / INDEX).is_file():
        others = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".msgpack", ".h5", ".onnx"))
        have = f"only {', '.join(others[:4])}, which are not read" if others else "no weights"
        raise UserError(f"{folder}: {have}; {SINGLE} must be there: take the safetensors files of the same model, or goalward convert")
    index = parse(read_regular(folder / INDEX, _MAX_HEADER_BYTES), folder / INDEX)
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise UserError(f"{folder / INDEX}: weight_map must name a file for every tensor; download it again")
    names = sorted(set(shards.values()))
    if wrong := [name for name in names if not re.fullmatch(r"[\w.-]+\.safetensors", name)]:
        raise UserError(f"{folder / INDEX}: {wrong[0][:80]!r} is not a safetensors file of this folder; download it again")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UserError(f"{folder}: {', '.join(missing)} named by {INDEX} but not there; download them too")
    return [folder / name for name in names]


def _header(path: Path) -> dict[str, StoredTensor]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
                raise UserError(f"{path.name} is truncated or not a safetensors file ({size} bytes)")
            raw = file.read(length)
    except OSError as error:
        raise explain(error, path) from None
    header = parse(raw, path.name)
    if not isinstance(header, dict):
        raise UserError(f"{path.name} is not a safetensors file")
    first, tensors = 8 + length, {}
    for name, entry in header.items():
        if name != "__metadata__":
            tensors[name] = _entry(path, name, entry, first)
    end = max((tensor.end for tensor in tensors.values()), default=first)
    if end != size:
        raise UserError(f"{path.name} has {size} bytes, its header speaks of {end}: it is truncated or was changed")
    return tensors


def _entry(path: Path, name: str, entry: object, first: int) -> StoredTensor:
    if isinstance(entry, dict) and set(entry) >= {"dtype", "shape", "data_offsets"}:
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        lists = isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2
        whole = lists and all(type(value) is int and value >= 0 for value in shape + offsets)
        if whole and dtype in _BYTES and offsets[1] - offsets[0] == math.prod(shape) * _BYTES[dtype]:
            return StoredTensor(path, dtype, tuple(shape), first + offsets[0], first + offsets[1])
    raise UserError(f"{path.name}: tensor {name[:80]} is described as {json.dumps(entry)[:120]}, which is not a tensor that can be read")
