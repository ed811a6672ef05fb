"""Training of policies: the same seed gives the same bits killed or not, faults stop it before a weight moves."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from goalward import UserError
from goalward.policies.gcbc import GCBC, GCBCOptions
from goalward.policies.network import PolicyNetwork
from goalward.policies.registry import KINDS
from goalward.policies.train import PolicyProgress, train_policy
from goalward.policies.train_config import PolicyTrainConfig, config_for
from goalward.wm.predictor import PredictorConfig

every_kind = pytest.mark.parametrize("kind", sorted(KINDS))


def tiny(kind: str, **changes) -> PolicyTrainConfig:
    given = {
        "network": PredictorConfig(width=16, depth=1, heads=2, horizon=3),
        "steps": 12,
        "batch_size": 16,
        "learning_rate": 3e-3,
        "warmup_steps": 3,
        "validate_every": 4,
        "validation_pairs": 32,
        "precision": "float32",
    }
    return config_for(kind, **(given | changes))


class Stopped(Exception):
    """Stands for a kill."""


def record(losses: list[float], stop_after: int | None = None):
    def report(progress: PolicyProgress) -> None:
        losses.append(progress.loss)
        if progress.step == stop_after:
            raise Stopped

    return report


def same(a: PolicyNetwork, b: PolicyNetwork) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_it_learns_to_go_toward_the_goal(walks) -> None:
    """In a random walk the mean action toward a goal k steps ahead points there; a held-out goal is no exception."""
    config = tiny("gcbc", steps=200, batch_size=64, learning_rate=1e-2, average_decay=0.95, validate_every=200)
    result = train_policy(config, walks(80), walks(10, seed=1))
    assert result.held_out.action_error < 0.85
    test = walks(10, seed=2)
    frames = test.clips(4)
    z, _, _ = test.normalised(result.latent, result.action).gather(frames, context=2, horizon=1)
    goal = result.latent.normalise(test.z_FND[frames + 4])
    acted = result.network.act(z, goal, None, options=GCBCOptions(), generator=None, num_samples=1)[:, 0, 0]
    way = test.z_FND[frames + 4, 0] - test.z_FND[frames, 0]
    far = way.norm(dim=1) > 0.06
    assert float((torch.cosine_similarity(acted, way) > 0)[far].float().mean()) > 0.95


@every_kind
def test_the_same_seed_gives_the_same_bits_and_another_does_not(walks, kind: str) -> None:
    runs = []
    for seed in (0, 0, 1):
        losses: list[float] = []
        runs.append((losses, train_policy(tiny(kind, seed=seed), walks(6), walks(2, seed=1), report=record(losses)).network))
    assert runs[0][0] == runs[1][0] != runs[2][0]
    assert same(runs[0][1], runs[1][1])


@every_kind
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stopped_run_continues_to_the_bit(walks, tmp_path, kind: str, precision: str) -> None:
    config, data, held_out = tiny(kind, precision=precision), walks(6), walks(2, seed=1)
    straight: list[float] = []
    whole = train_policy(config, data, held_out, out=tmp_path / "a", report=record(straight))
    first: list[float] = []
    with pytest.raises(Stopped):
        train_policy(config, data, held_out, out=tmp_path / "b", report=record(first, stop_after=10))
    rest: list[float] = []
    resumed = train_policy(config, data, held_out, out=tmp_path / "b", resume=True, report=record(rest))
    assert first[:8] + rest == straight, "the checkpoint of step 8 is continued"
    assert same(resumed.network, whole.network)
    assert resumed.held_out == whole.held_out


def test_a_run_with_other_options_goals_or_data_is_not_continued(walks, tmp_path) -> None:
    train_policy(tiny("flow"), walks(6), walks(2, seed=1), out=tmp_path, identity={"data": "one"})
    changed = tiny("flow", options=dataclasses.replace(tiny("flow").options, goal_drop=0.2), steps=14)
    with pytest.raises(UserError, match=r"config.options.goal_drop was 0.1, is 0.2; config.steps was 12, is 14; data was one, is two"):
        train_policy(changed, walks(6), walks(2, seed=1), out=tmp_path, identity={"data": "two"}, resume=True)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_divergence_raises_before_a_weight_moves(walks, tmp_path, monkeypatch, where: str) -> None:
    real, seen = GCBC.loss, []

    def poisoned(self, batch, generator):
        loss = real(self, batch, generator)
        if not torch.is_grad_enabled():
            return loss
        seen.append([p.detach().clone() for p in self.parameters()])
        if len(seen) <= 5:
            return loss
        return loss * float("nan") if where == "loss" else (loss - loss.detach()) ** 0.5

    monkeypatch.setattr(GCBC, "loss", poisoned)
    with pytest.raises(UserError, match=r"diverged at step 6.*learning_rate"):
        train_policy(tiny("gcbc"), walks(6), walks(2, seed=1), out=tmp_path)
    monkeypatch.undo()
    losses: list[float] = []
    train_policy(tiny("gcbc"), walks(6), walks(2, seed=1), out=tmp_path, resume=True, report=record(losses))
    assert len(losses) == 8, "the checkpoint of step 4 is sound"


def test_latents_that_are_not_finite_are_refused(walks) -> None:
    data = walks(6)
    data.z_FND[3] = float("nan")
    with pytest.raises(UserError, match="latents are not finite"):
        train_policy(tiny("gcbc"), data, walks(2, seed=1))


def test_episodes_without_actions_are_refused(walks) -> None:
    with pytest.raises(UserError, match="longer episodes"):
        train_policy(tiny("gcbc"), walks(6, steps=0), walks(2))


def test_held_out_episodes_never_change_what_is_learned(walks) -> None:
    a, b = (train_policy(tiny("inverse"), walks(6), walks(3, seed=seed)) for seed in (1, 2))
    assert same(a.network, b.network)
    assert a.held_out != b.held_out


def test_proprioception_is_learned_from_where_it_is_asked_for(walks) -> None:
    config = tiny("gcbc", proprio=True)
    assert train_policy(config, walks(6), walks(2, seed=1)).network.trunk.proprio is not None
    assert train_policy(tiny("gcbc"), walks(6), walks(2, seed=1)).network.trunk.proprio is None


def test_whoever_has_arrived_learns_to_hold(walks) -> None:
    """Beyond the goal the target is the hold action, in physical units."""
    config = tiny("gcbc", steps=1)
    whole = [train_policy(config, walks(6), walks(2, seed=1), hold=hold).held_out.loss for hold in (None, (0.0, 0.0), (0.03, 0.03))]
    assert whole[0] == whole[1] != whole[2]


@every_kind
def test_presets_hold_together(kind: str) -> None:
    assert config_for(kind).network.horizon == 3, "as long as a planner's plan by default"
    assert config_for(kind).network.context_frames == 2
    assert config_for(kind, debug=True).steps < 100


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("validate_every", 0),
        ("learning_rate", float("nan")),
        ("weight_decay", -1.0),
        ("grad_clip", 0.0),
        ("average_decay", 1.0),
        ("precision", "int8"),
        ("seed", -1),
        ("kind", "gcbd"),
        ("options", KINDS["flow"].options()),
    ],
)
def test_bad_options_are_named(field: str, value: object) -> None:
    with pytest.raises(UserError, match="options are FlowOptions" if field == "options" else "gcbd" if field == "kind" else field):
        dataclasses.replace(config_for("gcbc"), **{field: value})
