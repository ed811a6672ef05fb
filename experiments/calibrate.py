"""`goalward calibrate`: measures a model's typical errors and its success threshold on validation episodes, and keeps them beside it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goalward import UserError

if TYPE_CHECKING:
    from goalward.wm.calibration import Calibration

LEVELS = (0.9, 0.99, 0.999)
"""Quantiles that are always written, beside the median and the one that counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrateCommand:
    """Measure on validation episodes what surprises a model, and when a goal counts as reached; writes calibration.json beside it."""

    model: str = "reach"
    """Name of a shipped model, or the folder of a checkpoint."""
    data: Path | None = None
    """Episode store; none given: data/<model>."""
    precision: float = 0.95
    """Share of detections of success that shall be true, for an arm that approaches at a steady speed."""
    tolerance_m: float = 0.03
    """Success: end effector so near to the goal's, metres,"""
    success_steps: int = 3
    """at so many observations running."""
    max_distance_m: float = 0.2
    """Distances up to which detections are judged, metres."""
    false_alarms: float = 0.01
    """Share of ordinary predictions that may count as a surprise."""
    horizon: int = 8
    """Steps ahead to measure."""
    cache: Path | None = None
    """Folder of encoded frames; none given: beside the data, <data>-latents."""
    device: str = "cpu"
    """Where the model runs: cpu, cuda, ..."""
    threads: int = 0
    """CPU threads; 0: all cores."""
    json: bool = False
    """Print the report as JSON on standard output and nothing else there."""

    def __post_init__(self) -> None:
        """Checks every field."""
        for name, low, high in (("precision", 0.0, 1.0), ("false_alarms", 0.0, 0.5), ("tolerance_m", 0.0, 10.0)):
            if not low < (value := getattr(self, name)) < high:
                raise UserError(f"{name} is {value}; must be above {low:g} and below {high:g}")
        if not self.tolerance_m < self.max_distance_m <= 10.0:
            raise UserError(f"max_distance_m is {self.max_distance_m}; must be above tolerance_m, {self.tolerance_m}, and at most 10")
        for name in ("success_steps", "horizon"):
            if (value := getattr(self, name)) < 1:
                raise UserError(f"{name} is {value}; must be at least 1")
        if self.threads < 0:
            raise UserError(f"threads is {self.threads}; must be 0 (all cores) or above")


def run(config: CalibrateCommand) -> int:
    """Runs the command.

    Returns:
        Exit code 0.

    Raises:
        UserError: Any fault of model, data or options, or a folder that cannot be written.
    """
    import torch

    from goalward.wm.calibration import save_calibration
    from goalward.wm.model import model_folder

    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    folder = model_folder(config.model)
    calibration = measure(config, folder)
    path = save_calibration(folder, calibration)
    if config.json:
        print(json.dumps(report(calibration), indent=1))
    else:
        _print(calibration, path)
    return 0


def measure(config: CalibrateCommand, folder: Path) -> Calibration:
    """Measures; writes nothing but the latents' cache."""
    from goalward.datasets.store import open_store
    from goalward.wm.base import EnvSignature
    from goalward.wm.calibrate import detected, halves, normalised, pairs_of, prediction_errors, success_threshold
    from goalward.wm.calibration import Calibration, model_sha256
    from goalward.wm.checkpoint import CALIBRATION_JSON
    from goalward.wm.latents import encode_store
    from goalward.wm.model import load_model

    path = config.data or Path("data") / config.model
    if not path.is_dir():
        raise UserError(f"data: {path} does not exist; give the episodes that the model was trained on")
    store = open_store(path)
    if not store.indices("validation"):
        raise UserError(f"data: {path} has no validation episode among its {store.num_episodes}; collect more")
    # Loading refuses a calibration of another model, which this one is about to replace: the model is read without it.
    model = load_model(folder, device=config.device, calibrated=False)
    model.check_env(EnvSignature.of(store.spec, cameras=model.cameras))
    columns = position_columns(list(store.spec.proprio_names))
    cache = config.cache or store.path.parent / f"{store.path.name}-latents"
    episodes = normalised(encode_store(store, model.encoder, split="validation", cameras=model.cameras, cache=cache), model)
    level = round(1.0 - config.false_alarms, 9)
    levels = (0.5, *sorted({*LEVELS, level}))
    error_HQ, num_clips = prediction_errors(model, episodes, horizon=config.horizon, levels=levels)
    choosing, counting = (pairs_of(half, columns, max_distance_m=config.max_distance_m) for half in halves(episodes))
    energy = success_threshold(choosing, tolerance_m=config.tolerance_m, precision=config.precision)
    num_near, num_detected, num_both = detected(counting, energy=energy, tolerance_m=config.tolerance_m)
    calibration = Calibration(
        model_sha256=model_sha256(folder), data_hash=store.content_hash, num_clips=num_clips, levels_Q=levels,
        error_HQ=tuple(tuple(row) for row in error_HQ.tolist()), surprise_level=level, success_energy=energy,
        success_steps=config.success_steps, tolerance_m=config.tolerance_m, max_distance_m=config.max_distance_m,
        target_precision=config.precision, num_near=num_near, num_detected=num_detected, num_both=num_both,
    )  # fmt: skip
    if faults := calibration.faults():
        raise UserError(f"{CALIBRATION_JSON}: {'; '.join(faults)}; give more validation episodes")
    return calibration


def position_columns(names: list[str]) -> list[int]:
    """Where the end effector's position stands among the proprioception entries.

    Raises:
        UserError: Not all of them are there.
    """
    wanted = ("ee_x_m", "ee_y_m", "ee_z_m")
    if missing := [name for name in wanted if name not in names]:
        raise UserError(f"data: proprioception lacks {', '.join(missing)} (it has {', '.join(names)}); the true distance needs them")
    return [names.index(name) for name in wanted]


def report(calibration: Calibration) -> dict[str, Any]:
    """The measured figures with Wilson intervals, as JSON values."""
    from goalward.experiments.statistics import Rate

    def rate(part: int, whole: int) -> dict[str, Any]:
        return asdict(Rate.of([True] * part + [False] * (whole - part)))

    return asdict(calibration) | {
        "surprise_limit_H": list(calibration.surprise_limit_H),
        "precision": rate(calibration.num_both, calibration.num_detected),
        "recall": rate(calibration.num_both, calibration.num_near),
    }


def _print(calibration: Calibration, path: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Squared error of predicted latents on validation episodes ({calibration.num_clips} clips)")
    table.add_column("steps ahead", justify="right")
    for level in calibration.levels_Q:
        table.add_column("typical (median)" if level == 0.5 else f"{100 * level:g} %", justify="right")
    table.add_column("surprise above", justify="right")
    for step, (row, limit) in enumerate(zip(calibration.error_HQ, calibration.surprise_limit_H, strict=True), start=1):
        table.add_row(str(step), *(f"{value:.4f}" for value in row), f"{limit:.1f} x typical")
    console = Console(highlight=False)
    console.print(table)
    figures = report(calibration)
    console.print(
        f"success: energy at most {calibration.success_energy:.4f} at {calibration.success_steps} observations running, for within "
        f"{100 * calibration.tolerance_m:g} cm",
        soft_wrap=True,
    )
    for name, about in (("precision", "of detected pairs are near"), ("recall", "of near pairs are detected")):
        rate = figures[name]
        console.print(
            f"{name}: {100 * rate['rate']:.1f} % [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}] {about}, evenly over "
            f"0 to {100 * calibration.max_distance_m:g} cm, on the half of the episodes that did not choose",
            soft_wrap=True,
        )
    console.print(f"written: {path}", soft_wrap=True, markup=False)
