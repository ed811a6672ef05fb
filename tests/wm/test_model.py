"""The world model as planners see it: physical units outside, normalised inside, clear refusals."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from goalward import UserError
from goalward.planners.base import WorldModel as PlannersView
from goalward.wm import model as model_module
from goalward.wm.checkpoint import EncoderReference, ModelDescription, save_model
from goalward.wm.compiled import CompiledRollout
from goalward.wm.encoders import SmallEncoder, SmallEncoderConfig, SmallEncoderNetwork, save_small_encoder
from goalward.wm.model import WorldModel, load_model
from goalward.wm.predictor import LatentPredictor, PredictorConfig

SIZES = PredictorConfig(width=16, depth=2, heads=2)
MEAN = torch.linspace(-1, 1, 40).reshape(8, 5)


def describe(signature, encoder, **changes: object) -> ModelDescription:
    return ModelDescription(
        **{
            "predictor": SIZES,
            "num_tokens": 2 * encoder.tokens_per_view,
            "dim": encoder.dim,
            "env": signature,
            "encoder": EncoderReference(name=encoder.name, fingerprint=encoder.fingerprint, shipped=False),
            "latent_scale": 0.25,
            "action_mean": (0.01, -0.02),
            "action_std": (0.03, 0.02),
            "proprio_mean": (0.0, 0.0, 0.0),
            "proprio_std": (1.0, 1.0, 1.0),
            "data_hash": "cd" * 32,
            "training": {},
            "versions": {},
            **changes,
        }
    )


def trained(encoder) -> LatentPredictor:
    generator = torch.Generator().manual_seed(0)
    predictor = LatentPredictor(SIZES, num_tokens=2 * encoder.tokens_per_view, dim=encoder.dim, action_dim=2, generator=generator)
    with torch.no_grad():
        predictor.head.normal_(std=0.3, generator=generator)
    return predictor


@pytest.fixture
def model(signature, encoder) -> WorldModel:
    return WorldModel(describe(signature, encoder), trained(encoder), MEAN, encoder, dtype=torch.float32)


def pixels(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, 2, 8, 8, 3), dtype=np.uint8)


def test_it_is_what_planners_ask_for(model) -> None:
    for name in (name for name in vars(PlannersView) if not name.startswith("_")):
        assert hasattr(model, name), name
    assert (model.num_views, model.cameras, model.image_size_px, model.context_frames, model.dt_s) == (2, ("front", "side"), 8, 2, 0.2)
    assert model.action_low.dtype == model.action_high.dtype == torch.float32
    torch.testing.assert_close(model.action_high, torch.tensor([0.05, 0.05]))
    assert model.device == torch.device("cpu")


def test_latents_are_normalised_views_in_camera_order(model, encoder) -> None:
    frames = pixels(3)
    z = model.encode(frames)
    assert z.shape == (3, 8, 5)
    assert z.dtype == torch.float32
    tokens = torch.cat([encoder.encode(frames[:, 0]), encoder.encode(frames[:, 1])], dim=1)
    torch.testing.assert_close(z, (tokens - MEAN) / 0.25)
    torch.testing.assert_close(model.encode(torch.from_numpy(frames)), z)


def test_actions_are_physical(model) -> None:
    """R42: an action that skips normalisation must not go unnoticed."""
    context = model.prime(model.encode(pixels(2))[None])
    actions = torch.tensor([0.02, 0.01]).expand(1, 1, 3, 2)
    inside = (actions - torch.tensor([0.01, -0.02])) / torch.tensor([0.03, 0.02])
    expected = model._predictor.rollout(context, inside)
    torch.testing.assert_close(model.rollout(context, actions), expected)
    assert not torch.allclose(model.rollout(context, inside), expected)


def test_rollouts_carry_gradients_to_the_actions_only(model) -> None:
    context = model.prime(model.encode(pixels(2))[None])
    actions = torch.zeros(1, 4, 3, 2, requires_grad=True)
    model.rollout(context, actions).square().sum().backward()
    assert actions.grad is not None
    assert torch.isfinite(actions.grad).all()
    assert actions.grad.abs().min() > 0
    assert not any(p.requires_grad for p in model._predictor.parameters())


def test_what_is_imagined_is_what_a_rollout_of_the_same_actions_predicts(model) -> None:
    context, shown = model.prime(model.encode(pixels(2))[None]), []

    def act(frames: list[torch.Tensor]) -> torch.Tensor:
        shown.append(len(frames))
        # A feedback of the newest frame: it cannot be said in advance.
        newest = frames[-1].mean((1, 2)) if frames else torch.zeros(3)
        return 0.03 * torch.stack([torch.sin(50 * newest + torch.arange(3)), torch.cos(50 * newest)], dim=1)

    actions, z = model.imagine(context, act, 4)
    assert actions.shape == (1, 3, 4, 2)
    assert shown == [0, 1, 2, 3]
    torch.testing.assert_close(z, model.rollout(context, actions))


def test_imagination_refuses_more_problems_and_other_actions(model) -> None:
    z = model.encode(pixels(2))[None]
    with pytest.raises(UserError, match="2 problems; imagine one"):
        model.imagine(model.prime(z.expand(2, -1, -1, -1)), lambda frames: torch.zeros(1, 2), 2)
    with pytest.raises(UserError, match=r"shape \[1, 3\]; must be \[S, 2\]"):
        model.imagine(model.prime(z), lambda frames: torch.zeros(1, 3), 2)
    with pytest.raises(UserError, match="horizon: 0 is not allowed"):
        model.imagine(model.prime(z), lambda frames: torch.zeros(1, 2), 0)
    with pytest.raises(UserError, match="at every step"):
        model.imagine(model.prime(z), lambda frames: torch.zeros(1 + len(frames), 2), 2)


def test_bfloat16_inside_gives_float32_outside(signature, encoder, model) -> None:
    rough = WorldModel(describe(signature, encoder), trained(encoder), MEAN, encoder, dtype=torch.bfloat16)
    z = model.encode(pixels(2))[None]
    actions = torch.linspace(-0.05, 0.05, 32).reshape(1, 4, 4, 2)
    exact, other = model.rollout(model.prime(z), actions), rough.rollout(rough.prime(z), actions)
    assert other.dtype == torch.float32
    assert (exact - other).norm() < 0.03 * (exact - z[:, -1, None, None]).norm()


def test_the_model_keeps_its_own_weights(signature, encoder) -> None:
    predictor = trained(encoder)
    model = WorldModel(describe(signature, encoder), predictor, MEAN, encoder, dtype=torch.float32)
    context, actions = model.prime(model.encode(pixels(2))[None]), torch.zeros(1, 1, 2, 2)
    before = model.rollout(context, actions)
    with torch.no_grad():
        predictor.head.zero_()
    assert torch.equal(model.rollout(context, actions), before)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (pixels(1).astype(np.float32), "float32, must be uint8"),
        (pixels(1)[:, :1], r"must be \[B, 2, 8, 8, 3\]"),
        (pixels(1)[..., :2], r"must be \[B, 2, 8, 8, 3\]"),
        (pixels(1)[0], r"must be \[B, 2, 8, 8, 3\]"),
        (np.zeros((1, 2, 16, 16, 3), np.uint8), "image_size_px=8"),
    ],
)
def test_wrong_pixels_are_refused(model, array: np.ndarray, said: str) -> None:
    with pytest.raises(UserError, match=said):
        model.encode(array)


def test_wrong_latents_and_actions_are_refused(model) -> None:
    z = model.encode(pixels(2))
    with pytest.raises(UserError, match="repeat the first frame"):
        model.prime(z[None, :1])
    context = model.prime(z[None])
    for shape in ((2, 1, 3, 2), (1, 1, 3, 3), (1, 3, 2)):
        with pytest.raises(UserError, match="actions have shape"):
            model.rollout(context, torch.zeros(shape))


def test_another_encoder_is_refused(signature, encoder) -> None:
    description = describe(signature, encoder)
    encoder.weights = encoder.weights + 1
    with pytest.raises(UserError, match="fingerprint"):
        WorldModel(description, trained(encoder), MEAN, encoder)
    with pytest.raises(UserError, match="tokens of width"):
        WorldModel(describe(signature, encoder, dim=6), trained(encoder), MEAN, encoder)


def test_environments_are_checked(model, signature, small_store) -> None:
    model.check_env(signature)
    model.check_env(small_store().spec)
    with pytest.raises(UserError, match=r"env is push.*dt_s is 1.0"):
        model.check_env(dataclasses.asdict(dataclasses.replace(signature, env="push", dt_s=1.0)))


@pytest.fixture
def saved(tmp_path, signature) -> Path:
    """A model folder with a real (random, tiny) encoder inside."""
    shape = SmallEncoderConfig(image_size_px=32, widths=(8, 8, 8), blocks=(0, 0, 0), dim=5)
    encoder = SmallEncoder(SmallEncoderNetwork(shape, torch.Generator().manual_seed(0)), name="tiny")
    folder = tmp_path / "weights" / "point"
    save_small_encoder(folder / "encoder", encoder)
    description = describe(dataclasses.replace(signature, image_size_px=32), encoder)
    save_model(folder, description, dict(trained(encoder).named_parameters()), MEAN)
    return folder


def test_a_saved_model_loads_and_predicts(saved) -> None:
    model = load_model(saved, dtype=torch.float32)
    frames = np.random.default_rng(0).integers(0, 256, (1, 2, 32, 32, 3), dtype=np.uint8)
    z = model.encode(frames)
    rolled = model.rollout(model.prime(z[:, None].expand(-1, 2, -1, -1)), torch.zeros(1, 2, 3, 2))
    assert rolled.shape == (1, 2, 3, 8, 5)
    assert torch.isfinite(rolled).all()
    again = load_model(str(saved), dtype=torch.float32)
    assert torch.equal(again.encode(frames), z)


def test_models_of_the_package_load_by_name(saved, monkeypatch) -> None:
    monkeypatch.setattr(model_module, "_WEIGHTS", saved.parent)
    assert model_module.shipped_models() == ("point",)
    assert load_model("point").cameras == ("front", "side")
    with pytest.raises(UserError, match="did you mean point"):
        load_model("pont")
    with pytest.raises(UserError, match="models in the package: point"):
        load_model("/nowhere/at/all")


def test_damage_to_the_encoder_is_an_error_of_one_line(saved) -> None:
    shutil.rmtree(saved / "encoder")
    with pytest.raises(UserError) as caught:
        load_model(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["tpu9", "cuda:77"])
def test_a_device_that_is_not_there_is_named(saved, device: str) -> None:
    with pytest.raises(UserError, match=f"{device}.*choose"):
        load_model(saved, device=device)


def test_a_coarse_rollout_predicts_the_tokens_asked_for(model) -> None:
    context = model.prime(model.encode(pixels(6)).reshape(3, 2, 8, 5))
    actions = torch.linspace(-0.05, 0.05, 24).reshape(3, 2, 2, 2)
    coarse = model.rollout(context, actions, tokens=torch.tensor([0, 4]), layers=1)
    assert coarse.shape == (3, 2, 2, 2, 5)
    alone = model.rollout(context.take([2]), actions[2:], tokens=torch.tensor([0, 4]), layers=1)
    torch.testing.assert_close(coarse[2:], alone)
    full = model.rollout(context, actions)
    torch.testing.assert_close(model.rollout(context, actions, tokens=torch.arange(8), layers=2), full, rtol=1e-5, atol=1e-6)


def fake(function):
    """A compiler that changes nothing."""
    return function


@pytest.fixture
def compiled(model) -> WorldModel:
    model._compiled = CompiledRollout(model._predictor, model.device, compiler=fake)
    return model


def test_too_many_compiled_shapes_are_an_error_not_a_slow_rollout(compiled) -> None:
    import torch._dynamo.config as dynamo

    context = compiled.prime(compiled.encode(pixels(2))[None])
    with torch.no_grad(), dynamo.patch(recompile_limit=2):
        for horizon in (1, 2, 1, 2):
            compiled.rollout(context, torch.zeros(1, 8, horizon, 2))
        assert compiled._compiled.num_shapes == 2
        with pytest.raises(UserError, match=r"\[1, 8, 3, 2\].*2: \[B, S, H\] = \[1, 8, 1\]; .*fewer shapes"):
            compiled.rollout(context, torch.zeros(1, 8, 3, 2))
        compiled.rollout(context, torch.zeros(1, 8, 1, 2))


def test_gradients_coarse_rollouts_and_a_few_candidates_are_not_compiled(compiled) -> None:
    context = compiled.prime(compiled.encode(pixels(2))[None])
    actions = torch.zeros(1, 8, 2, 2, requires_grad=True)
    compiled.rollout(context, actions).sum().backward()
    with torch.no_grad():
        compiled.rollout(context, actions, layers=1)
        compiled.rollout(context, actions[:, :7])
    assert compiled._compiled.num_shapes == 0


@pytest.mark.parametrize("error", ["BackendCompilerFailed", "FailOnRecompileLimitHit"])
def test_what_stops_torch_from_compiling_is_one_line(model, error: str) -> None:
    import torch._dynamo.exc as faults

    kind = getattr(faults, error)
    fault = kind(fake, RuntimeError("no compiler\nsecond line"), None) if error == "BackendCompilerFailed" else kind("limit")

    def fails(function):
        def call(*_):
            raise fault

        return call

    model._compiled = CompiledRollout(model._predictor, model.device, compiler=fails)
    context = model.prime(model.encode(pixels(2))[None])
    with torch.no_grad(), pytest.raises(UserError, match=r"compiled: torch .*without compiled") as caught:
        model.rollout(context, torch.zeros(1, 8, 2, 2))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch's own compiler uses it
def test_a_compiled_rollout_equals_the_plain_one(saved) -> None:
    plain, compiled = load_model(saved, dtype=torch.float32), load_model(saved, dtype=torch.float32, compiled=True)
    z = plain.encode(np.random.default_rng(0).integers(0, 256, (2, 2, 32, 32, 3), dtype=np.uint8))[:, None].expand(-1, 2, -1, -1)
    actions = torch.linspace(-0.05, 0.05, 2 * 16 * 2 * 2).reshape(2, 16, 2, 2)
    with torch.no_grad():
        rolled = compiled.rollout(compiled.prime(z), actions)
        torch.testing.assert_close(rolled, plain.rollout(plain.prime(z), actions), rtol=1e-5, atol=1e-5)
        assert compiled._compiled.num_shapes == 1, "two problems, one after the other, in one shape"
        alone = compiled.rollout(compiled.prime(z[1:]), actions[1:])
    assert torch.equal(alone, rolled[1:])
