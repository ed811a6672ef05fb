"""Planning with the true physics: predictions are what then happens, and looking ahead changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import goalward
from goalward import UserError
from goalward.envs.registry import make_env
from goalward.experiments.evaluation import EpisodeStart, run_episode
from goalward.experiments.oracle_dynamics import TrueDistance, TrueDynamics, oracle_dynamics_method, true_distance
from goalward.experiments.readout import ReadoutDistance
from goalward.planners.actions import Situation
from goalward.planners.methods.cem import CEMConfig
from goalward.planners.objectives import Outcome

TINY = CEMConfig(num_samples=6, num_iterations=1, num_elites=2, num_kept_elites=1)


@pytest.fixture(scope="module")
def model() -> Any:
    return goalward.load_model("reach")


@pytest.fixture(scope="module")
def env() -> Iterator[Any]:
    made = make_env("reach")
    yield made
    made.close()


def actions(*, num: int, horizon: int) -> torch.Tensor:
    return (torch.rand(1, num, horizon, 3, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.1


def test_predictions_are_what_then_happens(env: Any, model: Any) -> None:
    observation, _ = env.reset(seed=0, options={"goal_index": 0, "split": "validation"})
    z_BND = model.encode(torch.from_numpy(observation["pixels"])[None])
    truth = TrueDynamics(model, env)
    actions_BSHA = actions(num=2, horizon=2)
    z_BSHND = truth.rollout(truth.prime(z_BND[:, None]), actions_BSHA)
    assert z_BSHND.shape == (1, 2, 2, *z_BND.shape[1:])
    for step in range(2):
        observation, *_ = env.step(actions_BSHA[0, 1, step].numpy())
        assert torch.equal(model.encode(torch.from_numpy(observation["pixels"])[None])[0], z_BSHND[0, 1, step])


def test_the_last_frame_alone_is_the_same_frame(env: Any, model: Any) -> None:
    env.reset(seed=0, options={"goal_index": 0, "split": "validation"})
    z_BTND, actions_BSHA = torch.zeros(1, 1, 8, 64), actions(num=2, horizon=3)
    truths = (TrueDynamics(model, env), TrueDynamics(model, env, last_only=True))
    whole, last = (truth.rollout(truth.prime(z_BTND), actions_BSHA) for truth in truths)
    assert torch.equal(last[:, :, -1], whole[:, :, -1])
    assert torch.isnan(last[:, :, :-1]).all(), "nobody may take what was not drawn for a prediction"


def outcome_of(model: Any, env: Any, actions_BSHA: torch.Tensor, goal_pixels: np.ndarray, *, last_only: bool) -> Outcome:
    truth = TrueDynamics(model, env, last_only=last_only)
    z_goal_BGND = model.encode(torch.from_numpy(goal_pixels)[None])[:, None]
    return Outcome(
        z_BSHND=truth.rollout(truth.prime(z_goal_BGND), actions_BSHA), z_goal_BGND=z_goal_BGND, actions_BSHA=actions_BSHA,
        unit_A=torch.full((3,), 0.05), situation=Situation(),
    )  # fmt: skip


def test_what_stands_in_for_the_latent_distance_counts_the_same_steps(env: Any, model: Any) -> None:
    _, info = env.reset(seed=0, options={"goal_index": 0, "split": "validation"})
    actions_BSHA = actions(num=2, horizon=3)
    whole, last = (outcome_of(model, env, actions_BSHA, info["goal_pixels"], last_only=only) for only in (False, True))
    metres = torch.from_numpy(np.stack([env.unwrapped.foresee(actions_HA) for actions_HA in actions_BSHA[0].numpy()])).float()
    torch.testing.assert_close(TrueDistance(env=env).cost(whole)[0], metres.mean(1))
    torch.testing.assert_close(TrueDistance(env=env, step_weights="last").cost(last)[0], metres[:, -1])

    class Sum:
        def read(self, z: torch.Tensor) -> torch.Tensor:
            return z[..., :3].double()

    goal, seen = last.z_goal_BGND[0, 0].flatten()[:3], whole.z_BSHND[0].flatten(-2)[..., :3]
    for step_weights, outcome, wanted in (
        ("uniform", whole, (seen - goal).norm(dim=-1).mean(1)),
        ("last", last, (seen - goal).norm(dim=-1)[:, -1]),
    ):
        readout: Any = Sum()
        cost = ReadoutDistance(readout=readout, step_weights=step_weights).cost(outcome)  # type: ignore[arg-type]
        torch.testing.assert_close(cost[0], wanted)


def test_nothing_is_taken_for_a_delay(env: Any, model: Any) -> None:
    """Delays are told from predictions of the newest frame; the simulator predicts the next one instead, and holding explains no motion."""
    method = oracle_dynamics_method(env, model, "cem", TINY, horizon=1)
    observation, info = env.reset(seed=0, options={"goal_index": 0, "split": "validation"})
    policy = method.begin(EpisodeStart(goal_pixels=info["goal_pixels"], info=env.unwrapped.spec_info, seed=0))
    controller = policy.controller  # type: ignore[attr-defined]
    for _ in range(3):
        observation, *_ = env.step(policy(observation))
        assert controller.last_delay_steps == 0
    assert len(controller.state.delay.sent_KA) == 1, "it is not looked for"


def test_looking_ahead_changes_nothing(env: Any, model: Any) -> None:
    def end(look: bool) -> np.ndarray:
        observation, _ = env.reset(seed=0, options={"goal_index": 1, "split": "validation"})
        for action in actions(num=1, horizon=3)[0, 0].numpy():
            if look:
                env.unwrapped.imagine(actions(num=1, horizon=2)[0, 0].numpy())
                env.unwrapped.foresee(actions(num=1, horizon=2)[0, 0].numpy())
            observation, *_ = env.step(action)
        return observation["pixels"]

    np.testing.assert_array_equal(end(False), end(True))


def test_it_has_no_gradients_and_one_environment(env: Any, model: Any) -> None:
    truth = TrueDynamics(model, env)
    env.reset(seed=0)
    with pytest.raises(UserError, match="no gradients"), torch.enable_grad():
        truth.rollout(torch.zeros(1, 1, 8, 64), actions(num=1, horizon=1).requires_grad_())
    with pytest.raises(UserError, match="2 problems"):
        truth.prime(torch.zeros(2, 2, 8, 64))


@pytest.mark.parametrize("objective", ["latent", "state"])
def test_a_few_steps_come_nearer_to_the_goal(objective: Any, env: Any, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    method = oracle_dynamics_method(env, model, "cem", TINY, horizon=2, objective=None if objective == "latent" else true_distance(env))
    assert method.role == "privileged reference"
    monkeypatch.setattr(env.unwrapped, "spec_info", replace(env.unwrapped.spec_info, max_episode_steps=3))
    record = run_episode(env, method, index=0, seed=0, split="validation")
    assert record.steps == 3
    first, last = record.distances_m[0], record.distances_m[-1]
    assert first is not None
    assert last is not None
    assert last < first - 0.03
