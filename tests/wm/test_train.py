"""Training: it learns, the same seed gives the same bits killed or not, faults stop it before a weight moves."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch

from goalward import UserError
from goalward.wm import train as train_module
from goalward.wm.predictor import LatentPredictor, PredictorConfig
from goalward.wm.train import PRESETS, TrainConfig, TrainProgress, train, training_loss
from goalward.wm.train_state import load_state

GOLDEN = Path(__file__).with_name("golden_losses.json")
TINY = TrainConfig(
    steps=20,
    batch_size=16,
    learning_rate=3e-3,
    warmup_steps=5,
    validate_every=5,
    validation_clips=32,
    precision="float32",
    predictor=PredictorConfig(width=16, depth=2, heads=2, horizon=3),
)


class Stopped(Exception):
    """Stands for a kill."""


def record(losses: list[float], stop_after: int | None = None):
    def report(progress: TrainProgress) -> None:
        losses.append(progress.loss)
        if progress.step == stop_after:
            raise Stopped

    return report


def weights(predictor: LatentPredictor) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in predictor.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_it_learns_a_world_and_needs_its_actions(point_world) -> None:
    config = dataclasses.replace(TINY, steps=300, learning_rate=1e-2, validate_every=300, average_decay=0.98)
    result = train(config, point_world(40), point_world(8, seed=1))
    assert result.evaluation.fraction[0] < 0.2
    assert result.evaluation.fraction[-1] < 0.2
    assert result.evaluation.fraction_shuffled[0] > 1
    assert result.evaluation.num_clips == 8 * 10, "the last evaluation takes every clip"


def test_the_loss_of_an_untrained_predictor_is_that_of_persistence(point_world) -> None:
    data = point_world(6)
    z, actions, true = data.gather(data.clips(3), context=2, horizon=3)
    predictor = LatentPredictor(TINY.predictor, num_tokens=4, dim=6, action_dim=2, generator=torch.Generator().manual_seed(0))
    rollout = (true - z[:, -1:]).square().mean()
    teacher = (true - torch.cat([z[:, -1:], true[:, :-1]], dim=1)).square().mean()
    torch.testing.assert_close(training_loss(predictor, z, actions, true, TINY), rollout + teacher)
    only = dataclasses.replace(TINY, rollout_weight=0.0, teacher_weight=2.0)
    torch.testing.assert_close(training_loss(predictor, z, actions, true, only), 2 * teacher)


def test_teacher_forcing_is_fed_true_frames_and_the_rollout_its_own(point_world) -> None:
    data = point_world(2)
    z, actions, true = data.gather(data.clips(3)[:4], context=2, horizon=3)
    generator = torch.Generator().manual_seed(0)
    predictor = LatentPredictor(TINY.predictor, num_tokens=4, dim=6, action_dim=2, generator=generator)
    with torch.no_grad():
        predictor.head.normal_(std=0.3, generator=generator)
    context = predictor.prime(z)
    rolled = predictor.rollout(context, actions[:, None])[:, 0]
    teacher = predictor.start(context, actions[:, None])
    fed = torch.cat([z[:, -1:], true[:, :-1]], dim=1)
    forced = torch.stack([teacher.step(fed[:, h][:, None])[:, 0] for h in range(3)], dim=1)
    expected = (rolled - true).square().mean() + (forced - true).square().mean()
    torch.testing.assert_close(training_loss(predictor, z, actions, true, TINY), expected)


def test_nothing_flows_into_the_targets(point_world) -> None:
    data = point_world(2)
    z, actions, true = data.gather(data.clips(3)[:4], context=2, horizon=3)
    predictor = LatentPredictor(TINY.predictor, num_tokens=4, dim=6, action_dim=2, generator=torch.Generator().manual_seed(0))
    before = data.z_FND.clone()
    training_loss(predictor, z, actions, true, TINY).backward()
    assert not true.requires_grad
    assert torch.equal(data.z_FND, before)
    assert predictor.head.grad is not None


def test_the_same_seed_gives_the_same_bits_and_another_does_not(point_world) -> None:
    runs = []
    for seed in (0, 0, 1):
        losses: list[float] = []
        result = train(dataclasses.replace(TINY, seed=seed), point_world(6), point_world(2, seed=1), report=record(losses))
        runs.append((losses, weights(result.predictor)))
    assert runs[0][0] == runs[1][0]
    assert same(runs[0][1], runs[1][1])
    assert runs[0][0] != runs[2][0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stopped_run_continues_to_the_bit(point_world, tmp_path, precision: str) -> None:
    """R31: 20 steps = 12 steps, a kill, and the rest: losses, weights and figures are equal."""
    config = dataclasses.replace(TINY, precision=precision)
    data, held_out = point_world(6), point_world(2, seed=1)
    straight: list[float] = []
    whole = train(config, data, held_out, out=tmp_path / "a", report=record(straight))
    first: list[float] = []
    with pytest.raises(Stopped):
        train(config, data, held_out, out=tmp_path / "b", report=record(first, stop_after=12))
    rest: list[float] = []
    resumed = train(config, data, held_out, out=tmp_path / "b", resume=True, report=record(rest))
    assert first[:10] + rest == straight, "the checkpoint of step 10 is continued"
    assert same(weights(resumed.predictor), weights(whole.predictor))
    assert resumed.evaluation == whole.evaluation


def test_resuming_a_finished_run_changes_nothing(point_world, tmp_path) -> None:
    data, held_out = point_world(6), point_world(2, seed=1)
    whole = train(TINY, data, held_out, out=tmp_path)
    again = train(TINY, data, held_out, out=tmp_path, resume=True, report=record(losses := []))
    assert not losses
    assert same(weights(again.predictor), weights(whole.predictor))


def test_a_run_with_other_options_or_data_is_not_continued(point_world, tmp_path) -> None:
    data, held_out = point_world(6), point_world(2, seed=1)
    train(TINY, data, held_out, out=tmp_path, identity={"data": "one"})
    with pytest.raises(UserError, match=r"config.steps was 20, is 30; data was one, is two"):
        train(dataclasses.replace(TINY, steps=30), data, held_out, out=tmp_path, identity={"data": "two"}, resume=True)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_divergence_raises_before_a_weight_moves(point_world, tmp_path, monkeypatch, where: str) -> None:
    """A NaN at step 13 leaves the weights of step 12 in memory and the checkpoint of step 10 on disk."""
    states, real = [], train_module._step
    loss_of = training_loss

    def poisoned(predictor, *arguments):
        loss = loss_of(predictor, *arguments)
        if states and states[-1].step == 12:
            return loss * float("nan") if where == "loss" else (loss - loss.detach()) ** 0.5
        return loss

    def watched(state, config, *batch):
        states.append(state)
        before = weights(state.predictor)
        moments = {k: v["exp_avg"].clone() for k, v in state.optimizer.state.items()}
        try:
            return real(state, config, *batch)
        except UserError:
            assert same(before, weights(state.predictor))
            assert all(torch.equal(moments[k], v["exp_avg"]) for k, v in state.optimizer.state.items())
            raise

    monkeypatch.setattr(train_module, "training_loss", poisoned)
    monkeypatch.setattr(train_module, "_step", watched)
    with pytest.raises(UserError, match=r"diverged at step 13.*learning_rate"):
        train(TINY, point_world(6), point_world(2, seed=1), out=tmp_path)
    monkeypatch.undo()
    generator = torch.Generator()
    state = train_module._new_state(TINY, point_world(6), torch.device("cpu"))
    state.generator = generator
    load_state(tmp_path, state, {"config": dataclasses.asdict(TINY)})
    assert state.step == 10
    assert all(torch.isfinite(p).all() for p in state.predictor.parameters())


def test_statistics_come_from_the_training_episodes_alone(point_world) -> None:
    data = point_world(6)
    result = train(dataclasses.replace(TINY, steps=1), data, point_world(2, seed=9))
    torch.testing.assert_close(result.latent.mean_ND, data.z_FND.mean(0))
    torch.testing.assert_close(result.action.mean, data.executed_actions().mean(0))
    torch.testing.assert_close(result.proprio.std, data.proprio_FP.std(0, correction=0))


def test_episodes_that_are_too_short_are_refused(point_world) -> None:
    with pytest.raises(UserError, match="horizon is 3"):
        train(TINY, point_world(3, steps=2), point_world(2))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("weight_decay", -1.0),
        ("grad_clip", 0.0),
        ("average_decay", 1.0),
        ("loss", "l7"),
        ("precision", "int8"),
        ("seed", -1),
    ],
)
def test_bad_options_are_named(field: str, value: object) -> None:
    with pytest.raises(UserError, match=field):
        TrainConfig(**{field: value})


def test_no_loss_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="teacher_weight and rollout_weight"):
        TrainConfig(teacher_weight=0.0, rollout_weight=0.0)


def test_presets_hold_together() -> None:
    assert PRESETS["default"] == TrainConfig()
    assert PRESETS["debug"].steps < 100


def test_losses_are_those_of_the_golden_file(point_world) -> None:
    """R33. After a wanted change: `GOALWARD_WRITE_GOLDEN=1 pytest tests/wm/test_train.py -k golden`, and say why in the commit."""
    losses: list[float] = []
    train(TINY, point_world(6), point_world(2, seed=1), report=record(losses))
    if os.environ.get("GOALWARD_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(losses, indent=1) + "\n")
    assert losses == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-4)
