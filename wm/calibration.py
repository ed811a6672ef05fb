"""`calibration.json` beside a model: how wrong its predictions usually are, and how near in latents is near in the world.

Measured on held-out episodes (`calibrate.py`), read by `load_model`, used by the controller. It names the `model.json` that it was measured
with; beside any other it is refused. Reading believes nothing, as for the model itself (`checkpoint.py`).

Letters: H predicted steps, Q quantile levels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goalward import UserError
from goalward.datasets.durable import explain, replace_file
from goalward.datasets.strict_json import parse, read_regular
from goalward.wm.checkpoint import CALIBRATION_JSON, MODEL_JSON, build_strictly, json_checksum

FORMAT = "goalward-calibration"
SCHEMA = 1
_MAX_BYTES = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Everything in `calibration.json`."""

    model_sha256: str
    """Of the `model.json` it belongs to."""
    data_hash: str
    """Content hash of the dataset."""
    num_clips: int
    """Predictions measured, for each number of steps."""
    levels_Q: tuple[float, ...]
    """Quantile levels, rising; the first is the median."""
    error_HQ: tuple[tuple[float, ...], ...]
    """Quantiles of the squared error after 1 .. H predicted steps, mean over the entries of normalised latents."""
    surprise_level: float
    """The level above which an error counts as a surprise."""
    success_energy: float
    """Latent distance to a goal (mean squared difference) at and below which the arm counts as being there."""
    success_steps: int
    """So many observations running must be there."""
    tolerance_m: float
    """What being there means: end effectors so near to one another, metres."""
    max_distance_m: float
    """Pairs of frames were drawn evenly over distances from 0 to this, metres."""
    target_precision: float
    """The precision that the threshold was chosen for, on one half of the episodes."""
    num_near: int
    """Pairs of the other half that are within the tolerance,"""
    num_detected: int
    """that the threshold detects,"""
    num_both: int
    """and both: precision is both over detected, recall both over near."""

    @property
    def typical_error_H(self) -> tuple[float, ...]:
        """Median error after 1 .. H steps."""
        return tuple(row[0] for row in self.error_HQ)

    @property
    def surprise_limit_H(self) -> tuple[float, ...]:
        """The error that is a surprise, in units of the typical one."""
        at = self.levels_Q.index(self.surprise_level)
        return tuple(row[at] / row[0] for row in self.error_HQ)

    def faults(self) -> list[str]:
        """What contradicts itself or is out of range."""
        found = []
        if not self.levels_Q or self.levels_Q[0] != 0.5 or list(self.levels_Q) != sorted(set(self.levels_Q)) or self.levels_Q[-1] >= 1:
            found.append(f"levels_Q is {self.levels_Q}, must rise from 0.5 and stay below 1")
        if self.surprise_level not in self.levels_Q[1:]:
            found.append(f"surprise_level is {self.surprise_level}, must be one of levels_Q above the median")
        if not self.error_HQ or any(len(row) != len(self.levels_Q) for row in self.error_HQ):
            found.append("error_HQ must have a row for each step, with an entry for each level")
        elif any(row[0] <= 0 or any(a > b for a, b in itertools.pairwise(row)) for row in self.error_HQ):
            found.append("error_HQ must be positive, and rise with the level")
        positive = ("success_energy", "tolerance_m", "max_distance_m", "success_steps", "num_clips", "num_detected", "num_near")
        found += [f"{name} is {getattr(self, name)}, must be positive" for name in positive if getattr(self, name) <= 0]
        if not 0 < self.target_precision <= 1:
            found.append(f"target_precision is {self.target_precision}, must be above 0 and at most 1")
        if not 0 <= self.num_both <= min(self.num_detected, self.num_near):
            found.append(f"num_both is {self.num_both}, must lie in 0 .. num_detected and num_near")
        return found


def model_sha256(folder: Path) -> str:
    """SHA-256 of a folder's `model.json`, which pins the weights too.

    Raises:
        UserError: It cannot be read.
    """
    return hashlib.sha256(read_regular(folder / MODEL_JSON, 4 * _MAX_BYTES)).hexdigest()


def save_calibration(folder: Path, calibration: Calibration) -> Path:
    """Writes `calibration.json` into a model's folder.

    Returns:
        The file.

    Raises:
        UserError: The numbers make no sense, belong to another model, or the folder cannot be written.
    """
    path = folder / CALIBRATION_JSON
    faults = calibration.faults()
    if calibration.model_sha256 != model_sha256(folder):
        faults.append(f"measured with another {MODEL_JSON}")
    if faults:
        raise UserError(f"{path}: not written: {'; '.join(faults)}")
    body: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(calibration))) | {"format": FORMAT, "schema": SCHEMA}
    body["checksum"] = json_checksum(body)
    try:
        replace_file(path, json.dumps(body, indent=1, sort_keys=True).encode() + b"\n")
    except OSError as error:
        raise explain(error, folder) from error
    return path


def read_calibration(folder: Path) -> Calibration | None:
    """Reads and checks a model's calibration.

    Returns:
        None where there is none.

    Raises:
        UserError: It is damaged or belongs to another model; one line that names everything found.
    """
    path = folder / CALIBRATION_JSON
    if not path.exists():
        return None
    body = parse(read_regular(path, _MAX_BYTES), path)
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise UserError(f"{path}: not a calibration; delete it, or run goalward calibrate again")
    if body.get("schema") != SCHEMA:
        raise UserError(f"{path}: schema {body.get('schema')!r}; this version reads schema {SCHEMA}: run goalward calibrate again")
    faults: list[str] = []
    checksum = body.pop("checksum", None)
    try:
        changed = checksum != json_checksum(body)
    except UserError:  # A number that is not finite has slipped in, as 1e400.
        changed = True
    if changed:
        faults.append("it was changed after it was written (checksum)")
    content = {name: value for name, value in body.items() if name not in ("format", "schema")}
    calibration: Calibration | None = build_strictly(Calibration, content, "", faults, source=CALIBRATION_JSON)
    if calibration is not None:
        faults += calibration.faults()
        if calibration.model_sha256 != model_sha256(folder):
            faults.append(f"it was measured with another {MODEL_JSON}")
    if faults or calibration is None:
        raise UserError(f"{path}: unfit calibration: {'; '.join(faults)}; run goalward calibrate again, or delete the file")
    return calibration
