"""How a policy is trained: the fields are the predictor's (`wm/train.py`) wherever they mean the same."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from goalward import UserError
from goalward.policies.base import Options
from goalward.policies.hindsight import HindsightConfig
from goalward.policies.registry import find_kind
from goalward.wm.predictor import PredictorConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyTrainConfig:
    """How a policy is trained; `config_for(kind)` gives the defaults of a kind."""

    kind: str
    """Name in the registry."""
    network: PredictorConfig
    """Size of the trunk; T and H."""
    options: Options
    """Of the kind."""
    hindsight: HindsightConfig
    """Goals to learn from."""
    proprio: bool = False
    """Also look at proprioception, which planners do not."""
    steps: int = 2500
    """Optimiser steps."""
    batch_size: int = 256
    """Pairs of a moment and a goal per step."""
    learning_rate: float = 1e-3
    """Highest learning rate."""
    warmup_steps: int = 100
    """Steps of linear warm-up, before the cosine."""
    weight_decay: float = 0.01
    """AdamW's decay of matrices."""
    grad_clip: float = 1.0
    """Longest gradient, L2 norm over all weights."""
    average_decay: float = 0.998
    """Decay of the moving average of the weights, which is what is kept."""
    precision: str = "bfloat16"
    """Precision of matrix products, bfloat16 or float32; weights and losses are float32 anyway."""
    validate_every: int = 250
    """Steps between validations; each is followed by a checkpoint."""
    validation_pairs: int = 2048
    """Held-out pairs of a validation."""
    seed: int = 0
    """Decides initial weights, the order of the data and the goals."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        if not isinstance(self.options, kind := find_kind(self.kind).options):
            raise UserError(f"options are {type(self.options).__name__}, policy {self.kind!r} takes {kind.__name__}")
        for name in ("steps", "batch_size", "validate_every", "validation_pairs"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; must be at least 1")
        for name in ("warmup_steps", "weight_decay", "seed"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} is {getattr(self, name)}; must be 0 or more")
        for name in ("learning_rate", "grad_clip"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)}; must be positive")
        if not 0 <= self.average_decay < 1:
            raise UserError(f"average_decay is {self.average_decay}; must lie in [0, 1)")
        if self.precision not in ("bfloat16", "float32"):
            raise UserError(f"precision is {self.precision!r}; choose bfloat16 or float32")


def config_for(kind: str, *, debug: bool = False, **changes: Any) -> PolicyTrainConfig:
    """The defaults of a kind, with changes; `debug` is a tiny network for a few seconds.

    Raises:
        UserError: An unknown kind, or a value out of range.
    """
    entry = find_kind(kind)
    given: dict[str, Any] = {
        "network": entry.network.default_size,
        "options": entry.options(),
        "hindsight": entry.network.default_hindsight,
    }
    if debug:
        small = dataclasses.replace(entry.network.default_size, width=32, depth=1, heads=2)
        given |= {"network": small, "steps": 60, "batch_size": 32, "warmup_steps": 10, "validate_every": 30, "validation_pairs": 64}
    return PolicyTrainConfig(kind=kind, **(given | changes))
