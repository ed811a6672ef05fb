"""Small worlds for the tests of the world model: a point pushed about, seen through a fixed smooth function; an encoder of averages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
import torch

from goalward.wm.base import EnvSignature
from goalward.wm.latents import LatentEpisodes


class AverageEncoder:
    """Means of the quadrants' colours, mapped to a width of 5 by fixed numbers; frozen, so that its bytes can be compared."""

    name = "average"
    licence = "Apache-2.0"
    image_size_px = 8
    tokens_per_view = 4
    dim = 5

    def __init__(self) -> None:
        self.weights = torch.sin(torch.arange(15.0)).reshape(3, 5)
        self.calls = 0

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.weights.numpy().tobytes()).hexdigest()

    def encode(self, frames):
        self.calls += 1
        pixels = torch.as_tensor(np.asarray(frames)).float() / 255
        quadrants = pixels.reshape(len(pixels), 2, 4, 2, 4, 3).mean((2, 4)).reshape(len(pixels), 4, 3)
        return quadrants @ self.weights


def _point_world(episodes: int, steps: int = 12, seed: int = 0, tokens: int = 4, dim: int = 6) -> LatentEpisodes:
    generator, fixed = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(1234)
    look = torch.randn(2, tokens * dim, generator=fixed)
    x = torch.rand(episodes, 2, generator=generator) - 0.5
    z, actions = [], []
    for _ in range(steps + 1):
        z.append(torch.tanh(x @ look) + 0.5)
        actions.append(0.05 * torch.randn(episodes, 2, generator=generator) + 0.01)
        x = x + 2 * actions[-1]
    actions[-1] = torch.zeros(episodes, 2)
    return LatentEpisodes(
        z_FND=torch.stack(z, 1).reshape(-1, tokens, dim),
        actions_FA=torch.stack(actions, 1).reshape(-1, 2),
        proprio_FP=torch.randn(episodes * (steps + 1), 3, generator=generator),
        first=torch.arange(episodes + 1) * (steps + 1),
    )


@pytest.fixture
def point_world() -> Callable[..., LatentEpisodes]:
    """Makes episodes of a point that actions move."""
    return _point_world


@pytest.fixture
def encoder() -> AverageEncoder:
    """An encoder without weights on disk."""
    return AverageEncoder()


@pytest.fixture
def signature() -> EnvSignature:
    """Signature of a small environment with two cameras."""
    return EnvSignature(
        env="Goalward/Point-v0",
        cameras=("front", "side"),
        image_size_px=8,
        dt_s=0.2,
        action_names=("dx_m", "dy_m"),
        action_low=(-0.05, -0.05),
        action_high=(0.05, 0.05),
        proprio_names=("x_m", "y_m", "z_m"),
    )


@pytest.fixture
def small_store(tmp_path):
    """Makes a store of short episodes whose pictures change with the actions: `small_store(path, episodes)`."""
    from goalward.datasets.store import Episode, EpisodeWriter, StoreSpec, open_store

    def make(path=tmp_path / "data", episodes: int = 6, steps: int = 9, seed: int = 0):
        spec = StoreSpec(
            env="point",
            env_id="Goalward/Point-v0",
            cameras=("front", "side"),
            image_size_px=8,
            dt_s=0.2,
            action_names=("dx_m", "dy_m"),
            action_low=(-0.05, -0.05),
            action_high=(0.05, 0.05),
            proprio_names=("x_m", "y_m", "z_m"),
        )
        rng = np.random.default_rng(seed)
        with EpisodeWriter(path, spec) as writer:
            for index in range(episodes):
                actions = rng.uniform(-0.05, 0.05, (steps, 2)).astype(np.float32)
                x = 128 + np.cumsum(np.concatenate([rng.uniform(-9, 9, (1, 2)), actions * 900]), axis=0)
                pixels = rng.integers(0, 30, (steps + 1, 2, 8, 8, 3))
                pixels[:, 0, :4] += x[:, 0].astype(int).clip(0, 220)[:, None, None, None]
                pixels[:, 1, :, 4:] += x[:, 1].astype(int).clip(0, 220)[:, None, None, None]
                proprio = np.concatenate([x, x[:, :1]], axis=1).astype(np.float32)
                writer.append(
                    Episode(pixels=pixels.clip(0, 255).astype(np.uint8), proprio=proprio, actions=actions, seed=index, behaviour="explore")
                )
        return open_store(path)

    return make
