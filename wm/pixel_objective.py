"""The generative control of the joint-embedding objective: the same encoder, trained to predict pixels instead of latents.

Letters: C clips, L frames per clip, N tokens per frame, D latent width, E = N D, K decoded frames per clip.

    z_t = encoder(frame_t)      loss = mean |decoder(predicted z_{t+k}) - frame_{t+k}|^2  +  weight * mean |decoder(z_t) - frame_t|^2

Everything else is `pretrain_objective.py`'s: the clips, in the same order, the action-free predictor and its roll-outs, the optimiser and
its settings. What predictions are compared with is the only difference, so whatever differs in the end is the objective's doing. Latents
that decode to different frames cannot be the same, so no regulariser is needed; and the latents predicted of a frame need not be those it
is encoded to, as long as both decode to it. Reconstruction and prediction through one decoder are those of Dreamer (arXiv 1912.01603),
without its stochastic part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from goalward import UserError
from goalward.wm.base import inference_dtype
from goalward.wm.decoder import DecoderConfig, DecoderNetwork
from goalward.wm.pretrain_objective import FuturePredictor, ObjectiveTerms, roll_out

_CLIPS_PER_PASS = 16  # while nothing is trained: bounds the memory of decoded frames


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelObjectiveConfig:
    """Pretraining by predicting pixels."""

    clip_frames: int = 4
    """Frames of a clip; two are observed, the others predicted."""
    reconstruction_weight: float = 1.0
    """Weight of the observed frames' error against the predicted frames'; at 0 only predictions are decoded."""
    predictor_width: int = 512
    """Hidden width of the action-free predictor, which is thrown away afterwards."""
    decoder_widths: tuple[int, int, int] = (128, 64, 32)
    """Channels of the decoder at 1/16, 1/8 and 1/4 of the resolution; multiples of 8."""
    decoder_blocks: tuple[int, int, int] = (1, 1, 1)
    """Residual blocks of the decoder at 1/16, 1/8 and 1/4 of the resolution."""
    paired_clips: bool = True
    """Draw clips in pairs from one video: the very clips that the latent objective sees with the same seed."""
    brightness_jitter: float = 0.0
    """Largest relative change of gain and offset, drawn per clip and colour; 0 switches it off."""

    def __post_init__(self) -> None:
        """Checks every field."""
        if not 3 <= self.clip_frames <= 64:
            raise UserError(f"clip_frames = {self.clip_frames}: must be in 3..64; use 4")
        if not 0 <= self.reconstruction_weight < float("inf"):
            raise UserError(f"reconstruction_weight = {self.reconstruction_weight}: must be 0 or above; use 1")
        if not 1 <= self.predictor_width <= 16384:
            raise UserError(f"predictor_width = {self.predictor_width}: must be in 1..16384; use 512")
        if not 0 <= self.brightness_jitter < 1:
            raise UserError(f"brightness_jitter = {self.brightness_jitter}: must be in [0, 1); use 0.1")
        try:
            DecoderConfig(widths=self.decoder_widths, blocks=self.decoder_blocks)
        except UserError as error:
            raise UserError(f"decoder_{error}") from error

    def decoder(self, *, image_size_px: int, dim: int) -> DecoderConfig:
        """The decoder for an encoder of this image size and latent width."""
        return DecoderConfig(image_size_px=image_size_px, dim=dim, widths=self.decoder_widths, blocks=self.decoder_blocks)


def pixel_objective(
    z_CLND: Tensor, clips_CLhw3: Tensor, predictor: FuturePredictor, decoder: DecoderNetwork, config: PixelObjectiveConfig
) -> ObjectiveTerms:
    """Computes the loss of a batch of encoded clips.

    Args:
        z_CLND: Latents of the clips, float32.
        clips_CLhw3: The clips, uint8.
        predictor: Action-free predictor.
        decoder: Trainable decoder.
        config: Weights.

    Returns:
        Scalars; errors are mean squares of brightness, 0 to 1. The regularisers are 0.
    """
    length = z_CLND.shape[1]
    z_CLE = z_CLND.flatten(2)
    frames_CLhw3 = clips_CLhw3.to(z_CLND.device).float() / 255.0
    guesses = roll_out(z_CLE, predictor)
    # A run of frames of each clip per roll-out, so many steps ahead; the reconstruction is the one of 0 steps.
    runs = dict(enumerate(guesses, start=2))
    if config.reconstruction_weight > 0:
        runs = {0: z_CLE, **runs}
    seen = [frame for ahead in runs for frame in range(ahead, length)]
    z_MND = torch.cat(list(runs.values()), dim=1).reshape(-1, *z_CLND.shape[2:])
    wanted_CKhw3 = frames_CLhw3[:, seen]
    error_CK = (decode_frames(decoder, z_MND).reshape(wanted_CKhw3.shape) - wanted_CKhw3).square().mean((2, 3, 4))
    errors = dict(zip(runs, torch.split(error_CK, [length - ahead for ahead in runs], dim=1), strict=True))
    prediction = torch.stack([errors[ahead].mean() for ahead in range(2, length)]).mean()
    reconstruction = errors[0].mean() if 0 in errors else torch.zeros_like(prediction)
    with torch.no_grad():
        still = [(frames_CLhw3[:, 1 : length - ahead + 1] - frames_CLhw3[:, ahead:]).square().mean() for ahead in range(2, length)]
        persistence = torch.stack(still).mean()
    nothing = torch.zeros_like(persistence)
    loss = prediction + config.reconstruction_weight * reconstruction
    return ObjectiveTerms(loss, prediction.detach(), persistence, nothing, nothing, reconstruction.detach())


def decode_frames(decoder: DecoderNetwork, z_MND: Tensor) -> Tensor:
    """Decodes tokens with gradients; float32 [M, h, w, 3], bfloat16 inside where the processor has it."""
    dtype = inference_dtype(z_MND.device)
    with torch.autocast(z_MND.device.type, dtype, enabled=dtype is torch.bfloat16):
        pixels: Tensor = decoder(z_MND)
    return pixels.float()


@torch.no_grad()
def held_out_pixels(
    z_CLND: Tensor, clips_CLhw3: Tensor, predictor: FuturePredictor, decoder: DecoderNetwork, config: PixelObjectiveConfig
) -> tuple[float, float]:
    """Measures prediction and persistence over many clips, a few at a time.

    Returns:
        Mean squared errors of brightness.
    """
    parts = zip(torch.split(z_CLND, _CLIPS_PER_PASS), torch.split(clips_CLhw3, _CLIPS_PER_PASS), strict=True)
    sums = torch.zeros(2)
    for z, clips in parts:
        terms = pixel_objective(z, clips, predictor, decoder, config)
        sums += len(clips) * torch.stack([terms.prediction, terms.persistence]).cpu()
    prediction, persistence = (sums / len(clips_CLhw3)).tolist()
    return prediction, persistence
