"""What a training run needs to continue exactly: weights, their average, optimiser moments, the generator, the validation history.

    <out>/checkpoints/step-000500.safetensors   one file per saved step; JSON in its header
    <out>/checkpoints/latest.json               names and hashes of the kept files, newest first; replaced last

A file that `latest.json` does not name does not exist. So a run killed at any moment resumes from a complete checkpoint that is not older
than the one before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from goalward import UserError
from goalward.datasets.durable import explain, replace_file
from goalward.datasets.strict_json import parse, read_regular

FOLDER = "checkpoints"
LATEST = "latest.json"
_KEEP = 2
_SCHEMA = 1
_MAX_BYTES = 32 * 2**30
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")

Network = TypeVar("Network", bound=nn.Module)


@dataclass(slots=True)
class TrainState(Generic[Network]):
    """The changing parts of a run."""

    predictor: Network
    """Being trained, float32; a module without buffers."""
    average: Network
    """Moving average of its weights: what is validated and shipped."""
    optimizer: torch.optim.AdamW
    """Of `predictor`."""
    generator: torch.Generator
    """Decides the order of the data; on the CPU."""
    step: int = 0
    """Optimiser steps done."""
    elapsed_s: float = 0.0
    """Training time of all sessions."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """Validations so far."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything that is a tensor, by name."""
        found = {"generator": self.generator.get_state()}
        for name, parameter in self.predictor.named_parameters():
            found[f"weights.{name}"] = parameter.detach()
            found |= {f"{key}.{name}": value for key, value in self.optimizer.state.get(parameter, {}).items() if key in _MOMENTS}
        found |= {f"average.{name}": parameter.detach() for name, parameter in self.average.named_parameters()}
        return {name: tensor.cpu().contiguous() for name, tensor in found.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Puts saved tensors in place.

        Raises:
            KeyError, ValueError: They are not of this run's shapes; nothing has been changed then.
        """
        moments = {}
        for name, parameter in self.predictor.named_parameters():
            for part in ("weights", "average", "exp_avg", "exp_avg_sq"):
                if tensors[f"{part}.{name}"].shape != parameter.shape:
                    raise ValueError(f"{part}.{name} has another shape")
            moments[name] = {key: tensors[f"{key}.{name}"].to(parameter.device) for key in _MOMENTS}
        with torch.no_grad():
            for prefix, module in (("weights", self.predictor), ("average", self.average)):
                for name, parameter in module.named_parameters():
                    parameter.copy_(tensors[f"{prefix}.{name}"])
        for name, parameter in self.predictor.named_parameters():
            self.optimizer.state[parameter] = moments[name]
        self.generator.set_state(tensors["generator"])


def save_state(out: Path, state: TrainState[Any], identity: dict[str, Any]) -> None:
    """Saves a checkpoint and forgets all but the newest two.

    Args:
        out: Folder of the run.
        state: What to save.
        identity: What a continuing run must share, plain JSON.

    Raises:
        UserError: The folder cannot be written; the earlier checkpoints are kept.
    """
    folder = out / FOLDER
    rest = {"schema": _SCHEMA, "step": state.step, "elapsed_s": state.elapsed_s, "history": state.history, "identity": identity}
    raw = save(state.tensors(), metadata={"goalward": json.dumps(rest)})
    name = f"step-{state.step:06d}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = [entry for entry in _kept(folder) if entry["file"] != name][: _KEEP - 1]
        replace_file(folder / name, raw)
        kept.insert(0, {"file": name, "sha256": hashlib.sha256(raw).hexdigest()})
        replace_file(folder / LATEST, json.dumps(kept, indent=1).encode())
        for path in folder.glob("step-*"):
            if path.name not in {entry["file"] for entry in kept}:
                with contextlib.suppress(OSError):  # Untidy, not unsafe.
                    path.unlink()
    except OSError as error:
        raise explain(error, folder) from error


def load_state(out: Path, state: TrainState[Any], identity: dict[str, Any]) -> list[str]:
    """Restores the newest whole checkpoint of a run into `state`.

    Returns:
        One line for each newer checkpoint that was damaged and passed over.

    Raises:
        UserError: There is none, or it belongs to a run with other options or data (names every difference).
    """
    folder = out / FOLDER
    damaged: list[str] = []
    for entry in _kept(folder):
        path = folder / entry["file"]
        try:
            raw = read_regular(path, _MAX_BYTES)
            if hashlib.sha256(raw).hexdigest() != entry["sha256"]:
                raise ValueError("its SHA-256 is wrong")
            rest = parse(_metadata(raw)["goalward"].encode(), path)
            if rest["schema"] != _SCHEMA:
                raise ValueError(f"schema {rest['schema']}, this version reads {_SCHEMA}")
            _check_identity(rest["identity"], identity, out)
            state.restore(load(raw))
            state.step, state.elapsed_s, state.history = int(rest["step"]), float(rest["elapsed_s"]), list(rest["history"])
        except _OtherRun:
            raise
        except (UserError, SafetensorError, ValueError, KeyError, TypeError) as error:
            damaged.append(f"{path} is damaged ({error}); using the one before")
        else:
            return damaged
    detail = f" ({damaged[0]})" if damaged else ""
    raise UserError(f"resume: no whole checkpoint in {folder}{detail}; start again without --resume")


def has_state(out: Path) -> bool:
    """Whether a run has saved anything in this folder."""
    return bool(_kept(out / FOLDER))


class _OtherRun(UserError):
    """The checkpoint is whole, but of a run with other options."""


def _check_identity(saved: dict[str, Any], identity: dict[str, Any], out: Path) -> None:
    now = json.loads(json.dumps(identity))
    before, after = _flat("", saved), _flat("", now)
    if differences := [
        f"{key} was {before.get(key)}, is {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]:
        raise _OtherRun(f"resume: the run in {out} is another one: {'; '.join(differences)}; repeat its options, or choose another --out")


def _flat(prefix: str, nested: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flat(f"{prefix}{key}.", value) if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _kept(folder: Path) -> list[dict[str, str]]:
    """The entries of `latest.json`; empty if there is none or it makes no sense."""
    try:
        entries = parse(read_regular(folder / LATEST, 2**20), folder / LATEST)
    except UserError:
        return []
    if not isinstance(entries, list):
        return []
    good = [e for e in entries if isinstance(e, dict) and isinstance(e.get("file"), str) and isinstance(e.get("sha256"), str)]
    return [e for e in good if Path(e["file"]).name == e["file"]]


def _metadata(raw: bytes) -> dict[str, str]:
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    found: dict[str, str] = header["__metadata__"]
    return found
