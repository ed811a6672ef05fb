"""Reweighs what a frozen encoder sees, for a task: what the arm's own sensors do not explain counts more. No labels of any object.

Where a hand and a small object share a picture, the latent distance is mostly about the hand. The split, over frames f and tokens n:

    z = mean + arm(p) + rest                  arm: a small network from proprioception p, by least squares
    A = cov(arm),  R = cov(rest)              [D, D], all tokens together
    B = (A + floor * max eig(A) I)^(-1/2)     whitens what the arm explains
    B R B^T = V diag(w) V^T                   directions by how much *else* happens in them (a generalised eigenproblem)
    z' = c diag(w)^power V^T B z              c sets the overall size

The map is linear and the same for every token, so that it folds into the encoder's last 1x1 convolution: encoding costs nothing more.
Letters: F frames, N tokens, D latent width, P proprioception dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from goalward import UserError
from goalward.wm.encoders.small import SmallEncoder

_STD = 0.382  # of a latent entry afterwards, as of the shipped encoder on its own data; whoever learns from latents normalises them
_WIDTH = 256
_BATCH = 512
_CHUNK = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class ReweighConfig:
    """How the map is found."""

    power: float = 0.5
    """Exponent of the eigenvalues: 0 whitens by the arm alone, higher favours what the arm does not explain."""
    floor: float = 0.01
    """What is added to the arm's variance, as a share of its largest: bounds how far a direction can be enlarged."""
    steps: int = 2500
    """Optimiser steps of the network from proprioception."""
    learning_rate: float = 2e-3
    """At the start; falls linearly to zero."""
    seed: int = 0
    """Decides its initial weights and batches."""

    def __post_init__(self) -> None:
        """Checks every field."""
        if not 0 <= self.power <= 2:
            raise UserError(f"power is {self.power}; must lie in [0, 2]; 0.5 is usual")
        if not 1e-6 <= self.floor <= 1:
            raise UserError(f"floor is {self.floor}; must lie in [1e-6, 1]; 0.01 is usual")
        if not 1 <= self.steps <= 1_000_000:
            raise UserError(f"steps is {self.steps}; must lie in 1 .. 1000000")
        if not 0 < self.learning_rate <= 1:
            raise UserError(f"learning_rate is {self.learning_rate}; must lie in (0, 1]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reweighing:
    """The map, and what it rests on."""

    map_DD: Tensor
    """z' = z @ map_DD.T, float32."""
    explained: float
    """Share of the latents' variance that proprioception explains."""
    gain: float
    """How many times larger the share of the rest is after the map than before."""


def find_reweighing(
    config: ReweighConfig, z_FND: Tensor, proprio_FP: Tensor, *, report: Callable[[int, int], None] | None = None
) -> Reweighing:
    """Finds the map.

    Args:
        config: How.
        z_FND: latents as the encoder gives them, float32.
        proprio_FP: the arm's own sensors, float32; columns that do not vary are left out.
        report: called with steps done and all steps.

    Raises:
        UserError: too few frames, or nothing varies.
    """
    if len(z_FND) < 2 * _BATCH:
        raise UserError(f"data: {len(z_FND)} frames are too few to reweigh by; {2 * _BATCH} at least: collect more episodes")
    z_FND = z_FND - z_FND.mean(0)
    proprio_FP = proprio_FP[:, proprio_FP.std(0) > 1e-9]
    if not proprio_FP.shape[1] or float(z_FND.abs().max()) <= 1e-9:
        raise UserError("data: neither proprioception nor latents may be constant; collect episodes in which the arm moves")
    proprio_FP = (proprio_FP - proprio_FP.mean(0)) / proprio_FP.std(0)
    arm_FND = _explained_by(config, z_FND, proprio_FP, report)
    arm_DD, rest_DD = _covariance(arm_FND), _covariance(z_FND - arm_FND)
    values, vectors = torch.linalg.eigh(arm_DD)
    whitening_DD = vectors @ torch.diag((values.clamp(min=0) + config.floor * values.max()) ** -0.5) @ vectors.T
    values, vectors = torch.linalg.eigh(whitening_DD @ rest_DD @ whitening_DD.T)
    map_DD = (torch.diag(values.clamp(min=0) ** config.power) @ vectors.T @ whitening_DD).flip(0)

    def variance(cov_DD: Tensor, map_DD: Tensor) -> Tensor:
        return torch.einsum("de,ef,df->d", map_DD, cov_DD, map_DD).mean()

    map_DD = map_DD * _STD / variance(arm_DD + rest_DD, map_DD).sqrt()
    same_DD = torch.eye(len(map_DD), dtype=map_DD.dtype)
    before, after = (float(variance(rest_DD, m) / variance(arm_DD + rest_DD, m)) for m in (same_DD, map_DD))
    return Reweighing(map_DD=map_DD.float(), explained=1 - before, gain=after / before)


def reweighed(encoder: SmallEncoder, map_DD: Tensor, *, name: str) -> SmallEncoder:
    """Folds a map into a copy of an encoder."""
    network = encoder.network()
    with torch.no_grad():
        head = network.head.weight
        head.copy_((map_DD @ head[:, :, 0, 0])[:, :, None, None])
        network.offset.copy_(network.offset @ map_DD.T)
    return SmallEncoder(network, name=name, licence=encoder.licence, device=encoder.device)


def _explained_by(config: ReweighConfig, z_FND: Tensor, proprio_FP: Tensor, report: Callable[[int, int], None] | None) -> Tensor:
    """What a network predicts of the latents from proprioception, [F, N, D]."""
    std_X = z_FND.flatten(1).std(0).clamp(min=1e-9)
    train = len(z_FND) * 9 // 10
    with torch.random.fork_rng(devices=[]):  # modules draw from the global generator when made
        torch.manual_seed(config.seed)
        net = nn.Sequential(
            nn.Linear(proprio_FP.shape[1], _WIDTH), nn.GELU(), nn.Linear(_WIDTH, _WIDTH), nn.GELU(), nn.Linear(_WIDTH, len(std_X))
        )
        optimiser = torch.optim.AdamW(net.parameters(), config.learning_rate)
        for step in range(config.steps):
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * (config.steps - step) / config.steps
            batch = torch.randint(train, (_BATCH,))
            loss = F.mse_loss(net(proprio_FP[batch]), z_FND[batch].flatten(1) / std_X)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if report is not None:
                report(step + 1, config.steps)
        with torch.no_grad():
            return (torch.cat([net(chunk) for chunk in torch.split(proprio_FP, _CHUNK)]) * std_X).view_as(z_FND)


def _covariance(z_FND: Tensor) -> Tensor:
    return torch.einsum("fnd,fne->de", z_FND.double(), z_FND.double()) / z_FND.shape[0] / z_FND.shape[1]
