"""What each kind must learn, in worlds where the right answer is known."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from goalward import UserError
from goalward.policies.flow import Flow, FlowOptions
from goalward.policies.gcbc import GCBC, GCBCOptions
from goalward.policies.hindsight import HindsightBatch, HindsightConfig
from goalward.policies.inverse import Inverse, InverseOptions
from goalward.policies.network import PolicyNetwork, Shape
from goalward.policies.registry import KINDS, find_kind
from goalward.policies.train import train_policy
from goalward.policies.train_config import config_for
from goalward.wm.predictor import LatentPredictor, PredictorConfig

SMALL = PredictorConfig(width=32, depth=1, heads=2, context_frames=2, horizon=1)
SHAPE = Shape(num_tokens=2, dim=2, action_dim=2)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fit(network: PolicyNetwork, make_batch, steps: int = 250, rate: float = 5e-3) -> PolicyNetwork:
    source = generator(1)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        optimizer.zero_grad()
        network.loss(make_batch(source), source).backward()
        optimizer.step()
    return network.requires_grad_(False)


def batch_of(z: torch.Tensor, goal: torch.Tensor, actions: torch.Tensor, steps: torch.Tensor | None = None) -> HindsightBatch:
    C = len(z)
    return HindsightBatch(
        z_CTND=z,
        z_goal_CND=goal,
        actions_CHA=actions,
        steps_C=torch.ones(C, dtype=torch.int64) if steps is None else steps,
        proprio_CP=torch.zeros(C, 1),
    )


def act(network: PolicyNetwork, z, goal, *, source=None, num_samples: int = 1, **changes) -> torch.Tensor:
    options = network.options.adjusted(**changes)
    return network.act(z, goal, None, options=options, generator=source, num_samples=num_samples)


def test_inverse_dynamics_finds_the_action_that_was_taken(walks) -> None:
    """z' = z + a: the action one step from the goal is their difference; from k steps away it is a k-th of it."""
    config = config_for(
        "inverse",
        network=dataclasses.replace(SMALL, width=32),
        options=InverseOptions(max_steps=4),
        hindsight=HindsightConfig(rule="within", max_steps=4),
        steps=300,
        batch_size=128,
        learning_rate=1e-2,
        average_decay=0.98,
        precision="float32",
        validate_every=300,
    )
    result = train_policy(config, walks(60), walks(8, seed=1))
    test = walks(8, seed=2)
    for steps in (1, 3):
        frames = test.clips(steps)
        z, _, _ = test.normalised(result.latent, result.action).gather(frames, context=2, horizon=1)
        goal = result.latent.normalise(test.z_FND[frames + steps])
        chunk = act(result.network, z, goal, rule="fixed", fixed_steps=steps)[:, 0, 0]
        found = result.action.denormalise(chunk)
        expected = (test.z_FND[frames + steps, 0] - test.z_FND[frames, 0]) / steps
        assert float((found - expected).abs().mean()) < 0.006, "actions reach up to 0.05"


def test_inverse_dynamics_learns_how_long_it_takes_and_asks_for_less() -> None:
    """The goal says how far it is; episodes took that long or twice as long, equally often."""

    def make(source: torch.Generator, count: int = 128) -> HindsightBatch:
        far = torch.randint(1, 4, (count,), generator=source)
        steps = far * torch.randint(1, 3, (count,), generator=source)
        goal = far[:, None, None].expand(-1, 2, 2).float()
        z = torch.zeros(count, 2, 2, 2)
        return batch_of(z, goal, (far / steps)[:, None, None].expand(-1, 1, 2), steps)

    network = fit(Inverse(SMALL, InverseOptions(max_steps=6, time_weight=1.0), SHAPE, generator()), make)
    z, goal = torch.zeros(3, 2, 2, 2), torch.arange(1.0, 4.0)[:, None, None].expand(-1, 2, 2)
    assert isinstance(network, Inverse)
    summary = network.trunk(z, network.trunk.see_goal(goal), None)
    for quantile, factor in ((0.1, 1), (0.9, 2)):
        chosen = network.chosen_steps(summary, dataclasses.replace(network.options, quantile=quantile))
        assert chosen.tolist() == [factor, 2 * factor, 3 * factor]
        torch.testing.assert_close(act(network, z, goal, quantile=quantile), torch.full((3, 1, 1, 2), 1 / factor), atol=0.1, rtol=0)


def test_a_quantile_that_rounding_never_reaches_means_the_last_step() -> None:
    network = Inverse(SMALL, InverseOptions(max_steps=3), SHAPE, generator())
    with torch.no_grad():
        network.time.zero_()
        network.time_bias.copy_(torch.tensor([0.0, 0.0, 30.0]))
    assert network.chosen_steps(torch.zeros(1, 32), InverseOptions(max_steps=3, quantile=1 - 1e-9)).tolist() == [3]


def test_cloning_regresses_the_mean() -> None:
    """Two actions are equally usual: squared error answers with what lies between them."""

    def make(source: torch.Generator, count: int = 64) -> HindsightBatch:
        z, goal = torch.randn(count, 2, 2, 2, generator=source), torch.randn(count, 2, 2, generator=source)
        sign = torch.randint(0, 2, (count, 1), generator=source) * 2.0 - 1.0
        return batch_of(z, goal, (torch.tanh(goal[:, 0]) + 0.5 * sign)[:, None])

    network = fit(GCBC(SMALL, GCBCOptions(), SHAPE, generator()), make)
    test = make(generator(9), 256)
    error = act(network, test.z_CTND, test.z_goal_CND)[:, 0, 0] - torch.tanh(test.z_goal_CND[:, 0])
    assert float(error.square().mean()) < 0.03


@pytest.fixture(scope="module")
def two_ways() -> Flow:
    """A flow that has seen actions of +1 and of -1 in both entries alike, in any state; the goal says how far up to go besides."""

    def make(source: torch.Generator, count: int = 128) -> HindsightBatch:
        z, goal = torch.randn(count, 2, 2, 2, generator=source), torch.randint(0, 2, (count, 1, 1), generator=source) * 2.0 - 1.0
        sign = torch.randint(0, 2, (count,), generator=source) * 2.0 - 1.0
        return batch_of(z, goal.expand(-1, 2, 2), torch.stack([sign, goal[:, 0, 0]], dim=1)[:, None])

    network = fit(Flow(SMALL, FlowOptions(euler_steps=16), SHAPE, generator()), make, steps=250)
    assert isinstance(network, Flow)
    return network


def test_a_flow_keeps_both_modes(two_ways: Flow) -> None:
    """Where regression would answer 0, a flow answers +1 or -1, and both."""
    z, goal = torch.randn(1, 2, 2, 2, generator=generator(3)), torch.ones(1, 2, 2)
    first = act(two_ways, z, goal, source=generator(4), num_samples=400)[0, :, 0, 0]
    assert 0.3 < float((first > 0).float().mean()) < 0.7
    assert float((first.abs() > 0.6).float().mean()) > 0.9
    assert float(first.abs().median()) == pytest.approx(1.0, abs=0.15)


def test_a_flow_follows_the_goal_and_forgets_it_at_weight_0(two_ways: Flow) -> None:
    z = torch.randn(1, 2, 2, 2, generator=generator(3)).expand(2, -1, -1, -1)
    goal = torch.tensor([1.0, -1.0])[:, None, None].expand(-1, 2, 2)
    told = act(two_ways, z, goal, source=generator(4), num_samples=200)[:, :, 0, 1]
    assert float((told[0] > 0.5).float().mean()) > 0.95
    assert float((told[1] < -0.5).float().mean()) > 0.95
    untold = act(two_ways, z, goal, source=generator(4), num_samples=200, guidance=0.0)[:, :, 0, 1]
    assert 0.25 < float((untold[0] > 0).float().mean()) < 0.75
    assert torch.equal(*(act(two_ways, z[:1], g[None], source=generator(4), guidance=0.0) for g in goal)), "the goal is not looked at"


def test_guidance_of_1_is_the_conditional_flow_and_more_goes_further_the_same_way(two_ways: Flow) -> None:
    """With one Euler step the formula is linear in the weight; at 1 nothing but the conditional network is called."""
    z, goal = torch.randn(3, 2, 2, 2, generator=generator(3)), torch.ones(3, 2, 2)
    x = {w: act(two_ways, z, goal, source=generator(4), num_samples=5, euler_steps=1, guidance=w) for w in (0.0, 1.0, 1.5, 3.0)}
    for weight in (1.5, 3.0):
        torch.testing.assert_close(x[weight], x[0.0] + weight * (x[1.0] - x[0.0]))
    summary = two_ways.trunk(z, two_ways.trunk.see_goal(goal), None)
    noise = torch.randn(3, 5, 2, generator=generator(4))
    velocity = two_ways._velocity(noise, torch.zeros(3, 5), summary)
    assert torch.equal(x[1.0], (noise + velocity)[:, :, None])


def test_temperature_0_and_no_generator_give_the_typical_chunk(two_ways: Flow) -> None:
    z, goal = torch.randn(2, 2, 2, 2, generator=generator(3)), torch.ones(2, 2, 2)
    cold = act(two_ways, z, goal, source=generator(1), num_samples=3, temperature=0.0)
    torch.testing.assert_close(cold, act(two_ways, z, goal).expand(-1, 3, -1, -1))
    assert torch.equal(act(two_ways, z, goal), act(two_ways, z, goal))


@pytest.mark.parametrize("name", sorted(KINDS))
def test_an_untrained_policy_answers_the_mean_of_the_data(name: str) -> None:
    kind = KINDS[name]
    network = kind.network(SMALL, kind.options(), SHAPE, generator())
    source = generator(2)
    z, goal = torch.randn(2, 2, 2, 2, generator=source), torch.randn(2, 2, 2, generator=source)
    assert not act(network, z, goal).any()


@pytest.mark.parametrize("name", sorted(KINDS))
def test_samples_follow_the_generator_and_many_need_one(name: str) -> None:
    kind = KINDS[name]
    network = kind.network(SMALL, kind.options(), SHAPE, generator())
    z, goal = torch.zeros(2, 2, 2, 2), torch.ones(2, 2, 2)
    a, b, c = (act(network, z, goal, source=generator(seed), num_samples=4) for seed in (1, 1, 2))
    assert a.shape == (2, 4, 1, 2)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    with pytest.raises(UserError, match="generator"):
        act(network, z, goal, num_samples=2)


@pytest.mark.parametrize("name", ["gcbc", "inverse"])
def test_one_answer_comes_first_and_then_with_noise_of_the_stated_spread(name: str) -> None:
    kind = KINDS[name]
    network = kind.network(SMALL, kind.options(), SHAPE, generator())
    z, goal = torch.zeros(1, 2, 2, 2), torch.ones(1, 2, 2)
    samples = act(network, z, goal, source=generator(1), num_samples=2001, spread=0.7).detach()
    assert torch.equal(samples[:, :1], act(network, z, goal))
    assert float((samples[:, 1:] - samples[:, :1]).std()) == pytest.approx(0.7, abs=0.03)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_policies_have_about_as_many_weights_as_the_predictor(name: str) -> None:
    kind = KINDS[name]
    shape = Shape(num_tokens=8, dim=64, action_dim=3)
    count = sum(p.numel() for p in kind.network(kind.network.default_size, kind.options(), shape, generator()).parameters())
    predictor = LatentPredictor(PredictorConfig(), num_tokens=8, dim=64, action_dim=3, generator=generator())
    assert count == pytest.approx(sum(p.numel() for p in predictor.parameters()), rel=0.15)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_weight_is_trained(name: str) -> None:
    """A weight that no gradient reaches could not be continued from a checkpoint."""
    kind = KINDS[name]
    shape = dataclasses.replace(SHAPE, proprio_dim=1)
    network = kind.network(SMALL, kind.options(), shape, generator())
    source = generator(1)
    z, goal = torch.randn(64, 2, 2, 2, generator=source), torch.randn(64, 2, 2, generator=source)
    network.loss(batch_of(z, goal, torch.randn(64, 1, 2, generator=source)), source).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert not list(network.buffers())


def test_an_unknown_kind_is_named_with_near_ones() -> None:
    with pytest.raises(UserError, match="did you mean gcbc"):
        find_kind("gcbd")
    with pytest.raises(UserError, match="choose gcbc, flow, inverse"):
        find_kind("zzz")


@pytest.mark.parametrize(
    ("options", "change", "said"),
    [
        (GCBCOptions, {"loss": "l7"}, "loss is 'l7'"),
        (GCBCOptions, {"spread": -1.0}, "spread is -1.0"),
        (FlowOptions, {"goal_drop": 0.0}, "goal_drop is 0.0"),
        (FlowOptions, {"draws": 0}, "draws is 0"),
        (FlowOptions, {"euler_steps": 0}, "euler_steps is 0"),
        (FlowOptions, {"guidance": float("nan")}, "guidance is nan"),
        (FlowOptions, {"temperature": -0.1}, "temperature is -0.1"),
        (InverseOptions, {"max_steps": 1}, "max_steps is 1"),
        (InverseOptions, {"time_weight": -1.0}, "time_weight"),
        (InverseOptions, {"rule": "guess"}, "rule is 'guess'"),
        (InverseOptions, {"quantile": 1.0}, "quantile is 1.0"),
        (InverseOptions, {"fixed_steps": 25}, "fixed_steps is 25"),
        (InverseOptions, {"spread": 11.0}, "spread is 11.0"),
    ],
)
def test_bad_options_are_named(options: type, change: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        options(**change)


def test_what_training_fixed_stays_fixed() -> None:
    assert FlowOptions().adjusted(guidance=3.0).guidance == 3.0
    with pytest.raises(UserError, match=r"goal_drop cannot be changed.*guidance, euler_steps, temperature can"):
        FlowOptions().adjusted(goal_drop=0.5)
    with pytest.raises(UserError, match=r"guidance cannot be changed.*spread can"):
        GCBCOptions().adjusted(guidance=1.0)
