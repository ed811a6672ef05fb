"""What an episode store contains: the specification every episode obeys, and one episode.

Letters in array names: T actions in an episode, V camera views, A action dimensions, P proprioception dimensions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from goalward import UserError

if TYPE_CHECKING:
    from goalward.envs.base import EnvInfo

# Bounds that no honest store exceeds; they keep a hostile one from making a reader allocate without limit.
MAX_VIEWS = 16
MAX_IMAGE_PX = 2048
MAX_VECTOR = 1024
MAX_STEPS = 100_000
MAX_EPISODES = 1_000_000
MAX_EPISODE_BYTES = 4 * 2**30
MAX_SEED = 2**53 - 1
MAX_TEXT = 200

# Recorded with the data, but they do not decide its content: a collection may go on under another version of these.
_PROVENANCE_ONLY = frozenset({"python", "zarr"})


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreSpec:
    """What every episode of a store has in common; stored in the manifest, compared when a collection goes on."""

    env: str
    """Short name of the environment, e.g. `reach`."""
    env_id: str
    """Versioned Gymnasium id, e.g. `Goalward/Reach-v0`."""
    cameras: tuple[str, ...]
    """Named cameras in the order of the pixels' second axis."""
    image_size_px: int
    """Height and width of a frame, 1 to 2048."""
    dt_s: float
    """Control period in seconds."""
    action_names: tuple[str, ...]
    """Name and unit of every action entry."""
    action_low: tuple[float, ...]
    """Smallest action, physical units, one for each name."""
    action_high: tuple[float, ...]
    """Largest action."""
    proprio_names: tuple[str, ...]
    """Name and unit of every proprioception entry."""
    frames_per_chunk: int = 4
    """Frames that are compressed together: more are smaller on disk, fewer are quicker to read at random."""
    software: Mapping[str, str] = field(default_factory=dict)
    """Package -> version that made the data."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """How the data was made (seed, behaviours, ...), as plain JSON."""

    def __post_init__(self) -> None:
        _text("env", self.env)
        _text("env_id", self.env_id)
        for name, limit in (("cameras", MAX_VIEWS), ("action_names", MAX_VECTOR), ("proprio_names", MAX_VECTOR)):
            names = getattr(self, name)
            if not isinstance(names, tuple) or not 1 <= len(names) <= limit:
                raise UserError(f"{name}={names!r} must be 1..{limit} names")
            for entry in names:
                _text(name, entry)
            if len(set(names)) != len(names):
                raise UserError(f"{name}={names!r} must be different names")
        _integer("image_size_px", self.image_size_px, 1, MAX_IMAGE_PX)
        _integer("frames_per_chunk", self.frames_per_chunk, 1, 1024)
        if not isinstance(self.dt_s, float) or not (math.isfinite(self.dt_s) and 0 < self.dt_s <= 3600):
            raise UserError(f"dt_s={self.dt_s!r} must be a number of seconds in (0, 3600]")
        for name in ("action_low", "action_high"):
            bounds = getattr(self, name)
            numbers = isinstance(bounds, tuple) and all(isinstance(v, float) and math.isfinite(v) for v in bounds)
            if not numbers or len(bounds) != len(self.action_names):
                raise UserError(f"{name}={bounds!r} must be {len(self.action_names)} finite numbers, one for each of {self.action_names}")
        if any(low > high for low, high in zip(self.action_low, self.action_high, strict=True)):
            raise UserError(f"action_low={self.action_low} must not exceed action_high={self.action_high}")
        for name in ("software", "config"):
            value = getattr(self, name)
            if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
                raise UserError(f"{name} must be a mapping with text keys; got {type(value).__name__}")

    @property
    def frame_shape(self) -> tuple[int, int, int, int]:
        """Shape (V, height, width, 3) of the pixels of one moment."""
        return len(self.cameras), self.image_size_px, self.image_size_px, 3

    @classmethod
    def from_env(cls, info: EnvInfo, *, software: Mapping[str, str], config: Mapping[str, Any]) -> StoreSpec:
        """The specification of data recorded in an environment."""
        return cls(
            env=info.name,
            env_id=info.version,
            cameras=tuple(info.cameras),
            image_size_px=int(info.image_size_px),
            dt_s=float(info.dt_s),
            action_names=tuple(info.action_names),
            action_low=tuple(float(v) for v in info.action_low),
            action_high=tuple(float(v) for v in info.action_high),
            proprio_names=tuple(info.proprio_names),
            software=dict(software),
            config=dict(config),
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `from_json` gives an equal specification back."""
        out: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        out["software"], out["config"] = dict(self.software), dict(self.config)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in out.items()}

    @classmethod
    def from_json(cls, data: Any) -> StoreSpec:
        """Reads what `to_json` wrote.

        Raises:
            UserError: a field is missing, unknown or out of range.
        """
        if not isinstance(data, dict):
            raise UserError(f"the specification must be a JSON object; got {type(data).__name__}")
        known = {f.name for f in fields(cls)}
        if set(data) != known:
            missing, unknown = sorted(known - set(data)), sorted(set(data) - known)
            raise UserError(f"the specification has missing fields {missing} and unknown fields {unknown}")
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
        for name in ("action_low", "action_high"):  # JSON may write 1.0 as 1
            if isinstance(values[name], tuple) and all(_is_number(v) for v in values[name]):
                values[name] = tuple(float(v) for v in values[name])
        if _is_number(values["dt_s"]):
            values["dt_s"] = float(values["dt_s"])
        return cls(**values)

    def identity(self) -> dict[str, Any]:
        """The JSON of everything that says what the data is; without the software that made it."""
        out = self.to_json()
        del out["software"]
        return out

    def differences(self, other: StoreSpec) -> list[str]:
        """Where two specifications disagree: `field: mine != theirs`, nested fields with dots; empty when data of both may be mixed."""
        mine, theirs = self.to_json(), other.to_json()
        for side in (mine, theirs):
            side["software"] = {k: v for k, v in side["software"].items() if k not in _PROVENANCE_ONLY}
        return _differences("", mine, theirs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """One recorded episode; frame t, action t, frame t+1."""

    pixels: NDArray[np.uint8]
    """uint8 [T+1, V, height, width, 3]."""
    proprio: NDArray[np.float32]
    """float32 [T+1, P], SI units."""
    actions: NDArray[np.float32]
    """float32 [T, A], physical units, as sent."""
    seed: int
    """Seed of the episode's reset and behaviour."""
    behaviour: str
    """Name of the behaviour that acted."""

    @property
    def num_steps(self) -> int:
        """T, the number of actions."""
        return len(self.actions)

    def check(self, spec: StoreSpec) -> None:
        """Checks the episode against a specification.

        Raises:
            UserError: a dtype or shape is not the specification's, a number is not finite, or the episode is empty or too large.
        """
        steps = self.actions.shape[0] if self.actions.ndim else 0
        _integer("num_steps", steps, 1, MAX_STEPS)
        _integer("seed", self.seed, 0, MAX_SEED)
        _text("behaviour", self.behaviour)
        for name, array, shape, dtype in (
            ("pixels", self.pixels, (steps + 1, *spec.frame_shape), np.uint8),
            ("proprio", self.proprio, (steps + 1, len(spec.proprio_names)), np.float32),
            ("actions", self.actions, (steps, len(spec.action_names)), np.float32),
        ):
            if array.shape != shape or array.dtype != dtype:
                raise UserError(f"{name} is {array.dtype} {list(array.shape)}; this store holds {np.dtype(dtype)} {list(shape)}")
            if array.nbytes > MAX_EPISODE_BYTES:
                raise UserError(f"{name} has {array.nbytes} bytes; an episode may have {MAX_EPISODE_BYTES}: record shorter episodes")
            if array.dtype == np.float32 and not np.isfinite(array).all():
                raise UserError(f"{name} contains numbers that are not finite")

    def content_sha256(self) -> str:
        """Hash of shapes and raw (uncompressed) array bytes, seed and behaviour."""
        digest = hashlib.sha256(f"{self.seed} {self.behaviour} {self.pixels.shape} {self.actions.shape} {self.proprio.shape}".encode())
        for array, dtype in ((self.pixels, "u1"), (self.proprio, "<f4"), (self.actions, "<f4")):
            digest.update(np.ascontiguousarray(array, dtype=dtype).data)
        return digest.hexdigest()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value) <= MAX_TEXT:
        raise UserError(f"{name}={value!r} must be a text of 1..{MAX_TEXT} printable characters")


def _integer(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UserError(f"{name}={value!r} is out of range {low}..{high}")


def _differences(prefix: str, mine: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    out: list[str] = []
    for key in sorted(mine.keys() | theirs.keys()):
        a, b = mine.get(key), theirs.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            out += _differences(f"{prefix}{key}.", a, b)
        elif a != b:
            out.append(f"{prefix}{key}: {a!r} != {b!r}")
    return out
