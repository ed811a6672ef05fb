"""Training the predictor on cached latents: teacher forcing and rollout in one pass, validated on held-out episodes.

Letters in array names: C clips of a batch, T context frames, H horizon steps, N tokens per frame, D latent width, A action dimensions.

Every clip is two candidates that share a context: one is fed its own predictions (rollout), the other the true frames (teacher forcing).
Targets are the frozen encoder's latents, so nothing flows into them.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from goalward import UserError
from goalward.wm.evaluate import Evaluation, evaluate
from goalward.wm.latents import LatentEpisodes
from goalward.wm.optim import make_adamw, update_average, warmup_cosine
from goalward.wm.predictor import LatentPredictor, PredictorConfig
from goalward.wm.statistics import LatentStatistics, VectorStatistics, latent_statistics, vector_statistics
from goalward.wm.train_state import TrainState, load_state, save_state

_ALL_CLIPS = 2**31


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How the predictor is trained."""

    steps: int = 2500
    """Optimiser steps."""
    batch_size: int = 128
    """Clips per step."""
    learning_rate: float = 2e-3
    """Highest learning rate."""
    warmup_steps: int = 100
    """Steps of linear warm-up, before the cosine."""
    weight_decay: float = 0.01
    """AdamW's decay of matrices."""
    grad_clip: float = 1.0
    """Longest gradient, L2 norm over all weights."""
    average_decay: float = 0.998
    """Decay of the moving average of the weights, which is what is kept."""
    teacher_weight: float = 1.0
    """Weight of the one-step loss with true frames fed in."""
    rollout_weight: float = 1.0
    """Weight of the loss with predictions fed back."""
    loss: Literal["mse", "smooth_l1"] = "mse"
    """Distance between predicted and true latents, in normalised units."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Precision of matrix products; weights and losses are float32 anyway."""
    validate_every: int = 250
    """Steps between validations; each is followed by a checkpoint."""
    validation_clips: int = 1024
    """Most held-out clips per validation."""
    seed: int = 0
    """Decides initial weights and the order of the data."""
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    """Size of the predictor."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        for name in ("steps", "batch_size", "validate_every", "validation_clips"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; must be at least 1")
        for name in ("warmup_steps", "weight_decay", "teacher_weight", "rollout_weight", "seed"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} is {getattr(self, name)}; must be 0 or more")
        for name in ("learning_rate", "grad_clip"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)}; must be positive")
        if not 0 <= self.average_decay < 1:
            raise UserError(f"average_decay is {self.average_decay}; must lie in [0, 1)")
        if self.teacher_weight + self.rollout_weight == 0:
            raise UserError("teacher_weight and rollout_weight are both 0; at least one must be positive")
        for name, choices in (("loss", ("mse", "smooth_l1")), ("precision", ("bfloat16", "float32"))):
            if getattr(self, name) not in choices:
                raise UserError(f"{name} is {getattr(self, name)!r}; choose {' or '.join(choices)}")


PRESETS: dict[str, TrainConfig] = {
    "default": TrainConfig(),
    "debug": TrainConfig(
        steps=60,
        batch_size=32,
        warmup_steps=10,
        validate_every=30,
        validation_clips=64,
        predictor=PredictorConfig(width=64, depth=2, heads=2),
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainProgress:
    """What a run reports after each step."""

    step: int
    """Steps done."""
    loss: float
    """Loss of this step."""
    evaluation: Evaluation | None
    """Held-out errors, on the steps that validate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """A finished run."""

    predictor: LatentPredictor
    """The averaged weights, float32, on the CPU."""
    latent: LatentStatistics
    """Of the training episodes."""
    action: VectorStatistics
    """Of the training episodes."""
    proprio: VectorStatistics
    """Of the training episodes."""
    evaluation: Evaluation
    """Held-out errors of the averaged weights, over all clips."""
    elapsed_s: float
    """Training time of all sessions."""
    notes: tuple[str, ...]
    """What the user should know, one line each."""


def training_loss(predictor: LatentPredictor, z_CTND: Tensor, actions_CHA: Tensor, true_CHND: Tensor, config: TrainConfig) -> Tensor:
    """Weighted sum of teacher-forcing and rollout loss of a batch, float32 scalar."""
    context = predictor.prime(z_CTND)
    rollout = predictor.start(context, actions_CHA[:, None].expand(-1, 2, -1, -1))
    z_CSND = context.z_BND[:, None].expand(-1, 2, -1, -1)
    weights = torch.tensor([config.rollout_weight, config.teacher_weight], device=z_CTND.device)
    total = torch.zeros((), device=z_CTND.device)
    for h in range(actions_CHA.shape[1]):
        predicted_CSND, true_CND = rollout.step(z_CSND), true_CHND[:, h]
        target_CSND = true_CND[:, None].expand_as(predicted_CSND)
        distance = F.mse_loss if config.loss == "mse" else F.smooth_l1_loss
        total = total + (distance(predicted_CSND, target_CSND, reduction="none").mean((0, 2, 3)) * weights).sum()
        z_CSND = torch.stack([predicted_CSND[:, 0], true_CND], dim=1)
    return total / actions_CHA.shape[1]


def train(
    config: TrainConfig,
    training: LatentEpisodes,
    validation: LatentEpisodes,
    *,
    out: Path | None = None,
    identity: dict[str, Any] | None = None,
    resume: bool = False,
    device: torch.device | str = "cpu",
    report: Callable[[TrainProgress], None] | None = None,
) -> TrainResult:
    """Trains a predictor. The same config and data give the same bits on the same CPU, killed and resumed or not.

    Args:
        config: How.
        training: Episodes to learn from, not normalised.
        validation: Held-out episodes, not normalised.
        out: Folder for checkpoints; None saves nothing.
        identity: What a resumed run must share besides the config (hashes of data and encoder), plain JSON.
        resume: Continue the run in `out`.
        device: Where.
        report: Called after each step.

    Raises:
        UserError: Too little data, a diverged loss, a checkpoint of another run, a folder that cannot be written.
    """
    torch_device = torch.device(device)
    horizon, context = config.predictor.horizon, config.predictor.context_frames
    latent = latent_statistics(training.z_FND)
    action = vector_statistics(training.executed_actions(), "actions")
    proprio = vector_statistics(training.proprio_FP, "proprio")
    clips = training.clips(horizon)
    if len(clips) == 0:
        raise UserError(f"horizon is {horizon}, but no training episode has that many actions; collect longer episodes")
    data, held_out = (part.normalised(latent, action).to(torch_device) for part in (training, validation))
    state = _new_state(config, data, torch_device)
    identity = {"config": dataclasses.asdict(config), **(identity or {})}
    notes = load_state(out, state, identity) if out and resume else []

    def validate(clips: int) -> Evaluation:
        with _autocast(torch_device, config):
            return evaluate(state.average, held_out, context=context, horizon=horizon, max_clips=clips)

    started = time.perf_counter() - state.elapsed_s
    while state.step < config.steps:
        frames = clips[torch.randint(len(clips), (config.batch_size,), generator=state.generator)]
        loss = _step(state, config, *data.gather(frames.to(torch_device), context=context, horizon=horizon))
        evaluation = None
        if state.step % config.validate_every == 0 or state.step == config.steps:
            evaluation = validate(config.validation_clips)
            state.history.append({"step": state.step, "loss": loss, **evaluation.to_json()})
            state.elapsed_s = time.perf_counter() - started
            if out:
                save_state(out, state, identity)
        if report:
            report(TrainProgress(step=state.step, loss=loss, evaluation=evaluation))
    final = validate(_ALL_CLIPS)
    return TrainResult(
        predictor=state.average.cpu(),
        latent=latent,
        action=action,
        proprio=proprio,
        evaluation=final,
        elapsed_s=state.elapsed_s,
        notes=tuple(notes),
    )


def _new_state(config: TrainConfig, data: LatentEpisodes, device: torch.device) -> TrainState[LatentPredictor]:
    generator = torch.Generator().manual_seed(config.seed)
    _, num_tokens, dim = data.z_FND.shape
    predictor = LatentPredictor(
        config.predictor, num_tokens=num_tokens, dim=dim, action_dim=data.actions_FA.shape[1], generator=generator
    ).to(device)
    average = copy.deepcopy(predictor).requires_grad_(False)
    return TrainState(
        predictor=predictor, average=average, optimizer=make_adamw(predictor, weight_decay=config.weight_decay), generator=generator
    )


def _step(state: TrainState[LatentPredictor], config: TrainConfig, z_CTND: Tensor, actions_CHA: Tensor, true_CHND: Tensor) -> float:
    """One optimiser step; a loss or gradient that is not finite raises before any weight moves."""
    with _autocast(z_CTND.device, config):
        loss = training_loss(state.predictor, z_CTND, actions_CHA, true_CHND, config)
    value = float(loss.detach())
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = float(torch.nn.utils.clip_grad_norm_(state.predictor.parameters(), config.grad_clip))
    if not (abs(value) < float("inf") and norm < float("inf")):
        raise UserError(
            f"training diverged at step {state.step + 1}: loss {value}, gradient {norm}; no weight was changed by it: "
            f"lower learning_rate (now {config.learning_rate}) and start again"
        )
    rate = warmup_cosine(state.step, steps=config.steps, warmup=config.warmup_steps, peak=config.learning_rate)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    state.step += 1
    update_average(list(state.average.parameters()), list(state.predictor.parameters()), step=state.step, decay=config.average_decay)
    return value


def _autocast(device: torch.device, config: TrainConfig) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bfloat16")
