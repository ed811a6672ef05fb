"""A policy as a planner's source of proposals: the search starts where imitation ends.

latents, in the units of the policy -- policy.chunk --> action sequences, which the planner projects and prices like all others
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from goalward import UserError
from goalward.policies.base import PolicyFault
from goalward.policies.policy import LatentPolicy, load_policy


class SeededState(Protocol):
    """What of a planner's state decides random numbers."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """One per problem."""

    @property
    def steps(self) -> tuple[int, ...]:
        """Plans made so far, one per problem."""


Proposer = Callable[[Tensor, Tensor, Any, int], Tensor]
"""(z_BTND, z_goal_BGND, state, horizon) -> actions [B, P, horizon, A], physical units; NaN where there is nothing to propose."""


def advised_proposer(model: Any) -> Proposer | None:
    """The proposals that a model advises in its `planning.json`; None where it advises none.

    Raises:
        UserError: the policy beside the model is missing or does not suit it.
    """
    planning = getattr(model, "planning", None)
    if planning is None or not planning.proposals:
        return None
    policy = load_policy(model.folder / planning.proposals, device=model.device, encoder=model.encoder)
    return policy_proposer(policy, model, num_samples=planning.num_proposals)


def policy_proposer(policy: LatentPolicy, model: Any, *, num_samples: int) -> Proposer:
    """A policy as a planner's source of proposals (`make_controller(proposer=...)`).

    Every problem is asked for by itself, with a generator of its own seed and step: the proposals do not depend on the batch. Where the
    policy cannot answer, its proposals are NaN, which planners leave out.

    Args:
        policy: without proprioception, which planners do not hand on.
        model: the world model of the same encoder.
        num_samples: proposals per goal.

    Raises:
        UserError: they do not fit one another.
    """
    theirs, ours = model.description, policy.description
    if policy.description.proprio:
        raise UserError("proposer: this policy needs proprioception, which planners do not hand on; train one without")
    if theirs.encoder.fingerprint != ours.encoder.fingerprint or theirs.env.cameras != ours.env.cameras:
        raise UserError("proposer: the policy and the world model see through different encoders or cameras; train one of them again")
    frames = policy.context_frames
    if frames > model.context_frames:
        raise UserError(
            f"proposer: the policy looks at {frames} frames and the world model at {model.context_frames}; "
            f"train the model with --context-frames {frames} or more"
        )

    def translated(z: Tensor) -> Tensor:
        """The same latents in the units of the policy: equal, to rounding, where both were trained on the same episodes."""
        return policy.latent.normalise(model.denormalise(z).to(policy.device))

    def propose(z_BTND: Tensor, z_goal_BGND: Tensor, state: SeededState, horizon: int) -> Tensor:
        proposals = []
        for b, source in enumerate(map(_generator, state.seeds, state.steps)):
            for z_goal_ND in z_goal_BGND[b]:
                try:
                    chunk_1SHA = policy.chunk(
                        translated(z_BTND[b : b + 1, -frames:]), translated(z_goal_ND[None]), generator=source, num_samples=num_samples
                    )[:, :, :horizon]
                except PolicyFault:
                    chunk_1SHA = torch.full((1, num_samples, horizon, len(policy.action_names)), float("nan"), device=policy.device)
                # A plan longer than a chunk goes on as the chunk ends.
                rest_1SHA = chunk_1SHA[:, :, -1:].expand(-1, -1, horizon - chunk_1SHA.shape[2], -1)
                proposals.append(torch.cat([chunk_1SHA, rest_1SHA], dim=2))
        return torch.cat(proposals).reshape(len(z_BTND), -1, horizon, len(policy.action_names)).to(z_BTND.device)

    return propose


def _generator(seed: int, step: int) -> torch.Generator:
    """One per problem and plan, on the CPU; another stream than that of the search, which hashes seed and step alone."""
    digest = hashlib.blake2b(f"proposals:{seed}:{step}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
