"""A policy as a planner's source of proposals: the search starts where imitation ends.

    chunk        latents, in the units of the policy -- policy.chunk --> action sequences
    closed loop  the same, but the policy acts in the world that the model predicts: chunk, first action, predicted frame, chunk, ...
                 (TD-MPC's policy trajectories, Hansen et al. 2022, arXiv 2203.04955, section 3.1)

The planner projects and prices them like all others. A chunk says what to do without looking; where actions hang on speeds, as torques
do, the closed loop corrects itself at every imagined step, and may be longer than a chunk.
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
    return policy_proposer(policy, model, num_samples=planning.num_proposals, closed_loop=planning.closed_loop)


def policy_proposer(policy: LatentPolicy, model: Any, *, num_samples: int, closed_loop: bool = False) -> Proposer:
    """A policy as a planner's source of proposals (`make_controller(proposer=...)`).

    Every problem is asked for by itself, with a generator of its own seed and step: the proposals do not depend on the batch. Where the
    policy cannot answer, its proposals are NaN, which planners leave out.

    Args:
        policy: without proprioception, which planners do not hand on.
        model: the world model of the same encoder.
        num_samples: proposals per goal.
        closed_loop: let the policy act in the model's imagination, rather than propose its chunks as they are.

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

    def chunks(z_1TND: Tensor, z_goal_1ND: Tensor, generator: torch.Generator, horizon: int) -> Tensor:
        chunk_1SHA = policy.chunk(translated(z_1TND), translated(z_goal_1ND), generator=generator, num_samples=num_samples)[:, :, :horizon]
        # A plan longer than a chunk goes on as the chunk ends.
        return torch.cat([chunk_1SHA, chunk_1SHA[:, :, -1:].expand(-1, -1, horizon - chunk_1SHA.shape[2], -1)], dim=2)

    def rolled_out(z_1TND: Tensor, z_goal_1ND: Tensor, generator: torch.Generator, horizon: int) -> Tensor:
        past = list(z_1TND.expand(num_samples, -1, -1, -1).unbind(1))
        goal_SND = translated(z_goal_1ND).expand(num_samples, -1, -1)

        def act(predicted: list[Tensor]) -> Tensor:
            seen_STND = torch.stack([*past, *predicted][-frames:], dim=1)
            # An imagined world may diverge: that proposal is left out, and the others go on.
            lost_S11 = ~torch.isfinite(seen_STND).flatten(1).all(1)[:, None, None] if predicted else seen_STND.new_zeros(1, 1, 1).bool()
            seen_STND = torch.where(lost_S11[..., None], 0.0, seen_STND)
            first_SPA = policy.chunk(translated(seen_STND), goal_SND, generator=generator, num_samples=min(num_samples, 2))[:, :, 0]
            # The first proposal is the policy's most typical way, the others are drawn at every step.
            return torch.cat([first_SPA[:1, 0], first_SPA[1:, -1]]).masked_fill(lost_S11[..., 0], float("nan"))

        actions_1SHA, _ = model.imagine(model.prime(z_1TND), act, horizon)
        return actions_1SHA  # type: ignore[no-any-return]

    def propose(z_BTND: Tensor, z_goal_BGND: Tensor, state: SeededState, horizon: int) -> Tensor:
        proposals = []
        for b, source in enumerate(map(_generator, state.seeds, state.steps)):
            for z_goal_ND in z_goal_BGND[b]:
                try:
                    if closed_loop:
                        made_1SHA = rolled_out(z_BTND[b : b + 1], z_goal_ND[None], source, horizon)
                    else:
                        made_1SHA = chunks(z_BTND[b : b + 1, -frames:], z_goal_ND[None], source, horizon)
                except PolicyFault:
                    made_1SHA = torch.full((1, num_samples, horizon, len(policy.action_names)), float("nan"), device=policy.device)
                proposals.append(made_1SHA)
        return torch.cat(proposals).reshape(len(z_BTND), -1, horizon, len(policy.action_names)).to(z_BTND.device)

    return propose


def _generator(seed: int, step: int) -> torch.Generator:
    """One per problem and plan, on the CPU; another stream than that of the search, which hashes seed and step alone."""
    digest = hashlib.blake2b(f"proposals:{seed}:{step}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
