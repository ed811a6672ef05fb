"""A trained policy as controllers and planners see it: `load_policy("runs/reach-gcbc")`, then `encode` and `chunk`. See `base.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goalward import UserError
from goalward.policies.base import Options, PolicyDescription, PolicyFault
from goalward.policies.checkpoint import read_policy
from goalward.policies.network import PolicyNetwork
from goalward.wm.base import Encoder, EnvSignature
from goalward.wm.checkpoint import ENCODER_FOLDER
from goalward.wm.model import check_device
from goalward.wm.statistics import LatentStatistics, VectorStatistics


class LatentPolicy:
    """A frozen encoder and a trained network with the statistics that belong to them; float32 throughout."""

    def __init__(
        self,
        description: PolicyDescription,
        network: PolicyNetwork,
        mean_ND: Tensor,
        encoder: Encoder,
        *,
        options: Options | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Joins the parts; most users call `load_policy`.

        Args:
            description: As in the checkpoint.
            network: Moved to the device, gradients off.
            mean_ND: Mean latent of the training data.
            encoder: The encoder the description names.
            options: How to act; None as trained.
            device: Where to compute.

        Raises:
            UserError: The encoder is another one than the description names.
        """
        self.description, self.encoder = description, encoder
        self.device = torch.device(device)
        self.options = options or network.options
        if encoder.fingerprint != description.encoder.fingerprint:
            raise UserError(
                f"encoder {encoder.name} has fingerprint {encoder.fingerprint[:12]}, the policy was trained with "
                f"{description.encoder.name} {description.encoder.fingerprint[:12]}; train the policy again with this encoder"
            )
        tokens = encoder.tokens_per_view * len(description.env.cameras)
        if (tokens, encoder.dim, encoder.image_size_px) != (description.num_tokens, description.dim, description.env.image_size_px):
            raise UserError(
                f"encoder {encoder.name} gives {tokens} tokens of width {encoder.dim} from {encoder.image_size_px} px, the policy takes "
                f"{description.num_tokens} of width {description.dim} from {description.env.image_size_px} px; train the policy again"
            )
        self._network = network.to(self.device).requires_grad_(False).eval()
        self._mean_ND = mean_ND
        self.latent = LatentStatistics(mean_ND=mean_ND.to(self.device), scale=description.latent_scale)
        self._action = _vector(description.action_mean, description.action_std, self.device)
        self._proprio = _vector(description.proprio_mean, description.proprio_std, self.device)
        self.action_low = torch.tensor(description.env.action_low, device=self.device)
        self.action_high = torch.tensor(description.env.action_high, device=self.device)

    @property
    def kind(self) -> str:
        """Its name in the registry."""
        return self.description.kind

    @property
    def cameras(self) -> tuple[str, ...]:
        """Camera names in the order of the views."""
        return self.description.env.cameras

    @property
    def image_size_px(self) -> int:
        """Side of the square frames, pixels."""
        return self.description.env.image_size_px

    @property
    def context_frames(self) -> int:
        """T, observed frames that a chunk starts from."""
        return self.description.network.context_frames

    @property
    def horizon(self) -> int:
        """H, actions in a chunk."""
        return self.description.network.horizon

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

    def adjusted(self, **changes: Any) -> LatentPolicy:
        """The same policy, sharing its weights, that acts in another way.

        Raises:
            UserError: An option that its kind lacks, that training has fixed, or that is out of range.
        """
        options = self.options.adjusted(**changes)
        return LatentPolicy(self.description, self._network, self._mean_ND, self.encoder, options=options, device=self.device)

    @torch.no_grad()
    def encode(self, pixels: Tensor | NDArray[np.uint8]) -> Tensor:
        """Encodes observations or goals.

        Args:
            pixels: uint8 [B, V, h, w, 3].

        Returns:
            z_BND, normalised, float32.

        Raises:
            UserError: Another dtype or shape.
        """
        size, views = self.image_size_px, len(self.cameras)
        dtype, shape = str(pixels.dtype).removeprefix("torch."), tuple(pixels.shape)
        if dtype != "uint8" or len(shape) != 5 or shape[1:] != (views, size, size, 3):
            raise UserError(
                f"pixels are {dtype} of shape {list(shape)}, must be uint8 [B, {views}, {size}, {size}, 3], {', '.join(self.cameras)}; "
                f"make the environment with image_size_px={size} and cameras={self.cameras}"
            )
        tokens = self.encoder.encode(pixels.reshape(-1, size, size, 3)).to(self.device, torch.float32)
        return self.latent.normalise(tokens.reshape(shape[0], -1, self.description.dim))

    @torch.no_grad()
    def chunk(
        self,
        z_BTND: Tensor,
        z_goal_BND: Tensor,
        *,
        proprio_BP: Tensor | None = None,
        generator: torch.Generator | None = None,
        num_samples: int = 1,
    ) -> Tensor:
        """Proposes actions; see `base.Policy`.

        Args:
            z_BTND: Latents of the last T frames, from `encode`, the oldest first.
            z_goal_BND: Latents of the goal.
            proprio_BP: SI units; needed by a policy trained with it, ignored by others.
            generator: On the CPU; it advances.
            num_samples: S.

        Returns:
            actions_BSHA, float32, physical units, inside the action bounds; the first sample is the one to execute.

        Raises:
            UserError: Another shape, proprioception or a generator missing, no sample asked for.
            PolicyFault: Latents, proprioception or actions are not finite; names the problems.
        """
        self._check(z_BTND, z_goal_BND, proprio_BP, num_samples)
        z_BTND, z_goal_BND = (z.to(self.device, torch.float32) for z in (z_BTND, z_goal_BND))
        given = [z_BTND, z_goal_BND]
        if not self.description.proprio:
            proprio_BP = None
        elif proprio_BP is not None:
            proprio_BP = self._proprio.normalise(proprio_BP.to(self.device, torch.float32))
            given.append(proprio_BP)
        _refuse("the latents" if proprio_BP is None else "the latents or the proprioception", given)
        actions_BSHA = self._network.act(z_BTND, z_goal_BND, proprio_BP, options=self.options, generator=generator, num_samples=num_samples)
        actions_BSHA = self._action.denormalise(actions_BSHA)
        _refuse("the actions", [actions_BSHA])
        return torch.clamp(actions_BSHA, self.action_low, self.action_high)

    def check_env(self, info: object) -> None:
        """Makes sure that an environment or a dataset is of the kind this policy was trained on.

        Args:
            info: `env.unwrapped.spec_info`, a dataset's `spec`, an `EnvSignature`, or a mapping with the same entries.

        Raises:
            UserError: It is not; names every difference.
        """
        if faults := self.description.env.mismatches(info if isinstance(info, EnvSignature) else EnvSignature.of(info)):
            raise UserError(f"the policy does not suit this environment: {'; '.join(faults)}; choose or train a policy for it")

    def _check(self, z_BTND: Tensor, z_goal_BND: Tensor, proprio_BP: Tensor | None, num_samples: int) -> None:
        frame = (self.description.num_tokens, self.description.dim)
        B = z_BTND.shape[0] if z_BTND.ndim else 0
        if tuple(z_BTND.shape) != (B, self.context_frames, *frame):
            sizes = ", ".join(map(str, (self.context_frames, *frame)))
            raise UserError(f"latents have shape {list(z_BTND.shape)}, must be [B, {sizes}]; repeat the first frame at a start")
        if tuple(z_goal_BND.shape) != (B, *frame):
            raise UserError(f"goal latents have shape {list(z_goal_BND.shape)}, must be {[B, *frame]}; give one goal per problem")
        if self.description.proprio:
            expected = [B, len(self.proprio_names)]
            if proprio_BP is None or list(proprio_BP.shape) != expected:
                given = "none" if proprio_BP is None else str(list(proprio_BP.shape))
                names = ", ".join(self.proprio_names)
                raise UserError(f"proprio: {given} given, and this policy was trained with it; give {expected}, {names}")
        if num_samples < 1:
            raise UserError(f"num_samples is {num_samples}; must be at least 1")


def load_policy(folder: str | Path, device: torch.device | str = "cpu", *, encoder: Encoder | None = None, **options: Any) -> LatentPolicy:
    """Loads a policy; see `goalward.policies.load_policy`."""
    from goalward.wm.encoders import load_encoder

    check_device(device)
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"policy {json.dumps(str(folder))}: no such folder; goalward imitate writes one")
    description, network, mean_ND = read_policy(path)
    if encoder is None:
        origin: Any = description.encoder.name if description.encoder.shipped else path / ENCODER_FOLDER
        encoder = load_encoder(origin, device=device)
    policy = LatentPolicy(description, network, mean_ND, encoder, device=device)
    return policy.adjusted(**options) if options else policy


def _vector(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> VectorStatistics:
    return VectorStatistics(mean=torch.tensor(mean, device=device), std=torch.tensor(std, device=device))


def _refuse(what: str, tensors: list[Tensor]) -> None:
    """Raises if anything is not finite."""
    finite_B = torch.stack([torch.isfinite(tensor).flatten(1).all(1) for tensor in tensors]).all(0)
    if not bool(finite_B.all()):
        problems = ", ".join(map(str, (~finite_B).nonzero().flatten().tolist()))
        raise PolicyFault(f"{what} are not finite (problem {problems})")
