"""V-JEPA 2-AC as a world model that planners can use: pixels and poses in, physical actions in, layer-normalised patch tokens out.

Letters in array names: B problems, S candidates, H horizon steps, T context frames, V camera views (always one), N patch tokens, D width,
A = P = 7 entries of actions and states.

    z_BND   = model.encode(pixels_BVhw3)
    context = model.with_proprio(states_BTP).prime(z_BTND)      where the end effector is, and was
    z_BSHND = model.rollout(context, actions_BSHA)

Unlike our own predictor this one is told the robot's state. Actions between observed frames are the differences of their states, which is
what it was trained on: the achieved ones, not the commands.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goalward import UserError
from goalward.wm.base import Encoder, inference_dtype
from goalward.wm.vjepa2_ac.config import EXTRINSICS_DIM, STATE_DIM
from goalward.wm.vjepa2_ac.context import ACContext
from goalward.wm.vjepa2_ac.latents import layer_normalised
from goalward.wm.vjepa2_ac.poses import pose_difference
from goalward.wm.vjepa2_ac.predictor import VJepa2ACPredictor

ACTION_NAMES = ("dx_m", "dy_m", "dz_m", "droll_rad", "dpitch_rad", "dyaw_rad", "dclosedness")
PROPRIO_NAMES = ("ee_x_m", "ee_y_m", "ee_z_m", "ee_roll_rad", "ee_pitch_rad", "ee_yaw_rad", "gripper_closedness")


@dataclass(frozen=True, kw_only=True, slots=True)
class VJepa2ACModelConfig:
    """How the predictor is used."""

    camera: str = "exterior"
    """Name of the one camera; DROID's left exterior one in training."""
    context_frames: int = 1
    """T, observed frames that a plan starts from; the published planner uses 1."""
    max_step_m: float = 0.075
    """Largest displacement along each axis per action, metres."""
    max_turn_rad: float = 0.0
    """Largest turn about each axis per action, radians; the published planner never turns."""
    max_grip: float = 0.75
    """Largest change of the gripper's closedness per action."""
    dt_s: float = 0.25
    """Duration of one action, seconds; the model was trained at 4 Hz."""
    extrinsics_E: tuple[float, ...] | None = None
    """Pose of the camera, 3 metres and 3 radians, for a predictor that uses it."""

    def __post_init__(self) -> None:
        """Checks every field."""
        if not 1 <= self.context_frames <= 64:
            raise UserError(f"context_frames is {self.context_frames}; must lie in 1 .. 64")
        for name, limit in (("max_step_m", 1.0), ("max_turn_rad", 3.1), ("max_grip", 1.0)):
            if not 0.0 <= getattr(self, name) <= limit:
                raise UserError(f"{name} is {getattr(self, name)}; must lie in 0 .. {limit}")
        if not 0.0 < self.dt_s <= 10.0:
            raise UserError(f"dt_s is {self.dt_s}; must lie in (0, 10]")
        if self.extrinsics_E is not None and len(self.extrinsics_E) != EXTRINSICS_DIM:
            raise UserError(f"extrinsics_E has {len(self.extrinsics_E)} entries; must have {EXTRINSICS_DIM}: x, y, z, roll, pitch, yaw")


class VJepa2ACModel:
    """A frozen encoder and V-JEPA 2-AC's predictor, in the shape of `goalward.planners.base.WorldModel`."""

    def __init__(
        self,
        predictor: VJepa2ACPredictor,
        encoder: Encoder,
        config: VJepa2ACModelConfig | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        """Joins the parts.

        Args:
            predictor: From `folder.read_predictor`; moved to the device in place.
            encoder: V-JEPA 2's, giving rows * columns patch tokens per frame, each frame doubled to one tubelet.
            config: How it is used.
            device: Where to predict.
            dtype: Precision inside the predictor; None picks bfloat16 where the hardware is fast at it. Latents and costs are float32.

        Raises:
            UserError: Encoder and predictor do not fit.
        """
        self.config = c = config or VJepa2ACModelConfig()
        sizes = predictor.config
        if (encoder.tokens_per_view, encoder.dim) != (sizes.num_patches, sizes.dim):
            raise UserError(
                f"encoder {encoder.name} gives {encoder.tokens_per_view} tokens of width {encoder.dim}, the predictor takes "
                f"{sizes.num_patches} of width {sizes.dim}; choose the encoder that it was trained with (ViT-g at 256 px: 256 of 1408)"
            )
        if sizes.extrinsics != (c.extrinsics_E is not None):
            raise UserError(
                f"extrinsics_E is {c.extrinsics_E}, and the predictor {'needs' if sizes.extrinsics else 'does not take'} the camera's pose"
            )
        self.device = torch.device(device)
        self.dtype = dtype or inference_dtype(self.device)
        self.encoder = encoder
        self.predictor = predictor.to(self.device, self.dtype).requires_grad_(False)
        high = [c.max_step_m] * 3 + [c.max_turn_rad] * 3 + [c.max_grip]
        self.action_high = torch.tensor(high, dtype=torch.float32, device=self.device)
        self.action_low = -self.action_high
        self._states_BTP: Tensor | None = None

    @property
    def cameras(self) -> tuple[str, ...]:
        """The one camera."""
        return (self.config.camera,)

    @property
    def image_size_px(self) -> int:
        """Side of the square frames, pixels."""
        return self.encoder.image_size_px

    @property
    def context_frames(self) -> int:
        """T."""
        return self.config.context_frames

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the A action entries."""
        return ACTION_NAMES

    @property
    def proprio_names(self) -> tuple[str, ...]:
        """Names of the P entries of a state."""
        return PROPRIO_NAMES

    @property
    def dt_s(self) -> float:
        """Duration of one action, seconds."""
        return self.config.dt_s

    @torch.no_grad()
    def encode(self, pixels: Tensor | NDArray[np.uint8]) -> Tensor:
        """Encodes observations.

        The tokens are layer-normalised here, as the public code does after its encoder. Tokens that are so already change by 1e-5 at most.

        Args:
            pixels: uint8 [B, 1, h, w, 3].

        Returns:
            z_BND, float32.

        Raises:
            UserError: Another dtype or shape.
        """
        size, dtype, shape = self.image_size_px, str(pixels.dtype).removeprefix("torch."), tuple(pixels.shape)
        if dtype != "uint8" or len(shape) != 5 or shape[1:] != (1, size, size, 3):
            raise UserError(f"pixels are {dtype} of shape {list(shape)}; must be uint8 [B, 1, {size}, {size}, 3] of {self.config.camera}")
        return layer_normalised(self.encoder.encode(pixels[:, 0]).to(self.device))

    def with_proprio(self, states_BTP: Tensor | NDArray[np.float32]) -> VJepa2ACModel:
        """The same model, told where the end effector was in each of the T observed frames; weights are shared.

        Args:
            states_BTP: As `poses.py` says: metres, radians, closedness; the newest last.

        Raises:
            UserError: Another shape, or values that are not finite.
        """
        states_BTP = torch.as_tensor(states_BTP).to(self.device, torch.float32)
        if states_BTP.ndim != 3 or states_BTP.shape[1:] != (self.context_frames, STATE_DIM):
            raise UserError(
                f"proprio has shape {list(states_BTP.shape)}; must be [B, {self.context_frames}, {STATE_DIM}]: {', '.join(PROPRIO_NAMES)}"
            )
        if not bool(torch.isfinite(states_BTP).all()):
            raise UserError("proprio holds values that are not finite; give the measured state of every frame")
        told = copy.copy(self)
        told._states_BTP = states_BTP
        return told

    @torch.no_grad()
    def prime(self, z_BTND: Tensor) -> ACContext:
        """Digests the observed frames, oldest first.

        Raises:
            UserError: Another shape, or the state of the end effector is not known (`with_proprio`).
        """
        expected = (self.context_frames, self.predictor.config.num_patches, self.predictor.config.dim)
        if z_BTND.ndim != 4 or tuple(z_BTND.shape[1:]) != expected:
            sizes = ", ".join(map(str, expected))
            raise UserError(f"latents have shape {list(z_BTND.shape)}, must be [B, {sizes}]; repeat the first frame at a start")
        states = self._states_BTP
        if states is None or len(states) != len(z_BTND):
            known = "nothing" if states is None else f"that of {len(states)} problems"
            raise UserError(f"proprio: the state of {len(z_BTND)} end effectors is needed, {known} is known; model.with_proprio(states)")
        actions_BUA = pose_difference(states[:, :-1], states[:, 1:])
        extrinsics = self.config.extrinsics_E
        extrinsics_BTE = None if extrinsics is None else torch.tensor(extrinsics, device=self.device).expand(*states.shape[:2], -1)
        return self.predictor.prime(z_BTND.to(self.device, torch.float32), states, actions_BUA, extrinsics_BTE)

    def rollout(self, context: ACContext, actions_BSHA: Tensor) -> Tensor:
        """Predicts the patch tokens after each action of each candidate.

        Args:
            context: From `prime`, of B problems.
            actions_BSHA: Metres, radians, closedness.

        Returns:
            z_BSHND, layer-normalised, float32; carries gradients if the actions do.

        Raises:
            UserError: Another shape.
        """
        if actions_BSHA.ndim != 4 or actions_BSHA.shape[0] != context.num_problems or actions_BSHA.shape[3] != STATE_DIM:
            raise UserError(f"actions have shape {list(actions_BSHA.shape)}, must be [{context.num_problems}, S, H, {STATE_DIM}]")
        return self.predictor.rollout(context, actions_BSHA.to(self.device, torch.float32))
