"""Policies in closed loop and as a source of proposals: the planner's conditions, holding on faults, no privileged information."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from goalward import UserError
from goalward.experiments.evaluation import EpisodeFailed, EpisodeStart, run_episode
from goalward.experiments.policy_method import PolicyController, policy_method
from goalward.planners.actions import Box, Intersection, Workspace
from goalward.planners.base import PlannerState
from goalward.planners.methods.noise import generators
from goalward.policies.base import PolicyDescription
from goalward.policies.checkpoint import build_network
from goalward.policies.policy import LatentPolicy
from goalward.policies.proposals import policy_proposer
from goalward.policies.registry import KINDS
from goalward.wm.base import EnvSignature
from goalward.wm.checkpoint import EncoderReference
from goalward.wm.predictor import PredictorConfig

SIZE = 16


class SquareEncoder:
    """Where the bright pixel is: two numbers per view, padded to a width of 4."""

    name, licence, image_size_px, tokens_per_view, dim, fingerprint = "square", "Apache-2.0", SIZE, 1, 4, "ab" * 32

    def encode(self, frames: Any) -> torch.Tensor:
        bright = torch.as_tensor(np.asarray(frames)).float()[..., 0] > 100
        at = torch.arange(SIZE).float() / (SIZE - 1)
        row, column = (bright.float().sum(axis) @ at / bright.sum((1, 2)) for axis in (2, 1))
        return torch.stack([row, column, 0 * row, 0 * row], dim=1)[:, None]


def make_policy(kind: str = "gcbc", *, proprio: bool = False, **changes: Any) -> LatentPolicy:
    options = KINDS[kind].options()
    description = PolicyDescription(
        kind=kind,
        network=PredictorConfig(width=16, depth=1, heads=2, context_frames=2, horizon=3),
        proprio=proprio,
        options={},
        num_tokens=2,
        dim=4,
        env=EnvSignature(
            env="Test/Point-v0",
            cameras=("top", "side"),
            image_size_px=SIZE,
            dt_s=0.25,
            action_names=("dx_m", "dy_m"),
            action_low=(-0.05, -0.05),
            action_high=(0.05, 0.05),
            proprio_names=("x_m", "y_m"),
        ),
        encoder=EncoderReference(name="square", fingerprint="ab" * 32, shipped=False),
        latent_scale=0.5,
        action_mean=(0.0, 0.0),
        action_std=(0.03, 0.03),
        proprio_mean=(0.0, 0.0),
        proprio_std=(1.0, 1.0),
        data_hash="cd" * 32,
        training={},
        versions={},
        **changes,
    )
    network = build_network(description, options, torch.Generator().manual_seed(0))
    return LatentPolicy(description, network, torch.full((2, 4), 0.5), SquareEncoder())


def steer(monkeypatch, policy: LatentPolicy, answer) -> list[dict[str, Any]]:
    """Replaces the network by a function of present and goal; returns what it was asked."""
    asked: list[dict[str, Any]] = []

    def act(z, goal, proprio, *, options, generator, num_samples):
        asked.append({"z": z, "goal": goal, "proprio": proprio, "options": options, "generator": generator})
        return answer(z, goal).expand(len(z), num_samples, 3, 2) / 0.03

    monkeypatch.setattr(policy._network, "act", act)
    return asked


def homing(z: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """Straight to the goal: normalised latents are twice the place."""
    return (0.5 * (goal - z[:, -1])[:, 0, :2])[:, None, None]


@pytest.fixture(autouse=True)
def action_sets(monkeypatch) -> list[Any]:
    """The point has no end effector to keep in a workspace; notes for whom action sets were made."""
    made: list[Any] = []

    def box(policy: LatentPolicy, info: Any) -> Box:
        made.append((policy, info))
        return Box.of(policy.action_low, policy.action_high)

    monkeypatch.setattr("goalward.experiments.policy_method.action_set_for", box)
    return made


def start_of(env: Any, goal: np.ndarray, seed: int = 0) -> EpisodeStart:
    return EpisodeStart(goal_pixels=goal, seed=seed, info=env.spec_info)


def test_a_policy_that_knows_the_way_arrives(point_env, monkeypatch, action_sets) -> None:
    policy, env = make_policy(), point_env(max_steps=30)
    steer(monkeypatch, policy, homing)
    record = run_episode(env, policy_method(policy), index=5, seed=0, split="validation", warm_up=True)
    assert record.moderate
    assert record.method == "gcbc"
    assert len(record.plan_ms) == record.steps
    assert action_sets[-1] == (policy, env.spec_info), "the planner's own action set"
    assert record.energies is not None
    assert record.energies[-1] < record.energies[0]


def test_the_first_frame_is_repeated_and_then_the_last_two_are_seen(point_env, monkeypatch) -> None:
    policy, env = make_policy(), point_env()
    asked = steer(monkeypatch, policy, homing)
    observation, info = env.reset(seed=0, options={"goal_index": 5, "split": "validation"})
    controller = PolicyController(policy, info["goal_pixels"])
    seen = []
    for _ in range(3):
        seen.append(policy.encode(observation["pixels"][None])[0])
        observation, *_ = env.step(controller.act(observation))
    for t, pair in enumerate([(0, 0), (0, 1), (1, 2)]):
        assert torch.equal(asked[t]["z"][0], torch.stack([seen[i] for i in pair]))
        assert torch.equal(asked[t]["goal"][0], policy.encode(info["goal_pixels"][None])[0])
        assert asked[t]["proprio"] is None


def test_actions_stay_in_the_action_set_from_where_the_arm_is(monkeypatch) -> None:
    policy = make_policy()
    steer(monkeypatch, policy, lambda z, goal: torch.tensor([0.04, 0.2]))
    names = ("ee_x_m", "ee_y_m")
    monkeypatch.setattr(LatentPolicy, "proprio_names", property(lambda self: names))
    actions = Intersection(Box.of(policy.action_low, policy.action_high), (Workspace.of([0.0, 0.0], [1.0, 1.0], action_dims=(0, 1)),))
    pixels = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    pixels[:, 3, 4] = 255
    controller = PolicyController(policy, pixels, action_set=actions, execute_steps=2)
    for place, expected in (([0.5, 0.5], [0.04, 0.05]), ([0.99, 0.2], [0.01, 0.05]), ([1.02, 0.97], [-0.02, 0.03])):
        action = controller.act({"pixels": pixels, "proprio": np.array(place, np.float32)})
        assert controller.last_hold_reason is None
        np.testing.assert_allclose(action, expected, atol=1e-5)
        assert action.dtype == np.float32


def test_a_chunk_is_executed_as_far_as_asked(point_env, monkeypatch) -> None:
    policy, env = make_policy(), point_env()
    calls = steer(monkeypatch, policy, lambda z, goal: torch.tensor([[0.01, 0.0], [0.02, 0.0], [0.03, 0.0]]))
    for execute_steps, expected in ((1, [0.01, 0.01, 0.01, 0.01]), (3, [0.01, 0.02, 0.03, 0.01])):
        calls.clear()
        observation, info = env.reset(seed=0, options={"goal_index": 5, "split": "validation"})
        controller = PolicyController(policy, info["goal_pixels"], execute_steps=execute_steps)
        taken = [float(controller.act(observation)[0]) for _ in range(4)]
        assert taken == pytest.approx(expected)
        assert len(calls) == (4 if execute_steps == 1 else 2)
    with pytest.raises(UserError, match="execute_steps is 4"):
        PolicyController(policy, info["goal_pixels"], execute_steps=4)
    with pytest.raises(UserError, match="execute_steps is 0"):
        policy_method(policy, execute_steps=0)


@pytest.mark.parametrize("fault", ["proprio", "latents", "answer"])
def test_it_holds_on_faults_says_why_and_goes_on_afterwards(point_env, monkeypatch, fault: str) -> None:
    policy, env = make_policy(), point_env()
    broken = False
    steer(monkeypatch, policy, lambda z, goal: homing(z, goal) + (float("nan") if broken and fault == "answer" else 0.0))
    observation, info = env.reset(seed=0, options={"goal_index": 5, "split": "validation"})
    controller = PolicyController(policy, info["goal_pixels"])
    before = controller.act(observation)
    broken = True
    bad = dict(observation)
    if fault == "proprio":
        bad["proprio"] = np.array([np.nan, 0.0], np.float32)
    if fault == "latents":
        bad["pixels"] = np.zeros_like(bad["pixels"])  # no bright pixel: 0 / 0
    assert not controller.act(bad).any()
    assert "not finite" in str(controller.last_hold_reason)
    broken = False
    np.testing.assert_allclose(controller.act(observation), before, atol=1e-6)
    assert controller.last_hold_reason is None


def test_in_evaluation_a_fault_ends_the_episode_as_for_planners(point_env, monkeypatch) -> None:
    policy, env = make_policy(), point_env()
    steer(monkeypatch, policy, lambda z, goal: torch.tensor(float("nan")))
    record = run_episode(env, policy_method(policy), index=1, seed=0, split="validation", warm_up=True)
    assert record.failure is not None
    assert "the policy could not act: the actions are not finite" in record.failure
    with pytest.raises(EpisodeFailed):
        policy_method(policy).begin(start_of(env, np.full((2, SIZE, SIZE, 3), 200, np.uint8)))(
            {"pixels": np.full((2, SIZE, SIZE, 3), 200, np.uint8), "proprio": np.zeros(2, np.float32)}
        )


def test_episodes_follow_their_seed(point_env) -> None:
    policy, env = make_policy("flow"), point_env()
    records = [run_episode(env, policy_method(policy), index=1, seed=seed, split="validation") for seed in (3, 3, 4)]
    assert records[0].actions == records[1].actions != records[2].actions


def test_guidance_is_for_policies_that_have_one(point_env, monkeypatch) -> None:
    policy, env = make_policy("flow"), point_env()
    asked = steer(monkeypatch, policy, homing)
    method = policy_method(policy, guidance=2.5, name="flow, w = 2.5")
    assert (method.name, method.role, method.timed) == ("flow, w = 2.5", "imitation", True)
    run_episode(env, method, index=1, seed=0, split="validation")
    assert {call["options"].guidance for call in asked} == {2.5}
    with pytest.raises(UserError, match="guidance"):
        policy_method(make_policy("gcbc"), guidance=2.0)


def test_a_goal_that_does_not_fit_is_a_mistake() -> None:
    with pytest.raises(UserError, match="goal_pixels"):
        PolicyController(make_policy(), np.zeros((1, SIZE, SIZE, 3), np.uint8))


def proposals_of(policy: LatentPolicy, model: Any, z: torch.Tensor, goals: torch.Tensor, seeds: tuple[int, ...], horizon: int = 3):
    return policy_proposer(policy, model, num_samples=4)(z, goals, PlannerState.initial(seeds), horizon)


def model_like(policy: LatentPolicy, *, mean: float = 0.5, scale: float = 0.5, frames: int = 2) -> Any:
    """A world model of the same encoder, with a normalisation of its own."""
    description = SimpleNamespace(encoder=policy.description.encoder, env=policy.description.env, latent_scale=scale)
    return SimpleNamespace(
        description=description, context_frames=frames, normalise=lambda z: (z - mean) / scale, denormalise=lambda z: z * scale + mean
    )


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_proposals_do_not_depend_on_the_batch(kind: str) -> None:
    policy, generator = make_policy(kind), torch.Generator().manual_seed(0)
    model = model_like(policy)
    z, goals = torch.randn(3, 2, 2, 4, generator=generator), torch.randn(3, 2, 2, 4, generator=generator)
    together = proposals_of(policy, model, z, goals, (7, 8, 9))
    assert together.shape == (3, 8, 3, 2), "four for each of two goals"
    for b, seed in enumerate((7, 8, 9)):
        assert torch.equal(together[b : b + 1], proposals_of(policy, model, z[b : b + 1], goals[b : b + 1], (seed,)))
    assert torch.equal(proposals_of(policy, model, z, goals, (7, 8, 9), horizon=2), together[:, :, :2])


def test_proposals_come_from_latents_in_the_models_units(monkeypatch) -> None:
    policy = make_policy()
    asked = steer(monkeypatch, policy, homing)
    raw = torch.randn(1, 2, 2, 4, generator=torch.Generator().manual_seed(0))
    model = model_like(policy, mean=-0.3, scale=0.2)
    proposals_of(policy, model, model.normalise(raw), model.normalise(raw[:, :1]), (0,))
    torch.testing.assert_close(asked[0]["z"], policy.latent.normalise(raw))
    torch.testing.assert_close(asked[0]["goal"], policy.latent.normalise(raw[:, 0]))


def test_a_model_may_look_at_more_frames_than_the_policy_that_proposes_but_not_at_fewer() -> None:
    policy, generator = make_policy(), torch.Generator().manual_seed(0)
    z, goals = torch.randn(2, 3, 2, 4, generator=generator), torch.randn(2, 1, 2, 4, generator=generator)
    newest = proposals_of(policy, model_like(policy), z[:, 1:], goals, (0, 1))
    assert torch.equal(proposals_of(policy, model_like(policy, frames=3), z, goals, (0, 1)), newest)
    with pytest.raises(UserError, match="looks at 2 frames and the world model at 1"):
        policy_proposer(policy, model_like(policy, frames=1), num_samples=2)


def test_a_problem_that_the_policy_cannot_answer_has_no_proposals() -> None:
    policy = make_policy()
    z, goals = torch.zeros(2, 2, 2, 4), torch.zeros(2, 1, 2, 4)
    z[1, 0, 0, 0] = float("nan")
    proposals = proposals_of(policy, model_like(policy), z, goals, (0, 1))
    assert torch.isfinite(proposals[0]).all()
    assert torch.isnan(proposals[1]).all()


def test_what_does_not_fit_is_refused() -> None:
    policy = make_policy()
    other = model_like(policy)
    other.description.encoder = EncoderReference(name="other", fingerprint="00" * 32, shipped=False)
    with pytest.raises(UserError, match="different encoders"):
        policy_proposer(policy, other, num_samples=2)
    with pytest.raises(UserError, match="proprioception"):
        policy_proposer(make_policy(proprio=True), model_like(policy), num_samples=2)


def test_plans_longer_than_a_chunk_go_on_as_it_ends() -> None:
    policy = make_policy()
    z, goals = torch.randn(1, 2, 2, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 1, 2, 4)
    short, long = (proposals_of(policy, model_like(policy), z, goals, (0,), horizon=horizon) for horizon in (3, 5))
    assert torch.equal(long[:, :, :3], short)
    assert torch.equal(long[:, :, 3:], short[:, :, -1:].expand(-1, -1, 2, -1))


class Imagined(SimpleNamespace):
    """A world model in which the first entry of every token moves by the first action, tenfold, and nothing else happens."""

    def prime(self, z: torch.Tensor) -> torch.Tensor:
        return z

    def imagine(self, context: torch.Tensor, act: Any, horizon: int) -> tuple[torch.Tensor, torch.Tensor]:
        frames: list[torch.Tensor] = []
        actions: list[torch.Tensor] = []
        for _ in range(horizon):
            actions.append(act(frames))
            z = (frames[-1] if frames else context[0, -1].expand(len(actions[0]), -1, -1)).clone()
            z[..., 0] += 10 * actions[-1][:, :1]
            frames.append(z)
        return torch.stack(actions, 1)[None], torch.stack(frames, 1)[None]


def imagined(policy: LatentPolicy, frames: int = 2) -> Imagined:
    return Imagined(**vars(model_like(policy, frames=frames)))


@pytest.mark.parametrize("frames", [2, 3])
def test_a_closed_loop_looks_again_at_every_imagined_step(monkeypatch, frames: int) -> None:
    policy, seen = make_policy(), []

    def chunk(z_BTND: torch.Tensor, z_goal_BND: torch.Tensor, *, num_samples: int, **_: Any) -> torch.Tensor:
        seen.append(z_BTND)
        # Half of what is left in the first entry, in the model's units; the noisy sample goes the other way.
        left = 0.05 * (z_goal_BND - z_BTND[:, -1])[:, 0, :1] * policy.latent.scale / 0.5
        toward = torch.cat([left, 0 * left], dim=1)[:, None, None].expand(-1, 1, 3, -1)
        return torch.cat([toward, -toward], dim=1)[:, :num_samples]

    monkeypatch.setattr(policy, "chunk", chunk)
    model = imagined(policy, frames)
    z, goal = torch.zeros(1, frames, 2, 4), torch.ones(1, 1, 2, 4)
    proposals = policy_proposer(policy, model, num_samples=3, closed_loop=True)(z, goal, PlannerState.initial((0,)), 5)
    assert proposals.shape == (1, 3, 5, 2)
    assert all(len(z_BTND) == 3 and z_BTND.shape[1] == 2 for z_BTND in seen)
    # It closes in on the goal by halves, as nobody could who looked once; the others, steered away, run away.
    torch.testing.assert_close(proposals[0, 0, :, 0], 0.05 * 0.5 ** torch.arange(5.0))
    assert (proposals[0, 1:, :, 0].diff(dim=1) < 0).all()
    single = policy_proposer(policy, model, num_samples=1, closed_loop=True)(z, goal, PlannerState.initial((0,)), 5)
    torch.testing.assert_close(single[0, 0], proposals[0, 0])


def test_a_world_that_diverges_for_one_proposal_leaves_the_others(monkeypatch) -> None:
    policy, calls = make_policy(), []
    plain = policy.chunk

    def chunk(z_BTND: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        assert torch.isfinite(z_BTND).all()
        calls.append(len(z_BTND))
        return plain(z_BTND, *rest, **options)

    class Diverging(Imagined):
        def imagine(self, context: torch.Tensor, act: Any, horizon: int) -> tuple[torch.Tensor, torch.Tensor]:
            def told(frames: list[torch.Tensor]) -> torch.Tensor:
                for z in frames:
                    z[2] = float("nan")
                return act(frames)

            return super().imagine(context, told, horizon)

    monkeypatch.setattr(policy, "chunk", chunk)
    z, goal = torch.zeros(1, 2, 2, 4), torch.ones(1, 1, 2, 4)
    propose = policy_proposer(policy, Diverging(**vars(model_like(policy))), num_samples=4, closed_loop=True)
    proposals = propose(z, goal, PlannerState.initial((0,)), 3)
    assert torch.isfinite(proposals[0]).flatten(1).all(1).tolist() == [True, True, False, True]
    assert calls == [4, 4, 4]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_closed_loops_do_not_depend_on_the_batch(kind: str) -> None:
    policy, generator = make_policy(kind), torch.Generator().manual_seed(0)
    z, goals = torch.randn(3, 2, 2, 4, generator=generator), torch.randn(3, 1, 2, 4, generator=generator)
    propose = policy_proposer(policy, imagined(policy), num_samples=4, closed_loop=True)
    together = propose(z, goals, PlannerState.initial((7, 8, 9)), 5)
    assert torch.isfinite(together).all()
    for b, seed in enumerate((7, 8, 9)):
        assert torch.equal(together[b : b + 1], propose(z[b : b + 1], goals[b : b + 1], PlannerState.initial((seed,)), 5))
    z[1, 1, 0, 0] = float("nan")
    assert torch.isnan(propose(z, goals, PlannerState.initial((7, 8, 9)), 5)).flatten(1).all(1).tolist() == [False, True, False]


def test_proposals_do_not_share_the_noise_of_the_search(monkeypatch) -> None:
    policy = make_policy("flow")
    drawn: list[torch.Tensor] = []

    def chunk(z_BTND: Any, z_goal_BND: Any, *, generator: torch.Generator, num_samples: int, **_: Any) -> torch.Tensor:
        drawn.append(torch.randn(1, num_samples, 3, 2, generator=generator))
        return drawn[-1]

    monkeypatch.setattr(policy, "chunk", chunk)
    proposals_of(policy, model_like(policy), torch.zeros(1, 2, 2, 4), torch.zeros(1, 1, 2, 4), (7,))
    (source,) = generators((7,), (0,))
    assert not torch.equal(drawn[0], torch.randn(drawn[0].shape, generator=source))
