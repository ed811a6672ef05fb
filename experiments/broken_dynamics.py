"""World models that are broken on purpose: what planning achieves when the model knows nothing of the actions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Broken(ABC):
    """A learned world model of which everything is kept but what it predicts."""

    def __init__(self, model: Any) -> None:
        """Borrows the learned model."""
        self._model = model
        self.calibration = None

    def __getattr__(self, name: str) -> Any:
        """Encoder, normalisation, bounds: the learned model's."""
        return getattr(self._model, name)

    @abstractmethod
    def rollout(self, context: Any, actions_BSHA: Tensor) -> Tensor:
        """What it predicts, z_BSHND."""

    def imagined(self, context: Any, actions_BSHA: Tensor) -> Tensor:
        """What it predicts in imagination, z_BSHND."""
        return self.rollout(context, actions_BSHA)

    def imagine(self, context: Any, act: Callable[[list[Tensor]], Tensor], horizon: int) -> tuple[Tensor, Tensor]:
        """As `WorldModel.imagine`, in the broken world: nothing of the learned model's predictions may leak into proposals."""
        actions: list[Tensor] = []
        frames: list[Tensor] = []
        while len(frames) < horizon:
            actions.append(act(frames))
            frames.append(self.imagined(context, torch.stack(actions, dim=1)[None])[0, :, -1])
        return torch.stack(actions, dim=1)[None], torch.stack(frames, dim=1)[None]


class Persistence(Broken):
    """Predicts that nothing ever changes: every candidate costs the same."""

    def prime(self, z_BTND: Tensor) -> Tensor:
        """The last frame, z_BND."""
        return z_BTND[:, -1]

    def rollout(self, context: Tensor, actions_BSHA: Tensor) -> Tensor:
        """The last frame again and again, z_BSHND."""
        return context[:, None, None].expand(-1, *actions_BSHA.shape[1:3], -1, -1)


class ShuffledActions(Broken):
    """Predicts well, but what another candidate would do: the one before it, and of the first the last."""

    def rollout(self, context: Any, actions_BSHA: Tensor) -> Tensor:
        """Predictions z_BSHND for the wrong candidates."""
        predicted: Tensor = self._model.rollout(context, actions_BSHA.roll(1, dims=1))
        return predicted

    def imagined(self, context: Any, actions_BSHA: Tensor) -> Tensor:
        """The same; a single proposal, which has no other beside it, does the opposite."""
        return self.rollout(context, actions_BSHA if actions_BSHA.shape[1] > 1 else -actions_BSHA)
