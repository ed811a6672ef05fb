"""Training a policy on cached latents, with the same optimiser, schedule, average and checkpoints as the predictor (`wm/train.py`).

The rule for what is kept is fixed in advance: the moving average of the weights at the last step. Held-out figures are reported, never
used to choose.

Letters in array names: C pairs of a moment and a goal, A action dimensions, P proprioception dimensions, F frames.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from goalward import UserError
from goalward.policies.hindsight import HindsightBatch, draw_goals, gather, starts
from goalward.policies.network import PolicyNetwork, Shape
from goalward.policies.registry import find_kind
from goalward.policies.train_config import PolicyTrainConfig
from goalward.wm.latents import LatentEpisodes
from goalward.wm.optim import make_adamw, update_average, warmup_cosine
from goalward.wm.statistics import LatentStatistics, VectorStatistics, latent_statistics, vector_statistics
from goalward.wm.train_state import TrainState, load_state, save_state

_VALIDATION_SEED = 77


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """How a policy does on held-out episodes."""

    loss: float
    """What training minimises."""
    action_error: float
    """Mean squared error of the first action it would execute, over the variance of the actions: 1 is no better than their mean."""
    num_pairs: int
    """Pairs measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyProgress:
    """What a run reports after each step."""

    step: int
    """Steps done."""
    loss: float
    """Loss of this step."""
    held_out: HeldOut | None
    """On the steps that validate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyTrainResult:
    """A finished run."""

    network: PolicyNetwork
    """The averaged weights, float32, on the CPU."""
    latent: LatentStatistics
    """Of the training episodes."""
    action: VectorStatistics
    """Of the training episodes."""
    proprio: VectorStatistics
    """Of the training episodes."""
    held_out: HeldOut
    """Of the averaged weights."""
    elapsed_s: float
    """Training time of all sessions."""
    notes: tuple[str, ...]
    """What the user should know, one line each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Data:
    """Episodes on the device, normalised, and how to cut batches out of them."""

    episodes: LatentEpisodes
    proprio_FP: Tensor
    hold_A: Tensor
    config: PolicyTrainConfig

    def batch(self, frames: Tensor, generator: torch.Generator) -> HindsightBatch:
        goals = draw_goals(self.episodes, frames, self.config.hindsight, generator)
        device, size = self.episodes.z_FND.device, self.config.network
        return gather(
            self.episodes,
            frames.to(device),
            goals.to(device),
            context=size.context_frames,
            horizon=size.horizon,
            hold_A=self.hold_A,
            proprio_FP=self.proprio_FP,
        )


def train_policy(
    config: PolicyTrainConfig,
    training: LatentEpisodes,
    validation: LatentEpisodes,
    *,
    hold: Sequence[float] | None = None,
    out: Path | None = None,
    identity: dict[str, Any] | None = None,
    resume: bool = False,
    device: torch.device | str = "cpu",
    report: Callable[[PolicyProgress], None] | None = None,
) -> PolicyTrainResult:
    """Trains a policy. The same config and data give the same bits on the same CPU, killed and resumed or not.

    Args:
        config: How.
        training: Episodes to learn from, not normalised.
        validation: Held-out episodes, not normalised.
        hold: The action [A] that changes nothing, physical units; None is zeros.
        out: Folder for checkpoints; None saves nothing.
        identity: What a resumed run must share besides the config (hashes of data and encoder), plain JSON.
        resume: Continue the run in `out`.
        device: Where.
        report: Called after each step.

    Raises:
        UserError: Too little data, a diverged loss, a checkpoint of another run, a folder that cannot be written.
    """
    torch_device = torch.device(device)
    frames = starts(training)
    if len(frames) == 0 or len(starts(validation)) == 0:
        raise UserError("no episode has an action in it; collect longer episodes")
    latent = latent_statistics(training.z_FND)
    action = vector_statistics(training.executed_actions(), "actions")
    proprio = vector_statistics(training.proprio_FP, "proprio")
    hold_A = action.normalise(torch.zeros(len(action.mean)) if hold is None else torch.tensor(tuple(hold), dtype=torch.float32))
    data, held_out = (
        _Data(
            episodes=part.normalised(latent, action).to(torch_device),
            proprio_FP=proprio.normalise(part.proprio_FP).to(torch_device),
            hold_A=hold_A.to(torch_device),
            config=config,
        )
        for part in (training, validation)
    )
    state = _new_state(config, data, torch_device)
    identity = {"config": dataclasses.asdict(config), **(identity or {})}
    notes = load_state(out, state, identity) if out and resume else []
    started = time.perf_counter() - state.elapsed_s
    while state.step < config.steps:
        chosen = frames[torch.randint(len(frames), (config.batch_size,), generator=state.generator)]
        loss = _step(state, config, data.batch(chosen, state.generator))
        figures = None
        if state.step % config.validate_every == 0 or state.step == config.steps:
            figures = evaluate_policy(state.average, held_out, config)
            state.history.append({"step": state.step, "train_loss": loss, **dataclasses.asdict(figures)})
            state.elapsed_s = time.perf_counter() - started
            if out:
                save_state(out, state, identity)
        if report:
            report(PolicyProgress(step=state.step, loss=loss, held_out=figures))
    final = evaluate_policy(state.average, held_out, config)
    return PolicyTrainResult(
        network=state.average.cpu(),
        latent=latent,
        action=action,
        proprio=proprio,
        held_out=final,
        elapsed_s=state.elapsed_s,
        notes=tuple(notes),
    )


@torch.no_grad()
def evaluate_policy(network: PolicyNetwork, data: _Data, config: PolicyTrainConfig) -> HeldOut:
    """Measures a network on pairs that are the same at every call, spread evenly over the episodes."""
    frames = starts(data.episodes).cpu()
    if len(frames) > config.validation_pairs:
        frames = frames[torch.linspace(0, len(frames) - 1, config.validation_pairs, dtype=torch.float64).round().long()]
    generator = torch.Generator().manual_seed(_VALIDATION_SEED)
    batch = data.batch(frames, generator)
    with _autocast(batch.z_CTND.device, config):
        loss = float(network.loss(batch, generator))
    acted_CSHA = network.act(batch.z_CTND, batch.z_goal_CND, batch.proprio_CP, options=network.options, generator=None, num_samples=1)
    error = float((acted_CSHA[:, 0, 0] - batch.actions_CHA[:, 0]).square().mean())
    return HeldOut(loss=loss, action_error=error, num_pairs=len(frames))


def _new_state(config: PolicyTrainConfig, data: _Data, device: torch.device) -> TrainState[PolicyNetwork]:
    generator = torch.Generator().manual_seed(config.seed)
    _, num_tokens, dim = data.episodes.z_FND.shape
    shape = Shape(
        num_tokens=num_tokens,
        dim=dim,
        action_dim=data.episodes.actions_FA.shape[1],
        proprio_dim=data.proprio_FP.shape[1] if config.proprio else 0,
    )
    network = find_kind(config.kind).network(config.network, config.options, shape, generator).to(device)
    average = copy.deepcopy(network).requires_grad_(False)
    return TrainState(
        predictor=network, average=average, optimizer=make_adamw(network, weight_decay=config.weight_decay), generator=generator
    )


def _step(state: TrainState[PolicyNetwork], config: PolicyTrainConfig, batch: HindsightBatch) -> float:
    """One optimiser step; a loss or gradient that is not finite raises before any weight moves."""
    with _autocast(batch.z_CTND.device, config):
        loss = state.predictor.loss(batch, state.generator)
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


def _autocast(device: torch.device, config: PolicyTrainConfig) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bfloat16")
