"""`goalward train`: trains the action-conditioned predictor on a dataset's latents and writes the world model's folder."""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from goalward import UserError
from goalward.experiments.data_share import check_fraction
from goalward.experiments.training_bar import TrainingBar
from goalward.experiments.training_inputs import encoder_files, is_shipped, open_data, read_latents, software

if TYPE_CHECKING:
    from goalward.datasets.store import EpisodeStore
    from goalward.wm.base import Encoder, EnvSignature
    from goalward.wm.checkpoint import ModelDescription
    from goalward.wm.train import TrainConfig, TrainProgress, TrainResult


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainCommand:
    """Train the predictor of a world model on episodes, with a frozen encoder."""

    env: str = "reach"
    """Environment of the episodes."""
    data: Path | None = None
    """Episode store; none given: data/<env>."""
    out: Path | None = None
    """Folder for the model and its checkpoints; none given: runs/<env>."""
    encoder: str = "goalward-small"
    """Name of an encoder, a folder (of `goalward pretrain`, or in transformers format) or a hub id owner/name@commit; #tokens=16 pools."""
    cameras: tuple[str, ...] = ()
    """Cameras to use, in this order; none given: all in the data."""
    preset: Literal["default", "debug"] = "default"
    """`debug` trains a tiny predictor for a few seconds, to try the pipeline."""
    steps: int | None = None
    """Optimiser steps; none given: the preset's."""
    horizon: int | None = None
    """Steps that predictions are fed back in training; none given: the preset's. Plans may be longer, at the price of accuracy."""
    context_frames: int | None = None
    """Observed frames that a prediction starts from; none given: the preset's. More show the velocity of a fast arm better."""
    seed: int = 0
    """Decides initial weights and the order of the data."""
    device: str = "auto"
    """Where to train: cpu, cuda, or auto."""
    cache: Path | None = None
    """Folder that keeps encoded frames for the next run; none given: beside the data, <data>-latents."""
    fraction: float = 1.0
    """Share of the training episodes to learn from; smaller shares lie inside larger ones."""
    threads: int = 0
    """CPU threads; 0: all cores."""
    resume: bool = False
    """Continue the run in `out`."""
    quiet: bool = False
    """No progress bar, no table."""

    def __post_init__(self) -> None:
        """Checks every field."""
        for name in ("steps", "horizon", "context_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}; must be at least 1")
        if self.threads < 0:
            raise UserError(f"threads is {self.threads}; must be 0 (all cores) or above")
        if len(set(self.cameras)) != len(self.cameras):
            raise UserError(f"cameras {', '.join(self.cameras)} name one twice; name each once")
        check_fraction(self.fraction)


def run(config: TrainCommand) -> int:
    """Runs the command.

    Returns:
        Exit code: 0, or 130 after an interruption.

    Raises:
        UserError: Any fault of data, encoder, options, disk or resumed state; checkpoints stay.
    """
    import torch

    from goalward.wm.base import EnvSignature
    from goalward.wm.checkpoint import MODEL_JSON, save_model
    from goalward.wm.encoders import load_encoder
    from goalward.wm.model import check_device
    from goalward.wm.train import train
    from goalward.wm.train_state import has_state

    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    device = check_device(config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    out = config.out or Path("runs") / config.env
    if not config.resume and (has_state(out) or (out / MODEL_JSON).exists()):
        raise UserError(f"out: {out} already holds a run; add --resume to continue it, or choose another --out")
    training = training_config(config)
    store = open_data(config)
    signature = EnvSignature.of(store.spec, cameras=config.cameras or None)
    encoder = load_encoder(config.encoder, device=device)
    with _Bar(config.quiet) as bar:
        try:
            inputs = read_latents(config, store, encoder, bar)
            bar.start(training.steps)
            result = train(
                training,
                inputs.training,
                inputs.validation,
                out=out,
                identity=inputs.identity | {"encoder": encoder.fingerprint, "cameras": list(signature.cameras)},
                resume=config.resume,
                device=device,
                report=bar.update,
            )
        except KeyboardInterrupt:
            bar.note(f"stopped; continue with the same options and --resume (checkpoints are in {out})")
            return 130
    description = _description(training, store, signature, encoder, is_shipped(config.encoder), result, inputs.facts, str(device))
    save_model(
        out,
        description,
        dict(result.predictor.named_parameters()),
        result.latent.mean_ND,
        encoder_files=encoder_files(config.encoder, encoder),
    )
    if not config.quiet:
        _print_table(result)
        print(f"model in {out}; evaluate it with: plan-eval --env {config.env} --model {out}", file=sys.stderr)
    return 0


def training_config(config: TrainCommand) -> TrainConfig:
    """The preset with the options that were given."""
    from goalward.wm.train import PRESETS

    training = replace(PRESETS[config.preset], seed=config.seed)
    given = {name: value for name in ("horizon", "context_frames") if (value := getattr(config, name)) is not None}
    training = replace(training, predictor=replace(training.predictor, **given))
    return training if config.steps is None else replace(training, steps=config.steps)


def _description(
    training: TrainConfig,
    store: EpisodeStore,
    signature: EnvSignature,
    encoder: Encoder,
    shipped: bool,
    result: TrainResult,
    facts: dict[str, Any],
    device: str,
) -> ModelDescription:
    from goalward.wm.checkpoint import EncoderReference, ModelDescription

    return ModelDescription(
        predictor=training.predictor,
        num_tokens=result.predictor.num_tokens,
        dim=result.predictor.dim,
        env=signature,
        encoder=EncoderReference(name=encoder.name, fingerprint=encoder.fingerprint, shipped=shipped),
        latent_scale=result.latent.scale,
        action_mean=tuple(result.action.mean.tolist()),
        action_std=tuple(result.action.std.tolist()),
        proprio_mean=tuple(result.proprio.mean.tolist()),
        proprio_std=tuple(result.proprio.std.tolist()),
        data_hash=store.content_hash,
        training={
            "config": dataclasses.asdict(training),
            "evaluation": result.evaluation.to_json(),
            "elapsed_s": round(result.elapsed_s, 1),
            "device": device,
            **facts,
        },
        versions=software(),
    )


def _print_table(result: TrainResult) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Held-out error as a fraction of persistence ({result.evaluation.num_clips} clips)")
    for name in ("steps ahead", "model", "model, shuffled actions", "persistence"):
        table.add_column(name, justify="right")
    for h, (own, shuffled) in enumerate(zip(result.evaluation.fraction, result.evaluation.fraction_shuffled, strict=True), start=1):
        table.add_row(str(h), f"{own:.1%}", f"{shuffled:.1%}", "100.0%")
    console = Console()
    console.print(table)
    for note in result.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)


class _Bar(TrainingBar):
    """Shows loss and the latest held-out errors."""

    _held_out = ""

    def update(self, progress: TrainProgress) -> None:
        """Shows a step."""
        if progress.evaluation is not None:
            own, shuffled = progress.evaluation.fraction, progress.evaluation.fraction_shuffled
            self._held_out = f", held out {own[0]:.1%} of persistence at 1 step, {own[-1]:.1%} at {len(own)}; shuffled {shuffled[0]:.0%}"
        self.advance(progress.step, f"loss {progress.loss:.4f}{self._held_out}", milestone=progress.evaluation is not None)
