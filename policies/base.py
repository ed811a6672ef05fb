"""The contract of a policy: imitation without search, from the same latents that planners see. Readable alone.

    pixels_BVhw3 -- the world model's frozen encoder --> z_BTND, z_goal_BND -- policy.chunk --> actions_BSHA

What every policy promises:

* it sees what the planner sees: T frames and the goal image through the same encoder; proprioception only where it was trained with it;
* its chunk has the horizon of the planner's plans, lies inside the action bounds, and is float32 in physical units;
* the first of S samples is the one to execute; the others are alternatives, for a search to look at;
* the numbers depend on latents, options and the generator alone; nothing random happens without a generator;
* what is not finite never leaves it: latents or actions that are not raise `PolicyFault`, which says for which problems.

A kind of policy is a network (`network.py`), options, and a line in `registry.py`; everything else is shared.

Letters in array names: B problems, S samples, H horizon steps, T context frames, V camera views, N tokens per frame (all views together, in
camera order), D latent width, A action dimensions, P proprioception dimensions.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from goalward import UserError
from goalward.wm.base import EnvSignature
from goalward.wm.checkpoint import EncoderReference
from goalward.wm.predictor import PredictorConfig

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from goalward.wm.statistics import LatentStatistics


class PolicyFault(RuntimeError):
    """A policy could not act in this moment: something was not finite. Whoever controls an arm must hold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What a kind of policy may be told; numbers, words and switches only, each with a default."""

    ADJUSTABLE: ClassVar[tuple[str, ...]] = ()
    """Those that decide only how a trained network acts, and may be changed afterwards."""

    def adjusted(self, **changes: Any) -> Self:
        """These options with some changed.

        Raises:
            UserError: One that does not exist, is fixed by training, or is out of range.
        """
        for name in changes:
            if name not in self.ADJUSTABLE:
                can = ", ".join(self.ADJUSTABLE) or "nothing"
                raise UserError(f"{name} cannot be changed in a trained policy of this kind; {can} can")
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyDescription:
    """Everything in `policy.json`."""

    kind: str
    """Name in `registry.KINDS`."""
    network: PredictorConfig
    """Size of the trunk, in the predictor's terms; `context_frames` is T, `horizon` H."""
    proprio: bool
    """Whether it also sees proprioception, which planners do not."""
    options: dict[str, Any]
    """Of its kind."""
    num_tokens: int
    """N, tokens per frame, all views together."""
    dim: int
    """D, latent width."""
    env: EnvSignature
    """Environment of the data."""
    encoder: EncoderReference
    """Origin of the latents."""
    latent_scale: float
    """Root mean square of the centred training latents."""
    action_mean: tuple[float, ...]
    """Mean of the training actions [A], physical units."""
    action_std: tuple[float, ...]
    """Their standard deviation [A]."""
    proprio_mean: tuple[float, ...]
    """Mean of the training proprioception [P], SI units."""
    proprio_std: tuple[float, ...]
    """Its standard deviation [P]."""
    data_hash: str
    """Content hash of the dataset."""
    training: dict[str, Any]
    """Configuration, steps and figures of the training run; for people."""
    versions: dict[str, str]
    """Versions of the software that made it."""

    def faults(self) -> list[str]:
        """What contradicts itself or is out of range."""
        found = [
            f"{name} is {getattr(self, name)}, must lie in 1 .. 65536"
            for name in ("num_tokens", "dim")
            if not 1 <= getattr(self, name) <= 65536
        ]
        for kind, expected in (("action", len(self.env.action_names)), ("proprio", len(self.env.proprio_names))):
            found += [
                f"{kind}_{part} has {len(getattr(self, f'{kind}_{part}'))} entries, must have {expected}"
                for part in ("mean", "std")
                if len(getattr(self, f"{kind}_{part}")) != expected
            ]
        for name in ("latent_scale", "action_std", "proprio_std"):
            value = getattr(self, name)
            if not all(entry > 0 for entry in (value if isinstance(value, tuple) else (value,))):
                found.append(f"{name} is {value}, must be positive")
        return found


class Policy(Protocol):
    """A goal-conditioned policy; what it needs to know of the world it shares, name for name, with the world model."""

    @property
    def description(self) -> PolicyDescription:
        """What it is and where it comes from."""

    @property
    def options(self) -> Options:
        """How it acts."""

    @property
    def latent(self) -> LatentStatistics:
        """Normalisation of latents: equal to the world model's where both were trained on the same episodes."""

    @property
    def context_frames(self) -> int:
        """T, observed frames it looks back on; at a start the first frame is repeated."""

    @property
    def horizon(self) -> int:
        """H, actions in a chunk."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def encode(self, pixels: Tensor | NDArray[np.uint8]) -> Tensor:
        """Maps uint8 [B, V, h, w, 3] to normalised latents z_BND, float32."""

    def chunk(
        self,
        z_BTND: Tensor,
        z_goal_BND: Tensor,
        *,
        proprio_BP: Tensor | None = None,
        generator: torch.Generator | None = None,
        num_samples: int = 1,
    ) -> Tensor:
        """Proposes actions_BSHA, float32, physical units, inside the bounds; raises `PolicyFault` if anything is not finite.

        Without a generator there is one sample, and it is the policy's most typical answer. With one, policies that imitate a distribution
        draw all S samples from it, and the others return their one answer first and then the same with noise of a documented spread.
        """
