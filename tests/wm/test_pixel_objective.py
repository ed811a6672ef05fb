"""The generative control: pixels predicted through a decoder, everything else as in joint-embedding pretraining."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from goalward import UserError
from goalward.wm.decoder import DecoderConfig, DecoderNetwork
from goalward.wm.encoders import SmallEncoderConfig, SmallEncoderNetwork
from goalward.wm.pixel_objective import PixelObjectiveConfig, held_out_pixels, pixel_objective
from goalward.wm.pretrain import PretrainConfig, Progress, pretrain
from goalward.wm.pretrain_objective import FuturePredictor, ObjectiveConfig, encode_clips
from goalward.wm.probe import ridge_probe
from goalward.wm.video_clips import ClipPool, ClipSampler, pool_of

SIZE = 32
ENCODER = SmallEncoderConfig(image_size_px=SIZE, widths=(8, 16, 16), blocks=(0, 0, 1), dim=8)
PIXELS = PixelObjectiveConfig(predictor_width=32, decoder_widths=(16, 16, 8), decoder_blocks=(0, 0, 0))
CONFIG = PretrainConfig(encoder=ENCODER, objective=PIXELS, steps=8, batch_clips=8, warmup_steps=3, check_every=4)


def moving_ball(runs: int, seed: int, length: int = 10) -> tuple[ClipPool, torch.Tensor]:
    """A soft ball that flies straight over grey; also returns where it is, in pixels, [F, 2]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    start, speed = rng.uniform(10, SIZE - 10, (runs, 1, 2)), rng.uniform(-0.8, 0.8, (runs, 1, 2))
    places = start + speed * np.arange(length)[:, None]
    off = (rows - places[..., 0, None, None]) ** 2 + (columns - places[..., 1, None, None]) ** 2
    frames = np.repeat((40 + 200 * np.exp(-off / 18))[..., None], 3, -1).astype(np.uint8)
    return pool_of(list(frames)), torch.tensor(places).reshape(-1, 2)


@pytest.fixture(scope="module")
def video() -> ClipPool:
    return moving_ball(30, seed=0)[0]


@pytest.fixture(scope="module")
def held_out() -> ClipPool:
    return moving_ball(8, seed=1)[0]


class Networks:
    """Everything that a pixel objective trains, fresh."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.encoder = SmallEncoderNetwork(ENCODER, generator)
        self.predictor = FuturePredictor(4 * ENCODER.dim, 32, generator)
        self.decoder = DecoderNetwork(PIXELS.decoder(image_size_px=SIZE, dim=ENCODER.dim), generator)
        with torch.no_grad():  # as if it had learnt something: at first it predicts that nothing moves
            self.predictor.layers[-1].weight.normal_(std=0.1, generator=generator)


@pytest.fixture
def clips(video: ClipPool) -> torch.Tensor:
    return torch.from_numpy(ClipSampler([video], clip_frames=4).sample(6, np.random.default_rng(0)))


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products in float32, whatever the processor is fast at."""
    for module in ("pixel_objective", "pretrain_objective"):
        monkeypatch.setattr(f"goalward.wm.{module}.inference_dtype", lambda device: torch.float32)


@pytest.mark.usefixtures("exact")
def test_the_loss_is_what_the_formula_says(clips: torch.Tensor) -> None:
    nets = Networks()
    for module in (nets.encoder, nets.predictor, nets.decoder):
        module.requires_grad_(False)
    z_CLND = encode_clips(nets.encoder, clips)
    terms = pixel_objective(z_CLND, clips, nets.predictor, nets.decoder, replace(PIXELS, reconstruction_weight=0.7))
    z, x = z_CLND.flatten(2), clips.float() / 255

    def error(latents: torch.Tensor, frame: int) -> torch.Tensor:
        return (nets.decoder(latents.reshape(len(clips), 4, -1)) - x[:, frame]).square().mean()

    third, fourth = nets.predictor(z[:, 0], z[:, 1]), nets.predictor(z[:, 1], z[:, 2])
    further = nets.predictor(z[:, 1], third)
    prediction = ((error(third, 2) + error(fourth, 3)) / 2 + error(further, 3)) / 2
    reconstruction = torch.stack([error(z[:, frame], frame) for frame in range(4)]).mean()
    still = (((x[:, 1] - x[:, 2]).square().mean() + (x[:, 2] - x[:, 3]).square().mean()) / 2 + (x[:, 1] - x[:, 3]).square().mean()) / 2
    assert float(terms.prediction) == pytest.approx(float(prediction), rel=1e-4)
    assert float(terms.reconstruction) == pytest.approx(float(reconstruction), rel=1e-4)
    assert float(terms.persistence) == pytest.approx(float(still), rel=1e-4)
    assert float(terms.loss) == pytest.approx(float(prediction + 0.7 * reconstruction), rel=1e-4)
    assert float(terms.regulariser) == float(terms.within_video) == 0
    alone = pixel_objective(z_CLND, clips, nets.predictor, nets.decoder, replace(PIXELS, reconstruction_weight=0.0))
    assert float(alone.loss) == pytest.approx(float(prediction), rel=1e-4)
    assert float(alone.reconstruction) == 0


@pytest.mark.parametrize("reconstruction_weight", [0.0, 1.0])
def test_gradients_reach_every_weight_of_encoder_predictor_and_decoder(clips: torch.Tensor, reconstruction_weight: float) -> None:
    nets = Networks()
    config = replace(PIXELS, reconstruction_weight=reconstruction_weight)
    pixel_objective(encode_clips(nets.encoder, clips), clips, nets.predictor, nets.decoder, config).loss.backward()
    for module in (nets.encoder, nets.predictor, nets.decoder):
        for name, weight in module.named_parameters():
            assert weight.grad is not None, name
            if "conv1" not in name and "norm" not in name:  # these wait for the block's last layer, which begins at zero
                assert float(weight.grad.abs().max()) > 0, name


@pytest.mark.usefixtures("exact")
def test_held_out_figures_are_those_of_all_clips_at_once(video: ClipPool) -> None:
    nets = Networks()
    many = torch.from_numpy(ClipSampler([video], clip_frames=4).sample(21, np.random.default_rng(0)))
    with torch.no_grad():
        z = encode_clips(nets.encoder, many)
        terms = pixel_objective(z, many, nets.predictor, nets.decoder, PIXELS)
    figures = held_out_pixels(z, many, nets.predictor, nets.decoder, PIXELS)
    assert figures == pytest.approx((float(terms.prediction), float(terms.persistence)), rel=1e-4)


def test_it_learns_where_things_are_from_pixels(held_out: ClipPool) -> None:
    config = replace(CONFIG, steps=150, batch_clips=12, learning_rate=4e-3, warmup_steps=10, check_every=1000)
    seen: list[Progress] = []
    result = pretrain(config, [moving_ball(80, seed=2)[0]], [held_out], on_progress=seen.append)
    assert result.progress.loss < 0.2 * seen[0].loss
    assert result.decoder is not None
    assert result.decoder.encoder == result.encoder.fingerprint
    splits = [moving_ball(runs, seed) for seed, runs in ((4, 60), (5, 20), (6, 20))]
    probe = ridge_probe(*[(result.encoder.encode(pool.frames_Fhw3).flatten(1), places) for pool, places in splits])
    assert probe.r2 > 0.9


def test_both_objectives_begin_with_the_same_encoder_and_see_the_same_clips(video: ClipPool, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, list[bytes]] = {"latents": [], "pixels": []}
    sample = ClipSampler.sample
    first: dict[str, dict[str, torch.Tensor]] = {}
    for name, objective in (("latents", ObjectiveConfig(predictor_width=32, sigreg_directions=16)), ("pixels", PIXELS)):

        def spy(sampler, count, rng, *, pairs=False, name=name):
            clips = sample(sampler, count, rng, pairs=pairs)
            drawn[name].append(clips.tobytes())
            return clips

        monkeypatch.setattr(ClipSampler, "sample", spy)
        # A rate of next to nothing leaves the weights as they were drawn.
        config = replace(CONFIG, objective=objective, steps=3, learning_rate=1e-30, weight_decay=0.0)
        first[name] = pretrain(config, [video], []).encoder.state_dict()
    assert drawn["latents"] == drawn["pixels"]
    assert first["latents"].keys() == first["pixels"].keys()
    assert all(torch.allclose(first["latents"][name], first["pixels"][name], rtol=0, atol=1e-20) for name in first["latents"])


def test_encoder_and_predictor_are_of_equal_size_under_both_objectives(video: ClipPool) -> None:
    def sizes(objective: ObjectiveConfig | PixelObjectiveConfig) -> tuple[int, dict[str, tuple[int, ...]]]:
        state = pretrain(replace(CONFIG, objective=objective, steps=1), [video], []).encoder.state_dict()
        return sum(value.numel() for value in state.values()), {name: tuple(value.shape) for name, value in state.items()}

    assert sizes(PIXELS) == sizes(ObjectiveConfig(predictor_width=32, sigreg_directions=16))
    defaults = ObjectiveConfig(), PixelObjectiveConfig()
    for name in ("clip_frames", "predictor_width", "brightness_jitter", "paired_clips"):
        assert getattr(defaults[0], name) == getattr(defaults[1], name), name


@pytest.mark.parametrize("interrupted_after", [1, 5])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(video: ClipPool, tmp_path: Path, interrupted_after: int) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.step == interrupted_after + 1:  # this step is done but not saved, as when the power fails
            raise KeyboardInterrupt

    config = replace(CONFIG, save_every_s=0.0, objective=replace(PIXELS, brightness_jitter=0.02))
    whole = pretrain(config, [video], [])
    with pytest.raises(KeyboardInterrupt):
        pretrain(config, [video], [], out=tmp_path, on_progress=interrupt)
    resumed = pretrain(config, [video], [], out=tmp_path, resume=True)
    assert whole.decoder is not None
    assert resumed.decoder is not None
    assert resumed.encoder.fingerprint == whole.encoder.fingerprint
    assert resumed.decoder.fingerprint == whole.decoder.fingerprint
    with pytest.raises(UserError, match="another run"):
        pretrain(replace(config, objective=ObjectiveConfig()), [video], [], out=tmp_path, resume=True)


def test_progress_tells_of_the_decoder_and_held_out_looks_change_nothing(video: ClipPool, held_out: ClipPool) -> None:
    seen: list[Progress] = []
    watched = pretrain(CONFIG, [video], [held_out], on_progress=seen.append)
    assert all(progress.reconstruction > 0 for progress in seen)
    assert seen[-1].loss == pytest.approx(seen[-1].prediction + seen[-1].reconstruction, rel=1e-5)
    assert seen[-1].held_out is not None
    assert seen[-1].held_out.of_persistence > 0
    assert watched.encoder.fingerprint == pretrain(CONFIG, [video], []).encoder.fingerprint


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clip_frames", 2),
        ("reconstruction_weight", -1.0),
        ("reconstruction_weight", float("nan")),
        ("predictor_width", 0),
        ("brightness_jitter", 1.0),
        ("decoder_widths", (12, 8, 8)),
        ("decoder_blocks", (1, 1)),
    ],
)
def test_bad_objectives_name_the_field(field: str, value: object) -> None:
    with pytest.raises(UserError, match=field):
        PixelObjectiveConfig(**{field: value})  # type: ignore[arg-type]


def test_the_decoder_fits_the_encoder() -> None:
    assert PIXELS.decoder(image_size_px=SIZE, dim=8) == DecoderConfig(image_size_px=SIZE, dim=8, widths=(16, 16, 8), blocks=(0, 0, 0))
