"""World models that are broken on purpose: what planning achieves when the model knows nothing of the actions."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class Persistence:
    """Predicts that nothing ever changes: every candidate costs the same. Everything else is the learned model's."""

    def __init__(self, model: Any) -> None:
        """Borrows a learned world model."""
        self._model = model
        self.calibration = None

    def __getattr__(self, name: str) -> Any:
        """Encoder, normalisation, bounds: the learned model's."""
        return getattr(self._model, name)

    def prime(self, z_BTND: Tensor) -> Tensor:
        """The last frame, z_BND."""
        return z_BTND[:, -1]

    def rollout(self, context: Tensor, actions_BSHA: Tensor) -> Tensor:
        """The last frame again and again, z_BSHND."""
        return context[:, None, None].expand(-1, *actions_BSHA.shape[1:3], -1, -1)


class ShuffledActions:
    """Predicts well, but what another candidate would do: the one before it, and of the first the last."""

    def __init__(self, model: Any) -> None:
        """Borrows a learned world model."""
        self._model = model
        self.calibration = None

    def __getattr__(self, name: str) -> Any:
        """Everything but the rollout is the learned model's."""
        return getattr(self._model, name)

    def rollout(self, context: Any, actions_BSHA: Tensor) -> Tensor:
        """Predictions z_BSHND for the wrong candidates."""
        predicted: Tensor = self._model.rollout(context, actions_BSHA.roll(1, dims=1))
        return predicted
