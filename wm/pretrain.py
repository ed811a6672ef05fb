"""Pretrains an encoder on video alone: the embedded one, or a small vision transformer.

The loop only: clips come from `video_clips.py`, the loss from `pretrain_objective.py` (or, for the generative control, from
`pixel_objective.py`), exact resume from `pretrain_state.py`.
Letters: C clips, L frames per clip, h = w image side in pixels, N tokens per frame, D latent width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from goalward import UserError
from goalward.wm.decoder import Decoder, DecoderNetwork
from goalward.wm.encoders.networks import TrainableConfig, TrainableNetwork, make_network
from goalward.wm.encoders.small import SmallEncoder, SmallEncoderConfig, SmallEncoderNetwork
from goalward.wm.encoders.vit import VisionTransformerNetwork
from goalward.wm.pixel_objective import PixelObjectiveConfig, held_out_pixels, pixel_objective
from goalward.wm.pretrain_objective import (
    FuturePredictor,
    ObjectiveConfig,
    ObjectiveTerms,
    encode_clips,
    jitter_brightness,
    objective,
)
from goalward.wm.pretrain_state import PretrainState
from goalward.wm.probe import CollapseReport, collapse_report
from goalward.wm.video_clips import ClipPool, ClipSampler


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainConfig:
    """How the encoder is pretrained."""

    encoder: TrainableConfig = field(default_factory=SmallEncoderConfig)
    """Shape of the encoder, which decides its architecture too."""
    objective: ObjectiveConfig | PixelObjectiveConfig = field(default_factory=ObjectiveConfig)
    """What it is trained for: to predict latents, or (the generative control) pixels."""
    steps: int | None = None
    """Optimiser steps; None trains until `minutes` are over."""
    minutes: float = 20.0
    """Training time where `steps` is None; the schedule then follows the clock, so machines differ."""
    batch_clips: int = 32
    """Clips per step."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    weight_decay: float = 1e-3
    """AdamW's weight decay."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    max_grad_norm: float = 5.0
    """Gradients are scaled down to this norm."""
    seed: int = 0
    """Decides initial weights, clips and directions."""
    check_every: int = 100
    """Steps between looks at the held-out clips."""
    save_every_s: float = 60.0
    """Seconds between saved states."""

    def __post_init__(self) -> None:
        """Checks every field."""
        if self.steps is not None and self.steps < 1:
            raise UserError(f"steps = {self.steps}: must be at least 1")
        for name in ("minutes", "learning_rate", "max_grad_norm"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise UserError(f"{name} = {value}: must be above 0 and finite")
        for name in ("weight_decay", "save_every_s"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise UserError(f"{name} = {value}: must be 0 or above and finite")
        if isinstance(self.objective, PixelObjectiveConfig) and not isinstance(self.encoder, SmallEncoderConfig):
            raise UserError("objective pixels: its decoder belongs to the small encoder; use the objective latents, or architecture small")
        for name, least in (("batch_clips", 2), ("warmup_steps", 0), ("check_every", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} = {getattr(self, name)}: must be at least {least}")


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands."""

    step: int
    """Steps done."""
    fraction: float
    """Of the budget, 0 to 1."""
    elapsed_s: float
    """Training time so far, seconds."""
    loss: float
    """Of this step."""
    prediction: float
    """Mean squared prediction error per latent entry, or per pixel and colour."""
    of_persistence: float
    """The same as a fraction of the guess that nothing moves."""
    regulariser: float
    """SIGReg, unweighted."""
    within_video: float
    """SIGReg of differences between moments of one video, unweighted; 0 where it has no weight."""
    frames_per_s: float
    """Trained frames per second."""
    held_out: HeldOut | None
    """The latest look at held-out clips."""
    reconstruction: float = 0.0
    """Mean squared error of the observed frames' decoded pixels, unweighted; 0 where nothing is decoded."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Figures on clips never trained on."""

    of_persistence: float
    """Prediction error as a fraction of persistence."""
    collapse: CollapseReport
    """Spectrum of the frames' latents, all tokens of a frame together."""


@dataclass(frozen=True, slots=True)
class Pretrained:
    """The result of a run."""

    network: TrainableNetwork
    """As trained; its exported form is frozen."""
    progress: Progress
    """The last step's."""
    decoder: Decoder | None = None
    """Frozen; None where the objective needs none."""

    @property
    def encoder(self) -> SmallEncoder:
        """A frozen copy of a small encoder; a vision transformer is exported instead, and loaded like any other."""
        assert isinstance(self.network, SmallEncoderNetwork)
        return SmallEncoder(self.network)


def pretrain(
    config: PretrainConfig,
    train: Sequence[ClipPool],
    validation: Sequence[ClipPool],
    *,
    out: Path | None = None,
    resume: bool = False,
    data_hashes: Sequence[str] = (),
    on_progress: Callable[[Progress], None] | None = None,
) -> Pretrained:
    """Trains an encoder.

    Args:
        config: How.
        train: Video to train on.
        validation: Held-out video; may be empty (then nothing is checked on the way).
        out: Folder for the state to resume from; None saves none.
        resume: Continue from the state in `out`: bitwise the same as an uninterrupted run where `steps` is given, on
            the same CPU and threads.
        data_hashes: Identity of the data, compared on resume.
        on_progress: Called after each step.

    Raises:
        UserError: Too little data, a state that belongs to another run, a disk that is full, or a loss that is no
            longer finite; in the last
            case neither weights nor the saved state have been touched by it.
    """
    if resume and out is None:
        raise UserError("resume needs the folder of the run; give --out")
    sampler = ClipSampler(train, clip_frames=config.objective.clip_frames)
    generator = torch.Generator().manual_seed(config.seed)
    network = make_network(config.encoder, generator)
    predictor = FuturePredictor(network.config.tokens_per_view * network.config.dim, config.objective.predictor_width, generator)
    modules: dict[str, nn.Module] = {"encoder": network, "predictor": predictor}
    if isinstance(config.objective, PixelObjectiveConfig):  # drawn last, so that the other two begin alike under either objective
        shape = config.objective.decoder(image_size_px=network.config.image_size_px, dim=network.config.dim)
        modules["decoder"] = DecoderNetwork(shape, generator)
    optimizer = torch.optim.AdamW(_parameter_groups(modules, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.98))
    state = PretrainState(modules, optimizer, generator, np.random.default_rng(config.seed))
    identity: dict[str, Any] = {"config": asdict(config), "data": list(data_hashes)}
    if resume and out is not None:
        state.restore(out, identity)
    held_out_clips = _held_out_clips(validation, config)
    held_out: HeldOut | None = None
    started = saved = time.monotonic()
    resumed_at, first_step = state.elapsed_s, state.step

    def progress() -> Progress:
        frames = (state.step - first_step) * config.batch_clips * config.objective.clip_frames
        return Progress(
            step=state.step,
            fraction=min(1.0, _fraction(config, state)),
            elapsed_s=state.elapsed_s,
            **state.last,
            frames_per_s=frames / max(1e-9, state.elapsed_s - resumed_at),
            held_out=held_out,
        )

    while (fraction := _fraction(config, state)) < 1.0:
        terms = _step(config, state, sampler, fraction)
        state.last = {
            "loss": float(terms.loss.detach()),
            "prediction": float(terms.prediction),
            "of_persistence": float(terms.prediction / terms.persistence.clamp_min(1e-12)),
            "regulariser": float(terms.regulariser),
            "within_video": float(terms.within_video),
            "reconstruction": float(terms.reconstruction),
        }
        state.elapsed_s = resumed_at + time.monotonic() - started
        if held_out_clips is not None and state.step % config.check_every == 0:
            held_out = check_held_out(modules, held_out_clips, config.objective)
        if on_progress is not None:
            on_progress(progress())
        if out is not None and (time.monotonic() - saved >= config.save_every_s or _fraction(config, state) >= 1.0):
            state.save(out, identity)
            saved = time.monotonic()
    if held_out_clips is not None:
        held_out = check_held_out(modules, held_out_clips, config.objective)
    result, decoder = Pretrained(network, progress()), modules.get("decoder")
    if not isinstance(decoder, DecoderNetwork):
        return result
    return replace(result, decoder=Decoder(decoder, encoder=result.encoder.fingerprint))


def _fraction(config: PretrainConfig, state: PretrainState) -> float:
    if config.steps is not None:
        return state.step / config.steps
    return state.elapsed_s / (60.0 * config.minutes)


def _parameter_groups(modules: Mapping[str, nn.Module], weight_decay: float) -> list[dict[str, Any]]:
    # Gains, biases and positions are not weights to shrink.
    named = [pair for module in modules.values() for pair in module.named_parameters()]
    decayed = [value for name, value in named if value.ndim > 1 and name not in ("position", "offset")]
    kept = [value for name, value in named if value.ndim <= 1 or name in ("position", "offset")]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


def _step(config: PretrainConfig, state: PretrainState, sampler: ClipSampler, fraction: float) -> ObjectiveTerms:
    """Takes one optimiser step; nothing has changed when it raises."""
    warmup = min(1.0, (state.step + 1) / max(1, config.warmup_steps))
    rate = config.learning_rate * warmup * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, fraction))))
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    clips = torch.from_numpy(sampler.sample(config.batch_clips, state.rng, pairs=config.objective.paired_clips))
    clips = jitter_brightness(clips, config.objective.brightness_jitter, state.generator)
    network, predictor, decoder = _networks(state.modules)
    z_CLND = encode_clips(network, clips)
    if isinstance(config.objective, PixelObjectiveConfig):
        assert decoder is not None
        terms = pixel_objective(z_CLND, clips, predictor, decoder, config.objective)
    else:
        terms = objective(z_CLND, predictor, config.objective, state.generator)
    state.optimizer.zero_grad(set_to_none=True)
    if bool(torch.isfinite(terms.loss)):
        terms.loss.backward()  # type: ignore[no-untyped-call]
        weights = [weight for module in state.modules.values() for weight in module.parameters()]
        norm = torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm)
    else:
        norm = terms.loss
    if not bool(torch.isfinite(norm)):
        raise UserError(
            f"pretraining diverged at step {state.step + 1}: loss {float(terms.loss.detach()):.3g}, "
            f"gradient norm {float(norm.detach()):.3g}; lower learning_rate (now {config.learning_rate:g}) and "
            "start again; the last saved state is kept"
        )
    state.optimizer.step()
    state.step += 1
    return terms


def _networks(modules: Mapping[str, nn.Module]) -> tuple[TrainableNetwork, FuturePredictor, DecoderNetwork | None]:
    network, predictor, decoder = modules["encoder"], modules["predictor"], modules.get("decoder")
    assert isinstance(network, SmallEncoderNetwork | VisionTransformerNetwork)
    assert isinstance(predictor, FuturePredictor)
    assert decoder is None or isinstance(decoder, DecoderNetwork)
    return network, predictor, decoder


def _held_out_clips(validation: Sequence[ClipPool], config: PretrainConfig, count: int = 96) -> Tensor | None:
    if not validation:
        return None
    rng = np.random.default_rng([config.seed, 1])
    return torch.from_numpy(
        ClipSampler(validation, clip_frames=config.objective.clip_frames).sample(count, rng, pairs=config.objective.paired_clips)
    )


@torch.no_grad()
def check_held_out(modules: Mapping[str, nn.Module], clips_CLhw3: Tensor, config: ObjectiveConfig | PixelObjectiveConfig) -> HeldOut:
    """Measures prediction and collapse on fixed clips; changes nothing, draws nothing from the run's generators."""
    network, predictor, decoder = _networks(modules)
    z_CLND = torch.cat([encode_clips(network, clips) for clips in torch.split(clips_CLhw3, 16)])
    if isinstance(config, PixelObjectiveConfig):
        assert decoder is not None
        prediction, persistence = held_out_pixels(z_CLND, clips_CLhw3, predictor, decoder, config)
    else:
        terms = objective(z_CLND, predictor, config, torch.Generator().manual_seed(0))
        prediction, persistence = float(terms.prediction), float(terms.persistence)
    return HeldOut(of_persistence=prediction / max(persistence, 1e-12), collapse=collapse_report(z_CLND.flatten(0, 1).flatten(1)))
