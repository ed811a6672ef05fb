"""How late do commands act? Told from what is seen alone, and planned for.

Networks, drivers and filters between planner and arm make commands late by whole control steps; a plan that takes the present for the
moment it begins in then overshoots and jitters. The world model can tell: it predicts the newest frame from the ones before, once for each
command that may have acted meanwhile,

    e[d] = distance(z now, predict(z before, command sent d steps before the last))        d = 0 .. D
    E[d] = memory * E[d] + e[d]                                                            a sum that forgets

and a delay is believed while its E is the least, and clearly less than E[0]. Frames that all hypotheses predict alike, as of an arm that
holds or is stuck, tell nothing of delays and are left out. Plans then begin where the commands on their way will have led:

    z(t), commands sent and not yet acted  -- predict d steps -->  z(t + d), where the next command will act

(Delayed control by prediction: Smith 1957; by forward simulation of the committed actions: Katsikopoulos & Engelbrecht 2003, "Markov
decision processes with delays and asynchronous cost collection", section III.)

Letters: B problems, T context frames, K commands remembered, N tokens, D latent width, A action dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goalward.planners.base import WorldModel
from goalward.planners.objectives import latent_distance

_MEMORY = 0.8
_CLEARLY = 0.5
"""A delay is believed where its E is at most this share of E[0]; a frame tells something where its errors differ as much."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Delay:
    """What is known of the delay of one arm."""

    sent_KA: NDArray[np.float32]
    """The last D + 1 commands, the oldest first; holding, before the first."""
    errors: tuple[float, ...]
    """E of 0 .. D steps."""
    newest: tuple[float, ...] = ()
    """e of the newest frame; empty where it was not compared."""
    steps: int = 0
    """What is believed: so many commands are on their way when the next is chosen."""

    @property
    def hypotheses_KA(self) -> NDArray[np.float32]:
        """The command that acted last under 0 .. D steps of delay."""
        return self.sent_KA[::-1]

    @property
    def on_their_way_KA(self) -> NDArray[np.float32]:
        """Commands that are believed not to have acted yet, the oldest first."""
        return self.sent_KA[len(self.sent_KA) - self.steps :]

    def after(self, action_A: NDArray[np.float32]) -> Delay:
        """Remembers a command, and turns to the frame after it."""
        return replace(self, sent_KA=np.concatenate([self.sent_KA[1:], action_A[None]]), newest=())

    def judged(self, errors: tuple[float, ...]) -> Delay:
        """Weighs the newest errors in; errors that are not finite say nothing."""
        if not all(map(math.isfinite, errors)):
            return replace(self, newest=())
        if not min(errors) <= _CLEARLY * max(errors) or not max(errors):
            return replace(self, newest=errors)
        total = tuple(_MEMORY * old + new for old, new in zip(self.errors, errors, strict=True))
        best = min(range(len(total)), key=total.__getitem__)
        return replace(self, newest=errors, errors=total, steps=best if total[best] <= _CLEARLY * total[0] else 0)


def begin(hold_A: NDArray[np.float32], max_steps: int) -> Delay:
    """Nothing is known, and the arm holds."""
    return Delay(sent_KA=np.repeat(hold_A[None], max_steps + 1, axis=0), errors=(0.0,) * (max_steps + 1))


def prediction_errors(model: WorldModel, past_BTND: Tensor, delays: list[Delay], z_BND: Tensor) -> list[tuple[float, ...]]:
    """What each hypothesis would have predicted of the newest frames, and how wrong it is.

    Args:
        model: The world model.
        past_BTND: The frames before the newest.
        delays: One per arm.
        z_BND: The newest frames.

    Returns:
        e of 0 .. D steps, per arm.
    """
    actions_BSHA = torch.from_numpy(np.stack([delay.hypotheses_KA for delay in delays])[:, :, None].copy()).to(past_BTND.device)
    with torch.no_grad():
        z_BSHND = model.rollout(model.prime(past_BTND), actions_BSHA)
        errors_BS = latent_distance(z_BSHND[:, :, 0], z_BND[:, None])
    return [tuple(row) for row in errors_BS.tolist()]


def rolled_forward(model: WorldModel, ring_1TND: Tensor, delay: Delay) -> Tensor:
    """The frames as they will be when the next command acts; the frames themselves where nothing is on its way."""
    if not delay.steps:
        return ring_1TND
    actions_11HA = torch.from_numpy(delay.on_their_way_KA[None, None].copy()).to(ring_1TND.device)
    with torch.no_grad():
        z_1HND = model.rollout(model.prime(ring_1TND), actions_11HA)[:, 0]
    return torch.cat([ring_1TND, z_1HND.to(ring_1TND.dtype)], dim=1)[:, -ring_1TND.shape[1] :]
