"""Small worlds for the tests of policies: a point that actions move, seen as numbers; an encoder of averages."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from goalward.policies.base import PolicyDescription
from goalward.policies.checkpoint import build_network
from goalward.policies.policy import LatentPolicy
from goalward.policies.registry import KINDS
from goalward.wm.base import EnvSignature
from goalward.wm.checkpoint import EncoderReference
from goalward.wm.latents import LatentEpisodes
from goalward.wm.predictor import PredictorConfig

SMALL = PredictorConfig(width=16, depth=1, heads=2, context_frames=2, horizon=3)


class AverageEncoder:
    """Means of the halves' colours, mapped to a width of 4 by fixed numbers."""

    name, licence, image_size_px, tokens_per_view, dim = "average", "Apache-2.0", 8, 2, 4

    def __init__(self) -> None:
        self.weights = torch.sin(torch.arange(12.0)).reshape(3, 4)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.weights.numpy().tobytes()).hexdigest()

    def encode(self, frames: Any) -> torch.Tensor:
        pixels = torch.as_tensor(np.asarray(frames)).float() / 255
        return pixels.reshape(len(pixels), 2, 32, 3).mean(2) @ self.weights


def _walks(episodes: int, steps: int = 12, *, seed: int = 0, speed: float = 0.05) -> LatentEpisodes:
    """A point in the plane that moves by exactly its action: z' = z + a, in both of two tokens; actions are even in a box."""
    generator = torch.Generator().manual_seed(seed)
    actions = speed * (2 * torch.rand(episodes, steps + 1, 2, generator=generator) - 1)
    start = torch.rand(episodes, 1, 2, generator=generator) - 0.5
    place = start + torch.cat([torch.zeros(episodes, 1, 2), actions[:, :-1].cumsum(1)], dim=1)
    actions[:, -1] = 0.0
    z = torch.stack([place, 2 * place.flip(-1)], dim=2)
    return LatentEpisodes(
        z_FND=z.reshape(-1, 2, 2),
        actions_FA=actions.reshape(-1, 2),
        proprio_FP=place.reshape(-1, 2).clone(),
        first=torch.arange(episodes + 1) * (steps + 1),
    )


@pytest.fixture
def walks() -> Callable[..., LatentEpisodes]:
    """Makes episodes: `walks(episodes, steps, seed=0)`."""
    return _walks


@pytest.fixture
def encoder() -> AverageEncoder:
    """An encoder without weights on disk."""
    return AverageEncoder()


@pytest.fixture
def make_description() -> Callable[..., PolicyDescription]:
    """Makes the description of a small policy of a kind."""

    def make(kind: str, **changes: Any) -> PolicyDescription:
        options = KINDS[kind].options()
        given: dict[str, Any] = {
            "kind": kind,
            "network": SMALL,
            "proprio": False,
            "options": dataclasses.asdict(options),
            "num_tokens": 4,
            "dim": 4,
            "env": EnvSignature(
                env="Goalward/Point-v0",
                cameras=("front", "side"),
                image_size_px=8,
                dt_s=0.2,
                action_names=("dx_m", "dy_m"),
                action_low=(-0.05, -0.05),
                action_high=(0.05, 0.04),
                proprio_names=("ee_x_m", "ee_y_m", "ee_z_m"),
            ),
            "encoder": EncoderReference(name="average", fingerprint=AverageEncoder().fingerprint, shipped=False),
            "latent_scale": 0.3,
            "action_mean": (0.0, 0.01),
            "action_std": (0.03, 0.02),
            "proprio_mean": (0.0, 0.0, 0.0),
            "proprio_std": (1.0, 1.0, 1.0),
            "data_hash": "cd" * 32,
            "training": {"held_out": {"loss": 0.5}},
            "versions": {"torch": "2"},
        }
        return PolicyDescription(**(given | changes))

    return make


@pytest.fixture
def make_policy(make_description, encoder) -> Callable[..., LatentPolicy]:
    """Makes a policy with random weights everywhere, the last layer included."""

    def make(kind: str, *, seed: int = 0, **changes: Any) -> LatentPolicy:
        description = make_description(kind, **changes)
        generator = torch.Generator().manual_seed(seed)
        network = build_network(description, KINDS[kind].options(), generator)
        with torch.no_grad():
            for parameter in network.parameters():
                if not parameter.any():
                    parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        return LatentPolicy(description, network, torch.full((4, 4), 0.25), encoder)

    return make
