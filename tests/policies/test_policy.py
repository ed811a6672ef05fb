"""A policy as others see it: shapes, bounds, units, no number that is not finite, the encoder it was trained with."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goalward import UserError
from goalward.policies import load_policy
from goalward.policies.base import PolicyFault
from goalward.policies.policy import LatentPolicy
from goalward.policies.registry import KINDS

every_kind = pytest.mark.parametrize("kind", sorted(KINDS))


def latents(B: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(B, 2, 4, 4, generator=generator), torch.randn(B, 4, 4, generator=generator)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(KINDS)), B=st.integers(1, 3), S=st.integers(1, 4), scale=st.sampled_from([0.0, 1.0, 1e3]))
def test_a_chunk_is_finite_in_bounds_and_of_the_right_shape(make_policy, kind: str, B: int, S: int, scale: float) -> None:
    policy = make_policy(kind)
    z, goal = latents(B)
    actions = policy.chunk(scale * z, scale * goal, generator=torch.Generator().manual_seed(0), num_samples=S)
    assert actions.shape == (B, S, 3, 2)
    assert actions.dtype == torch.float32
    assert not actions.requires_grad
    assert (actions >= policy.action_low).all()
    assert (actions <= policy.action_high).all()


@every_kind
def test_the_same_generator_gives_the_same_samples(make_policy, kind: str) -> None:
    policy, (z, goal) = make_policy(kind), latents(2)
    drawn = [policy.chunk(z, goal, generator=torch.Generator().manual_seed(seed), num_samples=3) for seed in (5, 5, 6)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(policy.chunk(z, goal), policy.chunk(z, goal)), "without a generator nothing is random"


@every_kind
def test_the_answer_depends_on_the_present_on_the_past_and_on_the_goal(make_policy, kind: str) -> None:
    policy, (z, goal) = make_policy(kind), latents(1)
    answer = policy.chunk(z, goal)
    for changed in ((z + torch.tensor([0.0, 1.0])[:, None, None], goal), (z + torch.tensor([1.0, 0.0])[:, None, None], goal), (z, -goal)):
        assert not torch.equal(policy.chunk(*changed), answer)


@every_kind
@pytest.mark.parametrize("where", ["past", "goal"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused_and_its_problem_named(make_policy, kind: str, where: str, value: float) -> None:
    policy, (z, goal) = make_policy(kind), latents(3)
    (z if where == "past" else goal)[1].flatten()[2] = value
    with pytest.raises(PolicyFault, match=r"the latents are not finite \(problem 1\)"):
        policy.chunk(z, goal)


def test_weights_that_give_nan_are_no_action(make_policy) -> None:
    policy, (z, goal) = make_policy("gcbc"), latents(2)
    policy._network.head_bias.fill_(float("nan"))
    with pytest.raises(PolicyFault, match="the actions are not finite"):
        policy.chunk(z, goal)


def test_actions_come_in_physical_units(make_policy) -> None:
    """Normalised 1 is one standard deviation above the mean of the training actions."""
    policy, (z, goal) = make_policy("gcbc", action_std=(0.01, 0.02)), latents(1)
    policy._network.head.zero_()
    policy._network.head_bias.fill_(1.0)
    torch.testing.assert_close(policy.chunk(z, goal)[0, 0], torch.tensor([0.01, 0.03]).expand(3, 2))


def test_encoding_is_the_encoders_centred_and_scaled(make_policy, encoder) -> None:
    policy = make_policy("gcbc")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 2, 8, 8, 3), dtype=np.uint8)
    z = policy.encode(pixels)
    raw = torch.stack([torch.cat([encoder.encode(pixels[b, v : v + 1])[0] for v in range(2)]) for b in range(3)])
    torch.testing.assert_close(z, (raw - 0.25) / 0.3)
    for wrong in (pixels[:, :1], pixels.astype(np.float32), pixels[0]):
        with pytest.raises(UserError, match=r"must be uint8 \[B, 2, 8, 8, 3\], front, side"):
            policy.encode(wrong)


def test_another_encoder_is_refused(make_policy, encoder, make_description) -> None:
    policy = make_policy("gcbc")
    encoder.weights = encoder.weights + 1
    with pytest.raises(UserError, match="fingerprint"):
        LatentPolicy(policy.description, policy._network, torch.zeros(4, 4), encoder)
    description = dataclasses.replace(
        policy.description, num_tokens=2, encoder=dataclasses.replace(policy.description.encoder, fingerprint=encoder.fingerprint)
    )
    with pytest.raises(UserError, match="gives 4 tokens of width 4 from 8 px, the policy takes 2"):
        LatentPolicy(description, policy._network, torch.zeros(2, 4), encoder)


@pytest.mark.parametrize(
    ("z", "goal", "said"),
    [
        ((1, 1, 4, 4), (1, 4, 4), "repeat the first frame"),
        ((1, 2, 3, 4), (1, 3, 4), r"must be \[B, 2, 4, 4\]"),
        ((2, 4, 4), (2, 4, 4), r"must be \[B, 2, 4, 4\]"),
        ((2, 2, 4, 4), (1, 4, 4), "one goal per problem"),
    ],
)
def test_wrong_shapes_are_named(make_policy, z: tuple[int, ...], goal: tuple[int, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_policy("gcbc").chunk(torch.zeros(z), torch.zeros(goal))


def test_no_sample_is_refused(make_policy) -> None:
    with pytest.raises(UserError, match="num_samples is 0"):
        make_policy("gcbc").chunk(*latents(1), num_samples=0)


def test_proprioception_is_used_only_where_it_was_trained_with(make_policy) -> None:
    (z, goal), zero = latents(2), torch.zeros(2, 3)
    blind = make_policy("gcbc")
    assert torch.equal(blind.chunk(z, goal, proprio_BP=zero + float("nan")), blind.chunk(z, goal))
    seeing = make_policy("gcbc", proprio=True)
    assert not torch.equal(seeing.chunk(z, goal, proprio_BP=zero), seeing.chunk(z, goal, proprio_BP=zero + 1))
    with pytest.raises(UserError, match=r"proprio: none given.*\[2, 3\], ee_x_m, ee_y_m, ee_z_m"):
        seeing.chunk(z, goal)
    with pytest.raises(PolicyFault, match="proprioception"):
        seeing.chunk(z, goal, proprio_BP=zero + float("nan"))


def test_an_adjusted_policy_shares_weights_and_leaves_the_first_alone(make_policy) -> None:
    policy, (z, goal) = make_policy("flow"), latents(1)
    insisting = policy.adjusted(guidance=3.0)
    assert insisting._network is policy._network
    assert not torch.equal(insisting.chunk(z, goal), policy.chunk(z, goal))
    assert torch.equal(policy.adjusted(guidance=1.0).chunk(z, goal), policy.chunk(z, goal))
    with pytest.raises(UserError, match="guidance"):
        make_policy("gcbc").adjusted(guidance=3.0)


def test_the_environment_is_compared(make_policy) -> None:
    policy = make_policy("gcbc")
    policy.check_env(policy.description.env)
    with pytest.raises(UserError, match="dt_s"):
        policy.check_env(dataclasses.replace(policy.description.env, dt_s=0.5))


def test_a_folder_that_does_not_exist_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"nowhere.*goalward imitate"):
        load_policy(tmp_path / "nowhere")
