"""`goalward pretrain`: trains an encoder on video and writes its folder and model card."""

from __future__ import annotations

import json
import os
import platform
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from goalward import UserError

if TYPE_CHECKING:
    from goalward.wm.pretrain import PretrainConfig, Pretrained, Progress
    from goalward.wm.video_clips import ClipPool


_OBJECTIVES = {
    "latents": "predict the next frames' latents from the last two (video only: no action, reward or state), with SIGReg",
    "pixels": "predict the next frames' pixels from the last two frames' latents (video only: no action, reward or state), and reconstruct",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainCommand:
    """Pretrain an encoder on video only: no actions, rewards or states are read."""

    data: tuple[Path, ...]
    """Episode stores, e.g. --data data/reach data/reach-varied data/scenes."""
    out: Path = Path("runs/encoder")
    """Folder for the encoder; holds the state to resume from, too."""
    weights: tuple[float, ...] = ()
    """Sampling weight of each store, in order; empty: all the same."""
    architecture: Literal["small", "vit"] = "small"
    """The embedded convolutional encoder, or a vision transformer, written in V-JEPA 2's transformers format (needs goalward[hf])."""
    objective: Literal["latents", "pixels"] = "latents"
    """What is predicted of later frames: their latents, or their pixels (the generative control; a decoder is written beside)."""
    preset: Literal["default", "debug"] = "default"
    """`debug` trains a tiny encoder for a few seconds, to try the pipeline."""
    minutes: float | None = None
    """Training time; the schedule follows the clock. None: the preset's."""
    steps: int | None = None
    """Optimiser steps instead of minutes: the run is then reproducible."""
    batch_clips: int | None = None
    """Clips per step; None: the preset's."""
    max_frames: int = 250_000
    """Bound on the frames held in memory, all stores and cameras together (48 KiB each at 128 px)."""
    name: str = "goalward-small"
    """Name written into a small encoder; a vision transformer is called after its folder."""
    licence: str = "Apache-2.0"
    """SPDX identifier of the licence of the weights."""
    seed: int = 0
    """Decides initial weights, clips and directions."""
    threads: int = 0
    """CPU threads; 0: all cores."""
    resume: bool = False
    """Continue the run in `out`."""
    quiet: bool = field(default=False)
    """No progress bar."""

    def __post_init__(self) -> None:
        """Checks every field."""
        if not self.data:
            raise UserError("data is empty; name at least one episode store, e.g. --data data/reach")
        if self.weights and len(self.weights) != len(self.data):
            raise UserError(f"weights has {len(self.weights)} entries for {len(self.data)} data stores; give one per store or none")
        if self.minutes is not None and self.steps is not None:
            raise UserError("minutes and steps are both given; choose one budget")
        if self.max_frames < 1:
            raise UserError(f"max_frames = {self.max_frames}: must be at least 1")
        if self.threads < 0:
            raise UserError(f"threads = {self.threads}: must be 0 (all cores) or above")


def run(config: PretrainCommand) -> int:
    """Runs the command.

    Returns:
        Exit code 0.

    Raises:
        UserError: Any fault of data, options, disk or resumed state.
    """
    import torch

    from goalward.datasets.store import open_store
    from goalward.wm.decoder_folder import forget_decoder, save_decoder
    from goalward.wm.encoders.hub import require
    from goalward.wm.pretrain import pretrain
    from goalward.wm.pretrain_state import STATE_NAME

    if config.architecture == "vit":
        require("transformers")  # to read back what is exported: better missing now than after the training
    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    stores = [open_store(path) for path in config.data]
    training = training_config(config, image_size_px=int(stores[0].spec.image_size_px))
    weights = config.weights or (1.0,) * len(stores)
    train, validation = _load(config, training, stores, weights)
    sources = [
        {
            "path": path.name,
            "env": str(getattr(store.spec, "env_id", "")),
            "sha256": store.content_hash,
            "weight": weight,
            "frames": len(pool.frames_Fhw3),
        }
        for path, store, weight, pool in zip(config.data, stores, weights, train, strict=True)
    ]
    with _Bar(config.quiet) as bar:
        try:
            result = pretrain(
                training,
                train,
                validation,
                out=config.out,
                resume=config.resume,
                data_hashes=[store.content_hash for store in stores],
                on_progress=bar.update,
            )
        except KeyboardInterrupt:
            bar.note(f"stopped; continue with --resume --out {config.out}")
            return 130
    provenance = provenance_of(config, training, result, sources)
    forget_decoder(config.out)  # of an older encoder: it would be refused beside this one
    write_encoder(config, result.network, provenance)
    if result.decoder is not None:
        save_decoder(config.out, result.decoder)
    (config.out / STATE_NAME).unlink(missing_ok=True)  # the encoder is whole: nothing is left to resume
    if not config.quiet:
        bar.note(f"encoder written to {config.out}; next: goalward probe --encoder {config.out} --data {config.data[0]}")
    return 0


def write_encoder(config: PretrainCommand, network: Any, provenance: dict[str, Any]) -> None:
    """Writes the folder of a trained network, with its model card.

    Raises:
        UserError: The folder cannot be written.
    """
    from goalward.wm.encoders.folder import CARD_NAME, save_small_encoder, write_atomically
    from goalward.wm.encoders.small import SmallEncoder, SmallEncoderNetwork
    from goalward.wm.encoders.vit_folder import export_vision_transformer

    if isinstance(network, SmallEncoderNetwork):
        encoder = SmallEncoder(network, name=config.name, licence=config.licence)
        save_small_encoder(config.out, encoder, provenance=provenance)
        write_atomically(config.out / CARD_NAME, model_card(encoder, provenance).encode())
    else:
        export_vision_transformer(
            config.out, network, licence=config.licence, provenance=provenance, card=lambda made: model_card(made, provenance)
        )


def training_config(config: PretrainCommand, *, image_size_px: int) -> PretrainConfig:
    """Resolves the preset and the options on top of it."""
    from goalward.wm.encoders.small import SmallEncoderConfig
    from goalward.wm.encoders.vit import VisionTransformerConfig
    from goalward.wm.pixel_objective import PixelObjectiveConfig
    from goalward.wm.pretrain import PretrainConfig
    from goalward.wm.pretrain_objective import ObjectiveConfig

    debug = config.preset == "debug"
    shape: SmallEncoderConfig | VisionTransformerConfig
    if config.architecture == "vit":
        shape = VisionTransformerConfig(image_size_px=image_size_px)
        shape = replace(shape, dim=48, depth=2, heads=2) if debug else shape
    else:
        shape = SmallEncoderConfig(image_size_px=image_size_px)
        shape = replace(shape, widths=(16, 32, 64), blocks=(0, 1, 1)) if debug else shape
    if debug:
        resolved = PretrainConfig(
            encoder=shape,
            objective=ObjectiveConfig(clip_frames=3, predictor_width=128, sigreg_directions=64),
            steps=60,
            batch_clips=16,
            warmup_steps=10,
            check_every=20,
        )
    else:
        resolved = PretrainConfig(encoder=shape)
    if config.objective == "pixels":
        tiny: dict[str, Any] = {"decoder_widths": (64, 32, 16), "decoder_blocks": (1, 1, 0)} if debug else {}
        shared = {name: getattr(resolved.objective, name) for name in ("clip_frames", "predictor_width", "brightness_jitter")}
        resolved = replace(resolved, objective=PixelObjectiveConfig(**shared, **tiny))
    if config.minutes is not None:
        resolved = replace(resolved, minutes=config.minutes, steps=None)
    if config.steps is not None:
        resolved = replace(resolved, steps=config.steps)
    if config.batch_clips is not None:
        resolved = replace(resolved, batch_clips=config.batch_clips)
    return replace(resolved, seed=config.seed)


def _load(
    config: PretrainCommand, training: PretrainConfig, stores: Sequence[Any], weights: Sequence[float]
) -> tuple[list[ClipPool], list[ClipPool]]:
    from goalward.wm.video_clips import load_pool

    size = training.encoder.image_size_px
    # The bound is shared by sampling weight: a store seen rarely needs few frames.
    train = [
        load_pool(
            store,
            split="train",
            image_size_px=size,
            weight=weight,
            seed=config.seed,
            max_frames=max(1, int(config.max_frames * weight / sum(weights))),
        )
        for store, weight in zip(stores, weights, strict=True)
    ]
    held = [(store, weight) for store, weight in zip(stores, weights, strict=True) if len(store.indices("validation"))]
    validation = [load_pool(store, split="validation", image_size_px=size, weight=weight, max_frames=4_000) for store, weight in held]
    return train, validation


def command_line(config: PretrainCommand) -> str:
    """Writes the command that makes this encoder again; data folders by their names alone, since paths are the machine's."""
    words = ["goalward", "pretrain", "--data", *(f"data/{path.name}" for path in config.data)]
    defaults = PretrainCommand(data=config.data)
    names = ("weights", "architecture", "objective", "preset", "minutes", "steps", "batch_clips", "max_frames", "name", "licence", "seed")
    for name in names:
        value = getattr(config, name)
        if value != getattr(defaults, name):
            words += ["--" + name.replace("_", "-"), *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)


def provenance_of(config: PretrainCommand, training: PretrainConfig, result: Pretrained, sources: list[dict[str, Any]]) -> dict[str, Any]:
    """Collects what the model card tells, as JSON values; paths are reduced to their last part."""
    import torch

    last = result.progress
    figures: dict[str, Any] = {
        "steps": last.step,
        "training_minutes": round(last.elapsed_s / 60, 2),
        "frames_seen": last.step * training.batch_clips * training.objective.clip_frames,
        "frames_per_s": round(last.frames_per_s, 1),
    }
    if last.held_out is not None:
        figures["held_out_error_of_persistence"] = round(last.held_out.of_persistence, 4)
        figures["held_out_latents"] = {key: round(value, 4) for key, value in asdict(last.held_out.collapse).items()}
    return {
        "objective": _OBJECTIVES[config.objective],
        "command": command_line(config),
        "training": asdict(training),
        "data": sources,
        "figures": figures,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def model_card(encoder: Any, provenance: dict[str, Any]) -> str:
    """Writes the model card, in Markdown."""
    rows = "\n".join("| {path} | {env} | {frames} | {weight:g} | `{sha256:.16}` |".format(**source) for source in provenance["data"])
    return f"""# {encoder.name}

A frozen video encoder: one uint8 frame of {encoder.image_size_px} px in, {encoder.tokens_per_view} tokens of width
{encoder.dim} out. Licence of the weights: {encoder.licence}.

- **Objective**: {provenance["objective"]}.
- **Command**: `{provenance["command"]}`
- **Fingerprint**: `{encoder.fingerprint}`
- **Use**: latent distances for planning to goal images in scenes like those it has seen; no general-purpose encoder.

| data | environment | frames | sampling weight | SHA-256 |
|---|---|---|---|---|
{rows}

Figures of the run, its configuration and versions:

```json
{json.dumps({key: provenance[key] for key in ("figures", "training", "versions")}, indent=2, sort_keys=True)}
```
"""


class _Bar:
    """A progress bar on standard error with the loss terms, the spectrum and the time left."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._console = Console(stderr=True, quiet=quiet)
        self._bar = Progress(
            TextColumn("pretrain"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f}%"),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            refresh_per_second=2,
        )
        self._task = self._bar.add_task("pretrain", total=1.0, figures="")
        self._logged = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        self._bar.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def update(self, progress: Progress) -> None:
        """Shows the latest figures; without a terminal, prints a line every 5 %."""
        decoded = progress.reconstruction > 0
        beside = f"reconstruction {progress.reconstruction:.3g}" if decoded else f"SIGReg {progress.regulariser:.4f}"
        figures = (
            f"step {progress.step} loss {progress.loss:.3g} (prediction {progress.prediction:.3g} = "
            f"{progress.of_persistence:.2f} of persistence, {beside}) {progress.frames_per_s:.0f} frames/s"
        )
        if progress.held_out is not None:
            collapse = progress.held_out.collapse
            figures += f", held out {progress.held_out.of_persistence:.2f}"
            figures += f", rank {collapse.effective_rank:.0f} of {collapse.width}"
        self._bar.update(self._task, completed=progress.fraction, figures=figures)
        if not self._console.is_terminal and (progress.fraction >= self._logged or progress.fraction >= 1):
            self._logged += 0.05
            self.note(f"{progress.fraction:4.0%} {figures}")
