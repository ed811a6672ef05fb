"""`goalward imitate`: trains a goal-conditioned policy on a dataset's latents, beside the world model and from the same episodes."""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from goalward import UserError
from goalward.experiments.data_share import check_fraction
from goalward.experiments.training_bar import TrainingBar
from goalward.experiments.training_inputs import encoder_files, is_shipped, open_data, read_latents, software

if TYPE_CHECKING:
    from torch import Tensor

    from goalward.policies.base import PolicyDescription
    from goalward.policies.train import PolicyProgress, PolicyTrainResult
    from goalward.policies.train_config import PolicyTrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class ImitateCommand:
    """Train a goal-conditioned policy on episodes, with the frozen encoder of the world model: the imitation that planning must beat."""

    env: str = "reach"
    """Environment of the episodes."""
    policy: str = "gcbc"
    """Kind: gcbc (behaviour cloning), flow (guided flow-matching chunks), inverse (inverse dynamics)."""
    data: Path | None = None
    """Episode store; none given: data/<env>."""
    out: Path | None = None
    """Folder for the policy and its checkpoints; none given: runs/<env>-<policy>."""
    encoder: str = "goalward-small"
    """Name of an encoder, a folder or a hub id, as `goalward train` takes it."""
    cameras: tuple[str, ...] = ()
    """Cameras to use, in this order; none given: all in the data."""
    preset: Literal["default", "debug"] = "default"
    """`debug` trains a tiny network for a few seconds, to try the pipeline."""
    steps: int | None = None
    """Optimiser steps; none given: the preset's."""
    horizon: int | None = None
    """Actions in a chunk; none given: as many as a planner's plan has by default."""
    context_frames: int | None = None
    """Observed frames that a chunk starts from; none given: the kind's own number. More show the velocity of a fast arm better."""
    proprio: bool = False
    """Let the policy also see proprioception, which planners do not."""
    fraction: float = 1.0
    """Share of the training episodes to learn from; smaller shares lie inside larger ones."""
    seed: int = 0
    """Decides initial weights, the order of the data and the goals."""
    device: str = "auto"
    """Where to train: cpu, cuda, or auto."""
    cache: Path | None = None
    """Folder that keeps encoded frames for the next run; none given: beside the data, <data>-latents."""
    threads: int = 0
    """CPU threads; 0: all cores."""
    resume: bool = False
    """Continue the run in `out`."""
    quiet: bool = False
    """No progress bar, no summary."""

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


def run(config: ImitateCommand) -> int:
    """Runs the command.

    Returns:
        Exit code: 0, or 130 after an interruption.

    Raises:
        UserError: Any fault of data, encoder, options, disk or resumed state; checkpoints stay.
    """
    import numpy as np
    import torch

    from goalward.policies.checkpoint import POLICY_JSON, save_policy
    from goalward.policies.train import train_policy
    from goalward.wm.base import EnvSignature
    from goalward.wm.checkpoint import EncoderReference
    from goalward.wm.encoders import load_encoder
    from goalward.wm.model import check_device
    from goalward.wm.train_state import has_state

    training = training_config(config)
    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    device = check_device(config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    out = config.out or Path("runs") / f"{config.env}-{config.policy}"
    if not config.resume and (has_state(out) or (out / POLICY_JSON).exists()):
        raise UserError(f"out: {out} already holds a run; add --resume to continue it, or choose another --out")
    store = open_data(config)
    signature = EnvSignature.of(store.spec, cameras=config.cameras or None)
    encoder = load_encoder(config.encoder, device=device)
    with _Bar(config.quiet) as bar:
        try:
            inputs = read_latents(config, store, encoder, bar)
            bar.start(training.steps)
            result = train_policy(
                training,
                inputs.training,
                inputs.validation,
                hold=np.clip(0.0, signature.action_low, signature.action_high).tolist(),
                out=out,
                identity=inputs.identity | {"encoder": encoder.fingerprint, "cameras": list(signature.cameras)},
                resume=config.resume,
                device=device,
                report=bar.update,
            )
        except KeyboardInterrupt:
            bar.note(f"stopped; continue with the same options and --resume (checkpoints are in {out})")
            return 130
    reference = EncoderReference(name=encoder.name, fingerprint=encoder.fingerprint, shipped=is_shipped(config.encoder))
    description = _description(
        training, signature, reference, result, data_hash=store.content_hash, facts={"device": str(device), **inputs.facts}
    )
    weights: dict[str, Tensor] = dict(result.network.named_parameters())
    save_policy(out, description, weights, result.latent.mean_ND, encoder_files=encoder_files(config.encoder, encoder))
    if not config.quiet:
        held_out, count = result.held_out, sum(p.numel() for p in weights.values())
        print(
            f"{config.policy}: {count / 1e6:.2f} million weights, held-out loss {held_out.loss:.4f}, error of the first action "
            f"{held_out.action_error:.1%} of its variance ({held_out.num_pairs} pairs)"
        )
        for note in result.notes:
            print(note)
        print(f"policy in {out}; it loads with goalward.policies.load_policy({str(out)!r})", file=sys.stderr)
    return 0


def training_config(config: ImitateCommand) -> PolicyTrainConfig:
    """The kind's defaults with the options that were given.

    Raises:
        UserError: An unknown kind, or a value out of range.
    """
    from goalward.policies.train_config import config_for

    training = config_for(config.policy, debug=config.preset == "debug", seed=config.seed, proprio=config.proprio)
    if config.steps is not None:
        training = dataclasses.replace(training, steps=config.steps)
    given = {name: value for name in ("horizon", "context_frames") if (value := getattr(config, name)) is not None}
    return dataclasses.replace(training, network=dataclasses.replace(training.network, **given))


def _description(
    training: PolicyTrainConfig, signature: Any, encoder: Any, result: PolicyTrainResult, *, data_hash: str, facts: dict[str, Any]
) -> PolicyDescription:
    from goalward.policies.base import PolicyDescription

    num_tokens, dim = result.latent.mean_ND.shape
    return PolicyDescription(
        kind=training.kind,
        network=training.network,
        proprio=training.proprio,
        options=dataclasses.asdict(training.options),
        num_tokens=num_tokens,
        dim=dim,
        env=signature,
        encoder=encoder,
        latent_scale=result.latent.scale,
        action_mean=tuple(result.action.mean.tolist()),
        action_std=tuple(result.action.std.tolist()),
        proprio_mean=tuple(result.proprio.mean.tolist()),
        proprio_std=tuple(result.proprio.std.tolist()),
        data_hash=data_hash,
        training={
            "config": dataclasses.asdict(training),
            "held_out": dataclasses.asdict(result.held_out),
            "elapsed_s": round(result.elapsed_s, 1),
            **facts,
        },
        versions=software(),
    )


class _Bar(TrainingBar):
    """Shows loss and the latest held-out figures."""

    _held_out = ""

    def update(self, progress: PolicyProgress) -> None:
        """Shows a step."""
        if progress.held_out is not None:
            self._held_out = f", held out {progress.held_out.loss:.4f}, action error {progress.held_out.action_error:.1%}"
        self.advance(progress.step, f"loss {progress.loss:.4f}{self._held_out}", milestone=progress.held_out is not None)
