"""The world model as planners and users see it: pixels in, physical actions in, normalised latents out. Start here: `load_model("reach")`.

Letters in array names: B problems, S candidates, H horizon steps, T context frames, V camera views, N tokens per frame (all views together,
in camera order), D latent width, A action dimensions.

    z_BND   = model.encode(pixels_BVhw3)
    context = model.prime(z_BTND)                  once per plan: no action enters, all candidates share it
    z_BSHND = model.rollout(context, actions_BSHA) actions in physical units; differentiable with respect to them
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goalward import UserError
from goalward.wm.base import Encoder, EnvSignature, inference_dtype
from goalward.wm.calibration import Calibration, read_calibration
from goalward.wm.checkpoint import ENCODER_FOLDER, MODEL_JSON, ModelDescription, read_model
from goalward.wm.compiled import CompiledRollout
from goalward.wm.decoder import Decoder
from goalward.wm.decoder_folder import read_decoder
from goalward.wm.invariance import parts_of_batch
from goalward.wm.planning_defaults import PlanningDefaults, read_planning
from goalward.wm.predictor import LatentPredictor, PredictorContext
from goalward.wm.statistics import LatentStatistics, VectorStatistics

_WORTH_COMPILING = 8
"""Fewer candidates are rolled out as they are: a controller looks at a few for delays, and must not wait for a compiler then."""
_WEIGHTS = Path(__file__).resolve().parent / "weights"


class WorldModel:
    """A frozen encoder and a trained predictor with the statistics that belong to them."""

    def __init__(
        self,
        description: ModelDescription,
        predictor: LatentPredictor,
        mean_ND: Tensor,
        encoder: Encoder,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        compiled: bool = False,
    ) -> None:
        """Joins the parts; most users call `load_model`.

        Args:
            description: As in the checkpoint.
            predictor: Float32 weights; a copy in `dtype` is kept.
            mean_ND: Mean latent of the training data.
            encoder: The encoder the description names.
            device: Where to predict.
            dtype: Precision inside the predictor; None picks bfloat16 where the hardware is fast at it. Latents are float32 anyway.
            compiled: Compile rollouts without gradients for their exact shape, see `wm/compiled.py`.

        Raises:
            UserError: The encoder is another one than the description names.
        """
        self.description = description
        self.calibration: Calibration | None = None
        self.planning: PlanningDefaults | None = None
        self.folder: Path | None = None
        self.decoder: Decoder | None = None
        self.device = torch.device(device)
        self.dtype = dtype or inference_dtype(self.device)
        tokens = encoder.tokens_per_view * len(description.env.cameras)
        if encoder.fingerprint != description.encoder.fingerprint:
            raise UserError(
                f"encoder {encoder.name} has fingerprint {encoder.fingerprint[:12]}, the model was trained with "
                f"{description.encoder.name} {description.encoder.fingerprint[:12]}; train the model again with this encoder"
            )
        if (tokens, encoder.dim, encoder.image_size_px) != (description.num_tokens, description.dim, description.env.image_size_px):
            raise UserError(
                f"encoder {encoder.name} gives {tokens} tokens of width {encoder.dim} from {encoder.image_size_px} px, the model takes "
                f"{description.num_tokens} of width {description.dim} from {description.env.image_size_px} px; train the model again"
            )
        self.encoder = encoder
        self._predictor = LatentPredictor(
            description.predictor, num_tokens=description.num_tokens, dim=description.dim, action_dim=len(description.env.action_names)
        )
        self._predictor.load_state_dict(predictor.state_dict())
        self._predictor.to(self.device, self.dtype).requires_grad_(False)
        self._compiled = CompiledRollout(self._predictor, self.device) if compiled else None
        self._latent = LatentStatistics(mean_ND=mean_ND.to(self.device), scale=description.latent_scale)
        self._action = VectorStatistics(
            mean=torch.tensor(description.action_mean, device=self.device), std=torch.tensor(description.action_std, device=self.device)
        )
        self.action_low = torch.tensor(description.env.action_low, device=self.device)
        self.action_high = torch.tensor(description.env.action_high, device=self.device)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Camera names in the order of the views."""
        return self.description.env.cameras

    @property
    def num_views(self) -> int:
        """V."""
        return len(self.cameras)

    @property
    def image_size_px(self) -> int:
        """Side of the square frames, pixels."""
        return self.description.env.image_size_px

    @property
    def context_frames(self) -> int:
        """T, observed frames that a plan starts from."""
        return self.description.predictor.context_frames

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the A action entries."""
        return self.description.env.action_names

    @property
    def proprio_names(self) -> tuple[str, ...]:
        """Names of the P proprioception entries of the training data."""
        return self.description.env.proprio_names

    @property
    def dt_s(self) -> float:
        """Duration of one action, seconds."""
        return self.description.env.dt_s

    @torch.no_grad()
    def encode(self, pixels: Tensor | NDArray[np.uint8]) -> Tensor:
        """Encodes observations.

        Args:
            pixels: uint8 [B, V, h, w, 3].

        Returns:
            z_BND, normalised, float32.

        Raises:
            UserError: Another dtype or shape.
        """
        size, dtype = self.image_size_px, str(pixels.dtype).removeprefix("torch.")
        if dtype != "uint8":
            raise UserError(f"pixels are {dtype}, must be uint8 in 0 .. 255; pass the camera's frames as they are")
        shape = tuple(pixels.shape)
        if len(shape) != 5 or shape[1:] != (self.num_views, size, size, 3):
            raise UserError(
                f"pixels have shape {list(shape)}, must be [B, {self.num_views}, {size}, {size}, 3]: views {', '.join(self.cameras)}; "
                f"make the environment with image_size_px={size} and cameras={self.cameras}"
            )
        frames = pixels.reshape(-1, size, size, 3)
        tokens = self.encoder.encode(frames).to(self.device, torch.float32)
        return self.normalise(tokens.reshape(shape[0], -1, self.description.dim))

    def normalise(self, z_BND: Tensor) -> Tensor:
        """Turns latents as the encoder gives them, all views together, into those that the model predicts."""
        return self._latent.normalise(z_BND)

    def denormalise(self, z_BND: Tensor) -> Tensor:
        """Undoes `normalise`: latents as the encoder gives them."""
        return self._latent.denormalise(z_BND)

    def decode(self, z_BND: Tensor) -> Tensor:
        """Turns normalised latents back into pictures, where the encoder was trained to predict pixels; differentiable.

        Args:
            z_BND: All views together; any axes before.

        Returns:
            Brightness, nominally 0 to 1, float32 [..., V, h, w, 3].

        Raises:
            UserError: The model has no decoder.
        """
        if self.decoder is None:
            raise UserError(
                f"encoder {self.encoder.name} has no decoder: it never predicted pixels; pretrain one with --objective pixels"
            )
        return self.decoder.decode(self.denormalise(z_BND))

    @torch.no_grad()
    def prime(self, z_BTND: Tensor) -> PredictorContext:
        """Digests the observed frames, oldest first; `context_frames` of them.

        Raises:
            UserError: Another shape.
        """
        expected = (self.context_frames, self.description.num_tokens, self.description.dim)
        if z_BTND.ndim != 4 or tuple(z_BTND.shape[1:]) != expected:
            sizes = ", ".join(map(str, expected))
            raise UserError(f"latents have shape {list(z_BTND.shape)}, must be [B, {sizes}]; repeat the first frame at a start")
        z_BTND = z_BTND.to(self.device, torch.float32)
        parts = self._parts(len(z_BTND), expected[0] * expected[1])
        if parts is None:
            return self._predictor.prime(z_BTND)
        context = PredictorContext.join([self._predictor.prime(z_BTND[part]) for part in parts])
        return context if context.num_problems == len(z_BTND) else context.take(list(range(len(z_BTND))))

    def rollout(
        self, context: PredictorContext, actions_BSHA: Tensor, *, tokens: Tensor | None = None, layers: int | None = None
    ) -> Tensor:
        """Predicts the latents after each action of each candidate.

        On a CPU, what is predicted for a problem does not depend on the other problems of the batch, to the last bit.

        Args:
            context: From `prime`, of B problems.
            actions_BSHA: Physical units.
            tokens: Predict these tokens of a frame alone, int64 [n]: cheaper and coarser, since they no longer see the others; None
                predicts all N.
            layers: Run the predictor's first layers alone, so many of them, coarser still; None runs all.

        Returns:
            z_BSHND, normalised, float32; carries gradients if the actions do. With `tokens`, N is n.

        Raises:
            UserError: Another shape.
        """
        actions = len(self.action_names)
        if actions_BSHA.ndim != 4 or actions_BSHA.shape[0] != context.num_problems or actions_BSHA.shape[3] != actions:
            raise UserError(f"actions have shape {list(actions_BSHA.shape)}, must be [{context.num_problems}, S, H, {actions}]")
        actions_BSHA = self._action.normalise(actions_BSHA.to(self.device, torch.float32))
        num_tokens = self.description.num_tokens if tokens is None else len(tokens)
        parts = self._parts(context.num_problems, actions_BSHA.shape[1] * num_tokens)
        if self._compiled is not None and self.device.type == "cpu":  # Compiled code of another shape may round differently.
            parts = [[problem] for problem in range(context.num_problems)]
        if parts is None:
            return self._rolled(context, actions_BSHA, tokens, layers)
        rolled = [self._rolled(context.take(part), actions_BSHA[part], tokens, layers) for part in parts]
        return torch.cat(rolled)[: context.num_problems]

    @torch.no_grad()
    def imagine(self, context: PredictorContext, act: Callable[[list[Tensor]], Tensor], horizon: int) -> tuple[Tensor, Tensor]:
        """Rolls forward a policy that decides each action from what has been predicted so far: a closed loop in imagination.

        Args:
            context: From `prime`, of one problem.
            act: Gives the next action of each candidate, [S, A], physical units, from the frames predicted so far, each z_SND, the oldest
                first; of none at all, the first action. S is what it says at first.
            horizon: H.

        Returns:
            The actions [1, S, H, A], physical units, and the predictions z_1SHND, normalised, both float32.

        Raises:
            UserError: Another number of problems, or actions of another shape.
        """
        if context.num_problems != 1:
            raise UserError(f"context: {context.num_problems} problems; imagine one at a time, so that no problem depends on others")
        if horizon < 1:
            raise UserError(f"horizon: {horizon} is not allowed; give at least 1 step")
        frames: list[Tensor] = []
        actions: list[Tensor] = []
        while len(frames) < horizon:
            action_SA = act(frames).to(self.device, torch.float32)
            if action_SA.ndim != 2 or action_SA.shape[1] != len(self.action_names) or (actions and action_SA.shape != actions[0].shape):
                raise UserError(f"act: gave actions of shape {list(action_SA.shape)}; must be [S, {len(self.action_names)}] at every step")
            actions.append(action_SA)
            normalised_1SA = self._action.normalise(action_SA)[None]
            if not frames:
                rollout, z_1SND = self._predictor.start(context, normalised_1SA[:, :, None]), context.z_BND[:, None]
            else:
                rollout.steer(normalised_1SA)
            z_1SND = rollout.step(z_1SND)
            frames.append(z_1SND[0])
        return torch.stack(actions, dim=1)[None], torch.stack(frames, dim=1)[None]

    def _rolled(self, context: PredictorContext, actions_BSHA: Tensor, tokens: Tensor | None, layers: int | None) -> Tensor:
        few = actions_BSHA.shape[1] < _WORTH_COMPILING
        if self._compiled is None or few or torch.is_grad_enabled() or tokens is not None or layers is not None:
            return self._predictor.rollout(context, actions_BSHA, tokens=tokens, layers=layers)
        return self._compiled(context, actions_BSHA)

    def _parts(self, num_problems: int, num_rows: int) -> list[list[int]] | None:
        return parts_of_batch(num_problems, num_rows, self._predictor.widths, device=self.device, dtype=self.dtype)

    def check_env(self, info: object) -> None:
        """Makes sure that an environment or a dataset is of the kind this model was trained on.

        Args:
            info: `env.unwrapped.spec_info`, a dataset's `spec`, an `EnvSignature`, or a mapping with the same entries.

        Raises:
            UserError: It is not; names every difference.
        """
        if faults := self.description.env.mismatches(info if isinstance(info, EnvSignature) else EnvSignature.of(info)):
            raise UserError(f"the model does not suit this environment: {'; '.join(faults)}; choose or train a model for it")


def shipped_models() -> tuple[str, ...]:
    """Names of the models in the package."""
    return tuple(sorted(path.parent.name for path in _WEIGHTS.glob(f"*/{MODEL_JSON}")))


def load_model(
    name_or_path: str | Path,
    device: torch.device | str = "cpu",
    *,
    dtype: torch.dtype | None = None,
    compiled: bool = False,
    calibrated: bool = True,
    encoder: str | Path | None = None,
) -> WorldModel:
    """Loads a world model.

    Args:
        name_or_path: Name of a model in the package, such as "reach", or a folder written by `goalward train`.
        device: "cpu", "cuda", ...
        dtype: Precision inside the predictor; None picks bfloat16 where the hardware is fast at it.
        compiled: Compile rollouts without gradients for their exact shape, and a pretrained encoder: tens of seconds once per shape, then
            faster.
        calibrated: Read the calibration too, where there is one; False leaves it alone.
        encoder: Where the weights of a pretrained encoder are now (folder, or hub id with its commit); None: where they were in training.

    Raises:
        UserError: Unknown name, no such folder, or a folder that is damaged (everything found wrong, in one line).
    """
    from goalward.wm.encoders import load_encoder

    check_device(device)
    folder = model_folder(name_or_path)
    description, predictor, mean_ND = read_model(folder)
    origin: Any = description.encoder.name if description.encoder.shipped else folder / ENCODER_FOLDER
    if encoder is not None and description.encoder.shipped:
        raise UserError(f"encoder: model {folder} uses {description.encoder.name}, which ships with the package; leave --encoder out")
    frozen = load_encoder(origin, device=device, at=encoder, compiled=compiled)
    model = WorldModel(description, predictor, mean_ND, frozen, device=device, dtype=dtype, compiled=compiled)
    model.calibration = read_calibration(folder) if calibrated else None
    model.planning = read_planning(folder)
    model.folder = folder
    if not description.encoder.shipped:
        model.decoder = read_decoder(folder / ENCODER_FOLDER, encoder=frozen.fingerprint, device=device)
    return model


def check_device(device: torch.device | str) -> torch.device:
    """Makes sure that a device exists on this machine.

    Raises:
        UserError: It does not; names those that do.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch's choice depends on how it was built
        have = ["cpu"] + (["cuda"] if torch.cuda.is_available() else []) + (["mps"] if torch.backends.mps.is_available() else [])
        raise UserError(f"device {str(device)!r} is not available here; choose {' or '.join(have)}") from error
    return found


def model_folder(name_or_path: str | Path) -> Path:
    """Finds a model of the package by name, or a folder.

    Raises:
        UserError: Neither.
    """
    names = shipped_models()
    if str(name_or_path) in names:
        return _WEIGHTS / str(name_or_path)
    path = Path(name_or_path)
    if path.is_dir():
        return path
    near = difflib.get_close_matches(str(name_or_path), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"models in the package: {', '.join(names) or 'none'}"
    raise UserError(f"model {json.dumps(str(name_or_path))}: neither a model of the package nor a folder; {hint}")
