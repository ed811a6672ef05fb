"""The contracts of the world model: what an encoder, a predictor and a context are. Readable alone.

Letters used in the names of arrays: B problems, S candidates, H horizon steps, T context frames, V camera views, N tokens per frame
(those of all views together, in camera order), D latent width, A action dimensions, P proprioception dimensions, M loose frames.

    pixels_BVhw3 -- Encoder, frozen --> z_BTND -- Predictor.prime --> Context -- Predictor.rollout(actions_BSHA) --> z_BSHND

Observed frames never attend to actions. Therefore a context does not depend on any candidate, is computed once per plan and is shared
by all candidates of its problem.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goalward import UserError

_VERSION = re.compile(r"-v\d+$")


@runtime_checkable
class Encoder(Protocol):
    """A frozen image encoder: each frame alone, deterministic, without gradients, the same result in any batch."""

    @property
    def name(self) -> str:
        """Short name, as `--encoder` takes it."""

    @property
    def licence(self) -> str:
        """SPDX identifier of the licence of the weights."""

    @property
    def image_size_px(self) -> int:
        """Side of the square frames taken, pixels."""

    @property
    def tokens_per_view(self) -> int:
        """Latent tokens of one frame of one camera."""

    @property
    def dim(self) -> int:
        """Latent width D."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over weights and preprocessing, in hexadecimal digits; latents of two encoders with one fingerprint are equal."""

    def encode(self, frames: Tensor | NDArray[np.uint8]) -> Tensor:
        """Maps uint8 [M, h, w, 3] to float32 [M, tokens_per_view, D]."""


@runtime_checkable
class Context(Protocol):
    """Everything about the observed past that predictions need; opaque outside the predictor that made it."""

    @property
    def num_problems(self) -> int:
        """B."""


class Predictor(Protocol):
    """Rolls normalised latents forward under normalised actions."""

    def prime(self, z_BTND: Tensor) -> Any:
        """Digests the observed frames, once; no action is involved."""

    def rollout(self, context: Any, actions_BSHA: Tensor) -> Tensor:
        """Predicts z_BSHND, float32: the latents after each of the H actions of each of the S candidates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvSignature:
    """What a model knows of the environment it was trained on; data and environments are compared with it."""

    env: str
    """Name or Gymnasium id."""
    cameras: tuple[str, ...]
    """Camera names, in the order of the views."""
    image_size_px: int
    """Side of the square frames, pixels."""
    dt_s: float
    """Duration of one action, seconds."""
    action_names: tuple[str, ...]
    """Names of the A action entries, unit included by convention."""
    action_low: tuple[float, ...]
    """Lower bounds, physical units."""
    action_high: tuple[float, ...]
    """Upper bounds, physical units."""
    proprio_names: tuple[str, ...]
    """Names of the P proprioception entries."""

    def __post_init__(self) -> None:
        """Checks that the bounds belong to the names."""
        count = len(self.action_names)
        if not count or len(self.action_low) != count or len(self.action_high) != count:
            raise UserError(
                f"action bounds: {len(self.action_low)} low and {len(self.action_high)} high for {count} action names; "
                "give one of each per action, and at least one action"
            )
        if not all(np.isfinite([*self.action_low, *self.action_high])) or any(
            low > high for low, high in zip(self.action_low, self.action_high, strict=True)
        ):
            raise UserError(f"action bounds {self.action_low} .. {self.action_high}: must be finite, low not above high")
        if not self.cameras:
            raise UserError("cameras is empty; name at least one camera")

    @classmethod
    def of(cls, info: object, *, cameras: tuple[str, ...] | None = None) -> EnvSignature:
        """Reads the signature from an environment's info, a dataset's spec, or a mapping with the same entries.

        Args:
            info: An object with attributes, or a mapping with keys, named as the fields here; the environment's name may be called
                `env`, `env_id`, `env_name`, `id`, `name` or (a Gymnasium id) `version`.
            cameras: Keep only these cameras, in this order; None keeps all.

        Raises:
            UserError: An entry is missing, or a camera is unknown.
        """
        values = info if isinstance(info, Mapping) else {name: getattr(info, name) for name in dir(info) if not name.startswith("_")}
        names = [str(values[key]) for key in ("env", "env_id", "env_name", "id", "name", "version") if key in values]
        # A versioned id says more than a short name.
        env = next((name for name in names if _VERSION.search(name)), names[0] if names else None)
        entries = ("cameras", "image_size_px", "dt_s", "action_names", "action_low", "action_high", "proprio_names")
        missing = [name for name in entries if name not in values] + ([] if env is not None else ["env"])
        if missing or env is None:
            raise UserError(f"environment info lacks {', '.join(missing)}; pass env.unwrapped.spec_info or a dataset's spec")
        have = tuple(str(name) for name in values["cameras"])
        if unknown := [name for name in cameras or () if name not in have]:
            raise UserError(f"cameras: {', '.join(unknown)} not among {', '.join(have)}; choose from those")
        return cls(
            env=env,
            cameras=cameras or have,
            image_size_px=int(values["image_size_px"]),
            dt_s=float(values["dt_s"]),
            action_names=tuple(str(name) for name in values["action_names"]),
            action_low=tuple(float(bound) for bound in values["action_low"]),
            action_high=tuple(float(bound) for bound in values["action_high"]),
            proprio_names=tuple(str(name) for name in values["proprio_names"]),
        )

    def mismatches(self, other: EnvSignature) -> list[str]:
        """Says in which entries `other` differs from what the model was trained on; empty if it suits."""
        found = []
        versions = {match.group() for match in map(_VERSION.search, (self.env, other.env)) if match}
        if _short_name(self.env) != _short_name(other.env) or len(versions) > 1:
            found.append(f"env is {other.env}, the model's is {self.env}")
        found += [
            f"{name} is {getattr(other, name)}, the model's is {getattr(self, name)}"
            for name in ("cameras", "image_size_px", "action_names", "proprio_names")
            if getattr(self, name) != getattr(other, name)
        ]
        for name in ("dt_s", "action_low", "action_high"):
            ours, theirs = np.atleast_1d(getattr(self, name)), np.atleast_1d(getattr(other, name))
            # Bounds travel through float32 in Gymnasium spaces, hence the tolerance.
            if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=1e-5, atol=1e-8):
                found.append(f"{name} is {getattr(other, name)}, the model's is {getattr(self, name)}")
        return found


def _short_name(env: str) -> str:
    """Reduces "Goalward/Reach-v0" and "reach" to one name: "reach"."""
    return _VERSION.sub("", env.rsplit("/", 1)[-1]).lower()


def inference_dtype(device: torch.device) -> torch.dtype:
    """Chooses bfloat16 where the hardware multiplies it natively, else float32.

    Latents and costs are float32 in either case; only the inside of the predictor is affected.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu":
        # x86 names its bfloat16 units; elsewhere emulation would be several times slower than float32.
        capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return torch.bfloat16 if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else torch.float32
    return torch.float32
