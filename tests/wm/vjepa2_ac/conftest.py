"""V-JEPA 2-AC in miniature: weights and inputs by a formula, an encoder of averages, and the public file's format."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from goalward.experiments.bench.vjepa2_ac.synthetic import TINY, inputs, uniform, weights
from goalward.wm.vjepa2_ac.config import VJepa2ACConfig
from goalward.wm.vjepa2_ac.folder import predictor_of
from goalward.wm.vjepa2_ac.predictor import VJepa2ACPredictor


class PatchEncoder:
    """Mean colours of 2 x 2 patches, and their squares: 4 tokens of width 6."""

    name, licence, image_size_px, tokens_per_view, dim = "patches", "Apache-2.0", 8, 4, 6
    fingerprint = hashlib.sha256(b"patches").hexdigest()

    def encode(self, frames):
        pixels = torch.as_tensor(np.asarray(frames)).float() / 255
        means = pixels.reshape(len(pixels), 2, 4, 2, 4, 3).mean((2, 4)).reshape(len(pixels), 4, 3)
        return torch.cat([means, means.square()], dim=-1)


def make(config: VJepa2ACConfig = TINY, **changes) -> VJepa2ACPredictor:
    config = dataclasses.replace(config, **changes)
    return predictor_of(weights(config), config)


def save_published(path: Path, tensors, **more) -> Path:
    """As the published file is: a dictionary with the predictor among others, `module.` before every name."""
    content = {"predictor": {f"module.{name}": tensor for name, tensor in tensors.items()}, "epoch": 315, "opt": {"lr": 1e-4}, **more}
    torch.save(content, path)
    return path


@pytest.fixture
def ac() -> SimpleNamespace:
    return SimpleNamespace(TINY=TINY, make=make, inputs=inputs, uniform=uniform, weights=weights, PatchEncoder=PatchEncoder,
                           save_published=save_published)  # fmt: skip


@pytest.fixture
def naive() -> Callable[..., torch.Tensor]:
    """The rollout by its definition: the whole window again at every step."""
    from goalward.wm.vjepa2_ac.latents import layer_normalised
    from goalward.wm.vjepa2_ac.poses import pose_after

    def rolled(predictor, z_BTND, states_BTP, past_BUA, actions_BHA, extrinsics_BTE=None):
        window, states, done = z_BTND, states_BTP, past_BUA
        for step in range(actions_BHA.shape[1]):
            done = torch.cat([done, actions_BHA[:, step : step + 1]], dim=1)
            z = layer_normalised(predictor(window, done, states, extrinsics_BTE)[:, -1:])
            window = torch.cat([window, z], dim=1)
            states = torch.cat([states, pose_after(states[:, -1:], done[:, -1:])], dim=1)
            if extrinsics_BTE is not None:
                extrinsics_BTE = torch.cat([extrinsics_BTE, extrinsics_BTE[:, -1:]], dim=1)
        return window[:, z_BTND.shape[1] :]

    return rolled
