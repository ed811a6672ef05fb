"""Everything a pretraining run needs to continue exactly: one safetensors file, replaced atomically.

Tensors: encoder, predictor, optimiser moments, the torch generator. The header's metadata holds the rest as JSON:
step, elapsed time,
the numpy generator, and the configuration and data hashes that the continuing run is compared with.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from goalward import UserError
from goalward.wm.encoders.folder import write_atomically

STATE_NAME = "pretrain_state.safetensors"
_SCHEMA = "1"


@dataclass(slots=True)
class PretrainState:
    """The changing parts of a run."""

    modules: dict[str, nn.Module]
    """Trained modules by name."""
    optimizer: torch.optim.Optimizer
    """Holds moments once it has stepped."""
    generator: torch.Generator
    """Torch randomness, on the CPU."""
    rng: np.random.Generator
    """Numpy randomness."""
    step: int = 0
    """Optimiser steps done."""
    elapsed_s: float = 0.0
    """Training time of all sessions, seconds."""
    last: dict[str, float] = field(default_factory=dict)
    """Figures of the last step, by name."""

    def save(self, folder: Path, identity: dict[str, Any]) -> None:
        """Writes the state into `folder`.

        Args:
            folder: Made where missing.
            identity: What a continuing run must share, JSON values.

        Raises:
            UserError: The folder cannot be written.
        """
        tensors: dict[str, Tensor] = {"generator": self.generator.get_state()}
        for name, module in self.modules.items():
            tensors |= {f"{name}.{key}": value.detach().cpu() for key, value in module.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value.detach().cpu() for key, value in moments.items()}
        rest = {
            "identity": identity,
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "last": self.last,
            "numpy": self.rng.bit_generator.state,
        }
        tensors = {key: value.clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
        write_atomically(folder / STATE_NAME, safetensors_bytes(tensors, metadata={"schema": _SCHEMA, "rest": json.dumps(rest)}))

    def restore(self, folder: Path, identity: dict[str, Any]) -> None:
        """Reads the state from `folder` into this one; all or nothing is changed.

        Raises:
            UserError: No state there, damaged, or of a run with another configuration or other data (each difference
            named).
        """
        path = folder / STATE_NAME
        if not path.is_file():
            raise UserError(f"resume: {folder} holds no {STATE_NAME}; start without --resume")
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
            rest = json.loads(metadata["rest"])
            if metadata.get("schema") != _SCHEMA:
                raise UserError(f"resume: {path} has schema {metadata.get('schema')!r}, this version reads {_SCHEMA!r}; start anew")
            if differences := [
                f"{key} was {rest['identity'].get(key)!r}, is {identity.get(key)!r}"
                for key in sorted(identity.keys() | rest["identity"].keys())
                if rest["identity"].get(key) != json.loads(json.dumps(identity.get(key)))
            ]:
                raise UserError(
                    f"resume: {folder} belongs to another run ({'; '.join(differences)}); give the same options or another --out"
                )
            self._restore(tensors, rest)
        except (SafetensorError, KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"resume: {path} is damaged ({type(error).__name__}: {' '.join(str(error).split())[:200]}); start without --resume"
            ) from error

    def _restore(self, tensors: dict[str, Tensor], rest: dict[str, Any]) -> None:
        groups = self.optimizer.state_dict()["param_groups"]
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".", 2)
                moments.setdefault(int(index), {})[name] = value
        weights = {
            name: {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
            for name in self.modules
        }
        for name, module in self.modules.items():
            want = {key: value.shape for key, value in module.state_dict().items()}
            if want != {key: value.shape for key, value in weights[name].items()}:
                raise ValueError(f"{name} has other tensors")
        step, elapsed_s, numpy_state = int(rest["step"]), float(rest["elapsed_s"]), rest["numpy"]
        last = {str(name): float(value) for name, value in rest["last"].items()}
        self.rng.bit_generator.state = numpy_state
        self.generator.set_state(tensors["generator"])
        for name, module in self.modules.items():
            module.load_state_dict(weights[name])
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.step, self.elapsed_s, self.last = step, elapsed_s, last
