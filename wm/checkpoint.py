"""The folder of a trained world model, and its checks.

    model.json             what it is: sizes, environment, statistics, encoder, data, versions; with a checksum of itself
    predictor.safetensors  weights and the mean latent; its SHA-256 stands in model.json
    calibration.json       where `goalward calibrate` has run, see `calibration.py`
    encoder/               a copy of the encoder, unless it is one that ships with the package

The tensors are written first and `model.json` last. Reading believes nothing: names, shapes, dtypes, finite values, hashes and ranges are
checked, and everything found wrong is reported in one error.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from goalward import UserError
from goalward.datasets.durable import explain, replace_file, write_file
from goalward.datasets.strict_json import canonical, parse, read_regular
from goalward.wm.base import EnvSignature
from goalward.wm.predictor import LatentPredictor, PredictorConfig

MODEL_JSON = "model.json"
CALIBRATION_JSON = "calibration.json"
TENSORS = "predictor.safetensors"
ENCODER_FOLDER = "encoder"
FORMAT = "goalward-model"
SCHEMA = 1
_MAX_JSON_BYTES = 4 * 2**20
_MAX_TENSOR_BYTES = 8 * 2**30
_MEAN = "latent_mean"


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderReference:
    """Which encoder the latents come from."""

    name: str
    """Its name."""
    fingerprint: str
    """SHA-256 of its weights and preprocessing."""
    shipped: bool
    """Whether it ships with the package (loaded by name) or lies in the model's folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelDescription:
    """Everything in `model.json`."""

    predictor: PredictorConfig
    """Sizes of the predictor."""
    num_tokens: int
    """N, tokens per frame, all views together."""
    dim: int
    """D, latent width."""
    env: EnvSignature
    """Environment of the data."""
    encoder: EncoderReference
    """Origin of the latents."""
    latent_scale: float
    """Root mean square of the centred training latents."""
    action_mean: tuple[float, ...]
    """Mean of the training actions [A], physical units."""
    action_std: tuple[float, ...]
    """Their standard deviation [A]."""
    proprio_mean: tuple[float, ...]
    """Mean of the training proprioception [P], SI units."""
    proprio_std: tuple[float, ...]
    """Its standard deviation [P]."""
    data_hash: str
    """Content hash of the dataset."""
    training: dict[str, Any]
    """Configuration, steps and figures of the training run; for people."""
    versions: dict[str, str]
    """Versions of the software that made it."""

    def faults(self) -> list[str]:
        """What contradicts itself or is out of range."""
        found = []
        for name, limit in (("num_tokens", 65536), ("dim", 65536)):
            if not 1 <= getattr(self, name) <= limit:
                found.append(f"{name} is {getattr(self, name)}, must lie in 1 .. {limit}")
        lengths = {"action": len(self.env.action_names), "proprio": len(self.env.proprio_names)}
        for kind, expected in lengths.items():
            for part in ("mean", "std"):
                values = getattr(self, f"{kind}_{part}")
                if len(values) != expected:
                    found.append(f"{kind}_{part} has {len(values)} entries, must have {expected}")
        for name in ("latent_scale", "action_std", "proprio_std"):
            value = getattr(self, name)
            if not all(entry > 0 for entry in (value if isinstance(value, tuple) else (value,))):
                found.append(f"{name} is {value}, must be positive")
        return found


def save_model(
    folder: Path,
    description: ModelDescription,
    tensors: dict[str, Tensor],
    mean_ND: Tensor,
    *,
    encoder_files: dict[str, bytes] | None = None,
) -> None:
    """Writes a model folder; an older model in it is replaced.

    Args:
        folder: Made where missing.
        description: What it is.
        tensors: Weights of the predictor by name.
        mean_ND: Mean of the training latents, float32 [N, D].
        encoder_files: Files of the encoder folder, for an encoder that does not ship with the package.

    Raises:
        UserError: The folder cannot be written.
    """
    raw = save({**{name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}, _MEAN: mean_ND.contiguous()})
    body = json.loads(json.dumps(dataclasses.asdict(description)))
    body |= {"format": FORMAT, "schema": SCHEMA, "tensors_sha256": hashlib.sha256(raw).hexdigest()}
    body["checksum"] = json_checksum(body)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if encoder_files:
            (folder / ENCODER_FOLDER).mkdir(exist_ok=True)
            for name, data in encoder_files.items():
                write_file(folder / ENCODER_FOLDER / name, data)
        # Measured on the old model, it would be refused beside the new one.
        (folder / CALIBRATION_JSON).unlink(missing_ok=True)
        replace_file(folder / TENSORS, raw)
        replace_file(folder / MODEL_JSON, json.dumps(body, indent=1, sort_keys=True).encode() + b"\n")
    except OSError as error:
        raise explain(error, folder) from error


def read_model(folder: Path) -> tuple[ModelDescription, LatentPredictor, Tensor]:
    """Reads and checks a model folder.

    Returns:
        The description, the predictor (float32, on the CPU, gradients off) and the mean latent [N, D].

    Raises:
        UserError: Anything is wrong; one line that names everything found.
    """
    if not (folder / MODEL_JSON).is_file():
        raise UserError(f"{folder}: no {MODEL_JSON} in it, so not a model; goalward train writes one")
    body = parse(read_regular(folder / MODEL_JSON, _MAX_JSON_BYTES), folder / MODEL_JSON)
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise UserError(f"{folder / MODEL_JSON}: not the description of a Goalward model; goalward train writes one")
    if body.get("schema") != SCHEMA:
        raise UserError(
            f"{folder / MODEL_JSON}: schema {body.get('schema')!r}; this version reads schema {SCHEMA}: update goalward or train again"
        )
    faults: list[str] = []
    checksum = body.pop("checksum", None)
    try:
        changed = checksum != json_checksum(body)
    except UserError:  # A number that is not finite has slipped in, as 1e400.
        changed = True
    if changed:
        faults.append(f"{MODEL_JSON} was changed after it was written (checksum)")
    sha256 = body.pop("tensors_sha256", None)
    description = build_strictly(ModelDescription, {k: v for k, v in body.items() if k not in ("format", "schema")}, "", faults)
    tensors = read_tensors(folder / TENSORS, sha256, faults)
    predictor = None
    if description is not None:
        if inconsistent := description.faults():
            faults += [f"{MODEL_JSON}: {fault}" for fault in inconsistent]
        else:
            # On the meta device a shape costs no memory, whatever the file claims.
            with torch.device("meta"):
                predictor = LatentPredictor(
                    description.predictor,
                    num_tokens=description.num_tokens,
                    dim=description.dim,
                    action_dim=len(description.env.action_names),
                )
            if tensors is not None:
                expected = {name: tuple(p.shape) for name, p in predictor.named_parameters()}
                faults += tensor_faults(tensors, expected | {_MEAN: (description.num_tokens, description.dim)})
    if faults or description is None or predictor is None or tensors is None:
        raise UserError(f"{folder}: damaged model: {'; '.join(faults)}; copy it again or train it again")
    mean_ND = tensors.pop(_MEAN)
    predictor.load_state_dict(tensors, assign=True)
    return description, predictor.requires_grad_(False), mean_ND


def json_checksum(body: dict[str, Any]) -> str:
    """SHA-256 over the canonical JSON of everything but the checksum."""
    return hashlib.sha256(canonical({key: value for key, value in body.items() if key != "checksum"})).hexdigest()


def read_tensors(path: Path, sha256: object, faults: list[str], *, source: str = MODEL_JSON) -> dict[str, Tensor] | None:
    """Reads a file of tensors; whatever is wrong with it is noted, and None returned if nothing can be read."""
    if not path.is_file():
        faults.append(f"{path.name} is missing")
        return None
    try:
        raw = read_regular(path, _MAX_TENSOR_BYTES)
        if hashlib.sha256(raw).hexdigest() != sha256:
            faults.append(f"{path.name} is not the file that {source} names (SHA-256)")
        return load(raw)
    except UserError as error:
        faults.append(str(error))
    except (SafetensorError, ValueError, KeyError) as error:
        faults.append(f"{path.name} cannot be read ({str(error).splitlines()[0]})")
    return None


def tensor_faults(tensors: dict[str, Tensor], expected: dict[str, tuple[int, ...]]) -> list[str]:
    """Says what is wrong with tensors that must be float32, finite and of these shapes."""
    found = [f"tensor {name} is missing" for name in sorted(expected.keys() - tensors.keys())]
    found += [f"tensor {name} is unknown" for name in sorted(tensors.keys() - expected.keys())]
    for name in sorted(expected.keys() & tensors.keys()):
        tensor = tensors[name]
        if tuple(tensor.shape) != expected[name] or tensor.dtype != torch.float32:
            dtype = str(tensor.dtype).removeprefix("torch.")
            found.append(f"tensor {name} is {dtype} {list(tensor.shape)}, must be float32 {list(expected[name])}")
        elif not bool(torch.isfinite(tensor).all()):
            found.append(f"tensor {name} contains values that are not finite")
    return found


def build_strictly(kind: Any, raw: Any, where: str, faults: list[str], *, source: str = MODEL_JSON) -> Any:
    """Makes a dataclass from JSON, strictly; every fault is noted, and None returned if there is one."""
    if not isinstance(raw, dict):
        faults.append(f"{source}: {where or 'content'} must be an object")
        return None
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    prefix = f"{where}." if where else ""
    before = len(faults)
    faults += [f"{source}: {prefix}{name} is missing" for name in names if name not in raw]
    faults += [f"{source}: {prefix}{name[:40]} is unknown" for name in raw if name not in names]
    values = {name: _value(hints[name], raw[name], f"{prefix}{name}", faults, source) for name in names if name in raw}
    if len(faults) > before:
        return None
    try:
        return kind(**values)
    except UserError as error:
        faults.append(f"{source}: {prefix}{error}")
        return None


def _value(kind: Any, raw: Any, where: str, faults: list[str], source: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return build_strictly(kind, raw, where, faults, source=source)
    if typing.get_origin(kind) is tuple and isinstance(raw, list):
        return tuple(_value(typing.get_args(kind)[0], entry, f"{where}[{i}]", faults, source) for i, entry in enumerate(raw))
    if kind is float and type(raw) in (int, float) and abs(raw) < 1e300 and math.isfinite(raw):
        return float(raw)
    if kind in (int, str, bool) and type(raw) is kind and not (kind is int and abs(raw) > 2**53):
        return raw
    if typing.get_origin(kind) is dict and isinstance(raw, dict):
        return raw
    readable = kind if isinstance(kind, types.GenericAlias) else getattr(kind, "__name__", kind)
    faults.append(f"{source}: {where} must be {readable}")
    return None
