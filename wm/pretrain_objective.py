"""What the encoder is pretrained for: latents that the last two predict, and that do not collapse.

Letters: C clips, L frames per clip, h = w image side in pixels, N tokens per frame, D latent width, E = N D.

    z_t = encoder(frame_t)      loss = mean |predicted z_{t+k} - z_{t+k}|^2  +  weight * SIGReg(z)

Video only: no action, reward or state. Gradients flow through targets and inputs alike; SIGReg alone keeps the
latents from collapsing
(LeJEPA, arXiv 2511.08544; LeWorldModel, arXiv 2603.19312), so there is neither a teacher network nor a stop-gradient.

With `within_video_weight`, clips come in pairs from one video, and z_a - z_b, over sqrt(2), must be standard normal as well. What never
changes within a video (colours, light, where the camera stands) is perfectly predictable and would fill the latents by itself; differences
cancel it. Both terms together leave no variance for it, so the latents must spend theirs on what moves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from goalward import UserError
from goalward.wm.base import inference_dtype
from goalward.wm.encoders.networks import TrainableNetwork
from goalward.wm.sigreg import sigreg


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveConfig:
    """The pretraining objective."""

    clip_frames: int = 4
    """Frames of a clip; two are observed, the others predicted."""
    sigreg_weight: float = 0.3
    """Weight of the regulariser against the mean squared prediction error."""
    sigreg_directions: int = 256
    """Random directions per step."""
    sigreg_scope: Literal["frame", "token"] = "token"
    """What must be Gaussian: the vector of all tokens of a frame, or the vector of each token by itself."""
    within_video_weight: float = 1.0
    """Weight of the same regulariser on differences between moments of one video; 0 switches it off."""
    predictor_width: int = 512
    """Hidden width of the action-free predictor, which is thrown away afterwards."""
    brightness_jitter: float = 0.0
    """Largest relative change of gain and offset, drawn per clip and colour; 0 switches it off."""

    def __post_init__(self) -> None:
        """Checks every field."""
        if not 3 <= self.clip_frames <= 64:
            raise UserError(f"clip_frames = {self.clip_frames}: must be in 3..64; use 4")
        if not 0 <= self.sigreg_weight < float("inf"):
            raise UserError(f"sigreg_weight = {self.sigreg_weight}: must be 0 or above; use 0.3")
        if not 0 <= self.within_video_weight < float("inf"):
            raise UserError(f"within_video_weight = {self.within_video_weight}: must be 0 or above; use 1")
        if self.sigreg_directions < 1:
            raise UserError(f"sigreg_directions = {self.sigreg_directions}: must be at least 1; use 256")
        if self.sigreg_scope not in ("frame", "token"):
            raise UserError(f"sigreg_scope = {self.sigreg_scope!r}: must be 'frame' or 'token'")
        if not 1 <= self.predictor_width <= 16384:
            raise UserError(f"predictor_width = {self.predictor_width}: must be in 1..16384; use 512")
        if not 0 <= self.brightness_jitter < 1:
            raise UserError(f"brightness_jitter = {self.brightness_jitter}: must be in [0, 1); use 0.1")

    @property
    def paired_clips(self) -> bool:
        """Whether clips 2i and 2i + 1 must come from one video."""
        return self.within_video_weight > 0


@dataclass(frozen=True, slots=True)
class ObjectiveTerms:
    """The loss and its parts."""

    loss: Tensor
    """Scalar to minimise."""
    prediction: Tensor
    """Mean squared error per latent entry."""
    persistence: Tensor
    """The same error of the guess that nothing moves."""
    regulariser: Tensor
    """SIGReg of the latents, unweighted."""
    within_video: Tensor
    """SIGReg of the differences between moments of one video, unweighted."""
    reconstruction: Tensor
    """Mean squared error of the observed frames' decoded pixels, unweighted; 0 where nothing is decoded."""


class FuturePredictor(nn.Module):
    """Guesses the next frame's latents from two; at initialisation it guesses that nothing moves."""

    def __init__(self, latent_width: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            self.layers = nn.Sequential(
                nn.Linear(2 * latent_width, width),
                nn.SiLU(),
                nn.Linear(width, width),
                nn.SiLU(),
                nn.Linear(width, latent_width),
            )
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.layers[-1].bias)  # type: ignore[arg-type]

    def forward(self, previous: Tensor, current: Tensor) -> Tensor:
        """Maps two latents [..., E] to the next [..., E]."""
        delta: Tensor = self.layers(torch.cat([previous, current - previous], -1))
        return current + delta


def encode_clips(network: TrainableNetwork, clips_CLhw3: Tensor) -> Tensor:
    """Encodes clips with gradients.

    Args:
        network: Trainable encoder.
        clips_CLhw3: uint8.

    Returns:
        float32 [C, L, N, D]; bfloat16 inside where the processor has it.
    """
    device = next(network.parameters()).device
    dtype = inference_dtype(device)
    with torch.autocast(device.type, dtype, enabled=dtype is torch.bfloat16):
        z_MND: Tensor = network(clips_CLhw3.flatten(0, 1).to(device))
    return z_MND.float().reshape(*clips_CLhw3.shape[:2], *z_MND.shape[1:])


def objective(z_CLND: Tensor, predictor: FuturePredictor, config: ObjectiveConfig, generator: torch.Generator) -> ObjectiveTerms:
    """Computes the loss of a batch of encoded clips.

    Args:
        z_CLND: Latents of the clips, float32; clips 2i and 2i + 1 of one video where `within_video_weight` is above 0.
        predictor: Action-free predictor.
        config: Weights and scope.
        generator: Draws SIGReg's directions.

    Returns:
        Scalars. Each pair of consecutive frames starts a roll-out to the clip's end, so the later a frame, the more
        guesses at it.
    """
    z_CLE = z_CLND.flatten(2)
    errors, still = [], []
    for ahead, predicted in enumerate(roll_out(z_CLE, predictor), start=2):
        errors.append(F.mse_loss(predicted, z_CLE[:, ahead:]))
        still.append(F.mse_loss(z_CLE[:, 1 : z_CLE.shape[1] - ahead + 1], z_CLE[:, ahead:]).detach())
    prediction = torch.stack(errors).mean()
    persistence = torch.stack(still).mean()
    regulariser = _regulariser(z_CLND, config, generator)
    within = torch.zeros_like(regulariser)
    if config.within_video_weight > 0:
        # Two independent standard normal latents differ by sqrt(2) times one.
        within = _regulariser((z_CLND[0::2] - z_CLND[1::2]) / math.sqrt(2), config, generator)
    loss = prediction + config.sigreg_weight * regulariser + config.within_video_weight * within
    return ObjectiveTerms(loss, prediction.detach(), persistence, regulariser.detach(), within.detach(), torch.zeros_like(persistence))


def roll_out(z_CLE: Tensor, predictor: FuturePredictor) -> list[Tensor]:
    """Guesses the later frames of clips from each pair of consecutive ones.

    Args:
        z_CLE: Latents of the clips.
        predictor: Action-free predictor.

    Returns:
        Guesses of the frames 2 to L - 1, [C, L - 2, E], made one step ahead; of the frames 3 to L - 1, made two steps ahead; and so on.
    """
    guesses = []
    previous, current = z_CLE[:, :-2], z_CLE[:, 1:-1]
    for _ in range(2, z_CLE.shape[1]):
        predicted = predictor(previous, current)
        guesses.append(predicted)
        # One step further; the last start has no further target.
        previous, current = current[:, :-1], predicted[:, :-1]
    return guesses


def _regulariser(z_CLND: Tensor, config: ObjectiveConfig, generator: torch.Generator) -> Tensor:
    directions = config.sigreg_directions
    if config.sigreg_scope == "frame":
        return sigreg(z_CLND.flatten(0, 1).flatten(1), generator=generator, directions=directions)
    each = [
        sigreg(z_CLND[:, :, token].flatten(0, 1), generator=generator, directions=max(1, directions // z_CLND.shape[2]))
        for token in range(z_CLND.shape[2])
    ]
    return torch.stack(each).mean()


def jitter_brightness(frames_CLhw3: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Changes gain and offset of each colour of each clip, the same in all its frames; uint8 in, uint8 out."""
    if amount == 0:
        return frames_CLhw3
    draw = 2 * torch.rand(2, frames_CLhw3.shape[0], 1, 1, 1, 3, generator=generator) - 1
    gain, offset = 1 + amount * draw[0], 255 * amount * draw[1] / 2
    return (frames_CLhw3 * gain + offset).clamp_(0, 255).to(torch.uint8)
