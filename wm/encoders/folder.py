"""The folder of an encoder: `encoder.json` (what it is) + `encoder.safetensors` (its weights).

The weights are written first and the JSON, which holds their SHA-256, last: a folder whose JSON exists is whole.
Reading checks
everything and reports every fault at once. No pickle anywhere.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from goalward import UserError
from goalward.wm.encoders.small import SmallEncoder, SmallEncoderConfig, SmallEncoderNetwork

JSON_NAME = "encoder.json"
WEIGHTS_NAME = "encoder.safetensors"
CARD_NAME = "MODEL_CARD.md"

_SCHEMA = 1
_MAX_JSON_BYTES = 4 * 2**20
_MAX_WEIGHT_BYTES = 512 * 2**20
_FIX = "restore the folder from its source or run `goalward pretrain` again"


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces a file by `data`, or leaves it as it was.

    Raises:
        UserError: The disk is full or the place not writable; names the path.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        fix = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose a folder you may write to"
        raise UserError(f"cannot write {path}: {error.strerror}; {fix}; what was there before is kept") from error


def save_small_encoder(path: str | Path, encoder: SmallEncoder, *, provenance: Mapping[str, Any] | None = None) -> None:
    """Writes the folder of an encoder.

    Args:
        path: Folder, made where missing; an encoder already there is replaced.
        encoder: What to write.
        provenance: Objective, data, command, figures: whatever the model card should tell, JSON values only.

    Raises:
        UserError: The folder cannot be written.
    """
    folder = Path(path)
    weights = safetensors_bytes({name: value.cpu().contiguous() for name, value in sorted(encoder.state_dict().items())})
    described = {
        "schema": _SCHEMA,
        "kind": "small",
        "name": encoder.name,
        "licence": encoder.licence,
        "config": asdict(encoder.config),
        "fingerprint": encoder.fingerprint,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "provenance": dict(provenance or {}),
    }
    text = json.dumps(described, indent=2, sort_keys=True, allow_nan=False) + "\n"
    # A reader between the two writes sees a hash that does not match, and says so; it never sees a mixture as valid.
    write_atomically(folder / WEIGHTS_NAME, weights)
    write_atomically(folder / JSON_NAME, text.encode())


def load_small_encoder(path: str | Path, *, device: str | torch.device = "cpu") -> SmallEncoder:
    """Reads and checks the folder of an encoder.

    Raises:
        UserError: Missing files, another schema, a changed byte, missing, extra, misshapen or non-finite tensors: all
            in one line.
    """
    folder = Path(path)
    described = read_description(folder)
    faults: list[str] = []
    config = _config(described, faults)
    name, licence = described.get("name"), described.get("licence")
    for key, value in (("name", name), ("licence", licence), ("fingerprint", described.get("fingerprint"))):
        if not isinstance(value, str) or not value:
            faults.append(f"{JSON_NAME}: {key} is {value!r}, must be a text")
    tensors = _weights(folder, described, faults)
    network = SmallEncoderNetwork(config) if config is not None else None
    if network is not None and tensors is not None:
        if found := _tensor_faults(network.state_dict(), tensors):
            faults.extend(found)
        elif not faults:
            network.load_state_dict(tensors)
            encoder = SmallEncoder(network, name=str(name), licence=str(licence), device=device)
            if encoder.fingerprint == described["fingerprint"]:
                return encoder
            faults.append("fingerprint differs from the weights and the configuration")
    raise UserError(f"encoder folder {folder} is damaged: {'; '.join(faults)}; {_FIX}")


def read_description(path: str | Path, *, kinds: tuple[str, ...] = ("small",)) -> dict[str, Any]:
    """Reads `encoder.json` of a folder, unverified beyond its schema and kind.

    Raises:
        UserError: Missing, too large, not JSON, or of another schema or kind.
    """
    file = Path(path) / JSON_NAME
    try:
        if file.stat().st_size > _MAX_JSON_BYTES:
            raise UserError(f"{file} has {file.stat().st_size} bytes: at most {_MAX_JSON_BYTES} are plausible; {_FIX}")
        described = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{Path(path)} is not an encoder folder: cannot read {JSON_NAME} ({error.strerror}); {_FIX}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{file} is not valid JSON; {_FIX}") from error
    if not isinstance(described, dict):
        raise UserError(f"{file} is not a JSON object; {_FIX}")
    if described.get("schema") != _SCHEMA or described.get("kind") not in kinds:
        raise UserError(
            f"{file}: schema {described.get('schema')!r}, kind {described.get('kind')!r}: this version reads "
            f"schema {_SCHEMA}, kind {' or '.join(map(repr, kinds))}; update goalward or choose another encoder"
        )
    return described


def _config(described: dict[str, Any], faults: list[str]) -> SmallEncoderConfig | None:
    raw = described.get("config")
    names = {field.name for field in fields(SmallEncoderConfig)}
    if not isinstance(raw, dict) or set(raw) != names:
        faults.append(f"{JSON_NAME}: config must hold exactly {', '.join(sorted(names))}")
        return None
    for key, value in raw.items():
        listed = value if key in ("widths", "blocks") and isinstance(value, list) else [value]
        if not all(type(entry) is int for entry in listed):
            faults.append(f"{JSON_NAME}: config.{key} is {value!r}, must be of whole numbers")
            return None
    try:
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
        return SmallEncoderConfig(**values)
    except (UserError, TypeError) as error:
        faults.append(f"{JSON_NAME}: config: {error}")
        return None


def _weights(folder: Path, described: dict[str, Any], faults: list[str]) -> dict[str, Tensor] | None:
    file = folder / WEIGHTS_NAME
    try:
        if (size := file.stat().st_size) > _MAX_WEIGHT_BYTES:
            faults.append(f"{WEIGHTS_NAME} has {size} bytes, at most {_MAX_WEIGHT_BYTES} are plausible")
            return None
        data = file.read_bytes()
    except OSError as error:
        faults.append(f"{WEIGHTS_NAME} cannot be read ({error.strerror})")
        return None
    if hashlib.sha256(data).hexdigest() != described.get("weights_sha256"):
        faults.append(f"{WEIGHTS_NAME} has another SHA-256 than {JSON_NAME} says")
    try:
        return parse_safetensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        faults.append(f"{WEIGHTS_NAME} cannot be parsed ({error})")
        return None


def _tensor_faults(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    faults = [f"tensor {name} is missing" for name in sorted(set(expected) - set(found))]
    faults += [f"tensor {name} is unknown" for name in sorted(set(found) - set(expected))]
    for name in sorted(set(expected) & set(found)):
        want, have = expected[name], found[name]
        if have.shape != want.shape or have.dtype != want.dtype:
            faults.append(f"tensor {name} is {have.dtype} {list(have.shape)}, must be {want.dtype} {list(want.shape)}")
        elif not bool(torch.isfinite(have).all()):
            faults.append(f"tensor {name} holds values that are not finite")
    return faults
