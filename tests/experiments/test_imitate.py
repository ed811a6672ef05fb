"""`goalward imitate`: data to a loadable policy, every mistake one line that says what to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from goalward import UserError
from goalward.datasets.store import Episode, EpisodeWriter, StoreSpec
from goalward.experiments import imitate as command
from goalward.experiments.imitate import ImitateCommand, run
from goalward.experiments.train import TrainCommand
from goalward.experiments.train import run as run_train
from goalward.policies import load_policy, train_config
from goalward.policies.registry import KINDS
from goalward.wm import train as world_model_train
from goalward.wm.encoders import SmallEncoder, SmallEncoderConfig, SmallEncoderNetwork, save_small_encoder
from goalward.wm.model import load_model
from goalward.wm.predictor import PredictorConfig

SIDE = 32
every_kind = pytest.mark.parametrize("kind", sorted(KINDS))


@pytest.fixture
def encoder(tmp_path) -> Path:
    shape = SmallEncoderConfig(image_size_px=SIDE, widths=(8, 8, 8), blocks=(0, 0, 0), dim=6)
    tiny = SmallEncoder(SmallEncoderNetwork(shape, torch.Generator().manual_seed(0)), name="tiny")
    save_small_encoder(tmp_path / "encoder", tiny, provenance={"a": 1})
    return tmp_path / "encoder"


@pytest.fixture
def data(tmp_path) -> Path:
    """Twelve episodes of a bright square that actions push about, seen by two cameras."""
    spec = StoreSpec(
        env="point",
        env_id="Goalward/Point-v0",
        cameras=("front", "side"),
        image_size_px=SIDE,
        dt_s=0.2,
        action_names=("dx_m", "dy_m"),
        action_low=(-0.05, -0.05),
        action_high=(0.05, 0.05),
        proprio_names=("x_m", "y_m"),
    )
    rng = np.random.default_rng(0)
    with EpisodeWriter(tmp_path / "data", spec) as writer:
        for index in range(12):
            actions = rng.uniform(-0.05, 0.05, (8, 2)).astype(np.float32)
            x = np.cumsum(np.concatenate([rng.uniform(0.3, 0.7, (1, 2)), actions * 2]), axis=0).clip(0.1, 0.9)
            pixels = np.zeros((9, 2, SIDE, SIDE, 3), np.uint8)
            for t, (a, b) in enumerate((x * SIDE).astype(int)):
                pixels[t, 0, a - 3 : a + 3, b - 3 : b + 3] = 255
                pixels[t, 1, b - 3 : b + 3, a - 3 : a + 3] = 200
            writer.append(Episode(pixels=pixels, proprio=x.astype(np.float32), actions=actions, seed=index, behaviour="explore"))
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch) -> None:
    real = train_config.config_for

    def tiny(kind: str, **changes: object) -> train_config.PolicyTrainConfig:
        found = real(kind, **changes)
        size = dataclasses.replace(found.network, width=16, depth=1, heads=2)
        return dataclasses.replace(found, network=size, steps=12, batch_size=8, validate_every=6, validation_pairs=16)

    monkeypatch.setattr(train_config, "config_for", tiny)


def options(data: Path, encoder: Path, out: Path, **changes: object) -> ImitateCommand:
    given = {"env": "point", "data": data, "encoder": str(encoder), "out": out, "device": "cpu", "threads": 1, "quiet": True}
    return ImitateCommand(**{**given, **changes})


def weights(folder: Path) -> bytes:
    return (folder / "policy.safetensors").read_bytes()


@every_kind
def test_the_command_makes_a_policy_that_loads(data, encoder, tmp_path, kind: str) -> None:
    assert run(options(data, encoder, tmp_path / "out", policy=kind)) == 0
    policy = load_policy(tmp_path / "out")
    assert policy.kind == kind
    assert policy.cameras == ("front", "side")
    assert policy.horizon == 3
    assert policy.description.training["config"]["steps"] == 12
    assert policy.description.training["episodes"] == {"train": 10, "validation": 1}
    assert policy.description.training["held_out"]["num_pairs"] == 8
    assert "fraction" not in policy.description.training
    z = policy.encode(np.zeros((1, 2, SIDE, SIDE, 3), np.uint8))
    assert torch.isfinite(policy.chunk(torch.stack([z, z], 1), z)).all()


def test_policy_and_world_model_share_latents_and_units(data, encoder, tmp_path, monkeypatch) -> None:
    """The same episodes give the same statistics, so that latents pass from one to the other as they are."""
    small = dataclasses.replace(
        world_model_train.PRESETS["debug"], steps=2, validate_every=2, predictor=PredictorConfig(width=16, depth=1, heads=2, horizon=3)
    )
    monkeypatch.setitem(world_model_train.PRESETS, "debug", small)
    given = {"env": "point", "data": data, "encoder": str(encoder), "preset": "debug", "device": "cpu", "threads": 1, "quiet": True}
    run_train(TrainCommand(out=tmp_path / "model", **given))
    run(options(data, encoder, tmp_path / "policy"))
    model, policy = load_model(tmp_path / "model"), load_policy(tmp_path / "policy")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 2, SIDE, SIDE, 3), dtype=np.uint8)
    assert torch.equal(model.encode(pixels), policy.encode(pixels))
    for name in ("action_mean", "action_std", "proprio_std", "data_hash", "encoder", "env"):
        assert getattr(model.description, name) == getattr(policy.description, name)


def test_a_second_run_uses_the_cache_and_gives_the_same_weights(data, encoder, tmp_path, monkeypatch) -> None:
    run(options(data, encoder, tmp_path / "a"))
    monkeypatch.setattr(SmallEncoder, "encode", lambda *_: pytest.fail("encoded again"))
    run(options(data, encoder, tmp_path / "b"))
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_a_share_of_the_episodes_is_recorded_and_smaller_shares_lie_inside_it(data, encoder, tmp_path) -> None:
    run(options(data, encoder, tmp_path / "half", fraction=0.5))
    training = load_policy(tmp_path / "half").description.training
    assert training["fraction"] == 0.5
    assert training["episodes"] == {"train": 5, "validation": 1}
    assert len(training["share_sha256"]) == 64
    with pytest.raises(UserError, match=r"fraction was 0.5, is 0.3"):
        run(options(data, encoder, tmp_path / "half", fraction=0.3, resume=True))


def test_a_world_model_learns_from_the_same_share(data, encoder, tmp_path, monkeypatch) -> None:
    small = dataclasses.replace(
        world_model_train.PRESETS["debug"], steps=2, validate_every=2, predictor=PredictorConfig(width=16, depth=1, heads=2, horizon=3)
    )
    monkeypatch.setitem(world_model_train.PRESETS, "debug", small)
    given = {"env": "point", "data": data, "encoder": str(encoder), "preset": "debug", "device": "cpu", "threads": 1, "quiet": True}
    run_train(TrainCommand(out=tmp_path / "model", fraction=0.5, **given))
    run(options(data, encoder, tmp_path / "policy", fraction=0.5))
    facts = [found.description.training for found in (load_model(tmp_path / "model"), load_policy(tmp_path / "policy"))]
    for name in ("fraction", "share_sha256", "episodes"):
        assert facts[0][name] == facts[1][name]


def test_an_interrupted_run_resumes_to_the_same_policy(data, encoder, tmp_path, monkeypatch) -> None:
    run(options(data, encoder, tmp_path / "whole", policy="flow"))
    real = command._Bar.update

    def interrupted(self: object, progress: object) -> None:
        if progress.step == 9:
            raise KeyboardInterrupt
        real(self, progress)

    with monkeypatch.context() as patch:
        patch.setattr(command._Bar, "update", interrupted)
        assert run(options(data, encoder, tmp_path / "out", policy="flow")) == 130
    assert not (tmp_path / "out" / "policy.json").exists()
    assert run(options(data, encoder, tmp_path / "out", policy="flow", resume=True)) == 0
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


def test_a_finished_run_is_not_overwritten(data, encoder, tmp_path) -> None:
    run(options(data, encoder, tmp_path / "out"))
    before = weights(tmp_path / "out")
    with pytest.raises(UserError, match=r"already holds a run.*--resume"):
        run(options(data, encoder, tmp_path / "out"))
    assert weights(tmp_path / "out") == before


def test_resuming_with_another_kind_or_seed_is_refused(data, encoder, tmp_path) -> None:
    run(options(data, encoder, tmp_path / "out"))
    with pytest.raises(UserError, match=r"config.seed was 0, is 4"):
        run(options(data, encoder, tmp_path / "out", resume=True, seed=4))
    with pytest.raises(UserError, match=r"config.kind was gcbc, is flow"):
        run(options(data, encoder, tmp_path / "out", resume=True, policy="flow"))


def test_options_reach_the_network(data, encoder, tmp_path) -> None:
    run(options(data, encoder, tmp_path / "out", policy="inverse", horizon=2, proprio=True, cameras=("side",), steps=3))
    description = load_policy(tmp_path / "out").description
    assert description.network.horizon == 2
    assert description.proprio
    assert description.env.cameras == ("side",)
    assert description.training["config"]["steps"] == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"horizon": 0}, "horizon is 0"),
        ({"threads": -1}, "threads is -1"),
        ({"cameras": ("a", "a")}, "cameras a, a"),
        ({"fraction": 0.0}, "fraction is 0.0"),
        ({"fraction": 1.5}, "fraction is 1.5"),
        ({"fraction": float("nan")}, "fraction is nan"),
    ],
)
def test_bad_options_are_named(change: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ImitateCommand(**change)


def test_mistakes_say_what_to_do(data, encoder, tmp_path) -> None:
    with pytest.raises(UserError, match="did you mean gcbc"):
        run(options(data, encoder, tmp_path / "out", policy="gcb"))
    with pytest.raises(UserError, match=r"goalward collect --env point --out .*nowhere"):
        run(options(tmp_path / "nowhere", encoder, tmp_path / "out"))
    with pytest.raises(UserError, match="episodes of point, not of reach"):
        run(options(data, encoder, tmp_path / "out", env="reach"))
    with pytest.raises(UserError, match="tpu"):
        run(options(data, encoder, tmp_path / "out", device="tpu"))
    with pytest.raises(UserError, match=r"wrist.*front, side"):
        run(options(data, encoder, tmp_path / "out", cameras=("wrist",)))


def test_it_says_what_it_made(data, encoder, tmp_path, capsys) -> None:
    run(options(data, encoder, tmp_path / "out", quiet=False))
    shown = capsys.readouterr()
    assert "million weights, held-out loss" in shown.out
    assert "load_policy" in shown.err
