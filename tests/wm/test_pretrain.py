import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from goalward import UserError
from goalward.wm.encoders import SmallEncoderConfig
from goalward.wm.encoders.small import fingerprint_of
from goalward.wm.pretrain import PretrainConfig, Progress, pretrain
from goalward.wm.pretrain_objective import FuturePredictor, ObjectiveConfig, jitter_brightness, objective
from goalward.wm.pretrain_state import STATE_NAME
from goalward.wm.probe import ridge_probe
from goalward.wm.video_clips import ClipPool, pool_of

SIZE = 32
CONFIG = PretrainConfig(
    encoder=SmallEncoderConfig(image_size_px=SIZE, widths=(8, 16, 16), blocks=(0, 0, 1), dim=8),
    objective=ObjectiveConfig(clip_frames=4, predictor_width=32, sigreg_directions=64, brightness_jitter=0.02),
    steps=12,
    batch_clips=8,
    warmup_steps=3,
    check_every=4,
)


def moving_ball(runs: int, seed: int, length: int = 10) -> tuple[ClipPool, torch.Tensor]:
    """A soft ball that flies straight and bounces off the walls; also returns where it is, in pixels, [F, 2]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    videos, places = [], []
    for _ in range(runs):
        place, speed = rng.uniform(5, SIZE - 5, 2), rng.normal(0, 1.5, 2)
        frames = np.empty((length, SIZE, SIZE, 3), np.uint8)
        for frame in frames:
            place = place + speed
            speed = np.where((place < 5) | (place > SIZE - 5), -speed, speed)
            blob = np.exp(-((rows - place[0]) ** 2 + (columns - place[1]) ** 2) / 18)
            frame[:] = (40 + 200 * blob)[..., None]
            places.append(place)
        videos.append(frames)
    return pool_of(videos), torch.tensor(np.array(places))


@pytest.fixture(scope="module")
def video() -> ClipPool:
    return moving_ball(30, seed=0)[0]


@pytest.fixture(scope="module")
def held_out() -> ClipPool:
    return moving_ball(8, seed=1)[0]


def test_it_learns_where_things_are_from_video_alone_and_does_not_collapse() -> None:
    config = replace(
        CONFIG,
        objective=replace(CONFIG.objective, sigreg_scope="frame", sigreg_weight=5.0),
        steps=200,
        batch_clips=24,
        learning_rate=3e-3,
        warmup_steps=10,
        check_every=1_000,
    )
    seen: list[Progress] = []
    result = pretrain(config, [moving_ball(120, seed=2)[0]], [moving_ball(20, seed=3)[0]], on_progress=seen.append)
    assert result.progress.loss < 0.5 * seen[0].loss
    assert result.progress.held_out is not None
    assert result.progress.held_out.of_persistence < 0.9
    assert result.progress.held_out.collapse.effective_rank > 3
    assert result.progress.held_out.collapse.std_mean > 0.5
    splits = [moving_ball(runs, seed) for seed, runs in ((4, 60), (5, 20), (6, 20))]
    probe = ridge_probe(*[(result.encoder.encode(pool.frames_Fhw3).flatten(1), places) for pool, places in splits])
    assert probe.r2 > 0.95
    assert probe.mean_error < 2  # pixels, in a picture of 32


def test_progress_says_where_the_run_stands(video: ClipPool, held_out: ClipPool) -> None:
    seen: list[Progress] = []
    pretrain(CONFIG, [video], [held_out], on_progress=seen.append)
    assert [progress.step for progress in seen] == list(range(1, 13))
    assert seen[-1].fraction == 1
    assert [progress.held_out is not None for progress in seen[:5]] == [False, False, False, True, True]
    assert all(progress.frames_per_s > 0 for progress in seen)
    weights = CONFIG.objective
    parts = seen[-1].prediction + weights.sigreg_weight * seen[-1].regulariser + weights.within_video_weight * seen[-1].within_video
    assert seen[-1].loss == pytest.approx(parts, rel=1e-5)


def test_one_seed_gives_one_encoder(video: ClipPool, held_out: ClipPool) -> None:
    first, again, other = (pretrain(replace(CONFIG, seed=seed), [video], [held_out]).encoder.fingerprint for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_looking_at_held_out_video_changes_nothing(video: ClipPool, held_out: ClipPool) -> None:
    assert pretrain(CONFIG, [video], [held_out]).encoder.fingerprint == pretrain(CONFIG, [video], []).encoder.fingerprint


@pytest.mark.parametrize("interrupted_after", [1, 5, 11])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(video: ClipPool, tmp_path: Path, interrupted_after: int) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.step == interrupted_after + 1:  # this step is done but not saved, as when the power fails
            raise KeyboardInterrupt

    config = replace(CONFIG, save_every_s=0.0, objective=replace(CONFIG.objective, within_video_weight=1.0))
    whole = pretrain(config, [video], [])
    with pytest.raises(KeyboardInterrupt):
        pretrain(config, [video], [], out=tmp_path, on_progress=interrupt)
    steps: list[int] = []
    resumed = pretrain(config, [video], [], out=tmp_path, resume=True, on_progress=lambda progress: steps.append(progress.step))
    assert steps[0] == interrupted_after + 1
    assert resumed.encoder.fingerprint == whole.encoder.fingerprint


def test_resuming_a_finished_run_only_returns_its_encoder(video: ClipPool, tmp_path: Path) -> None:
    whole = pretrain(CONFIG, [video], [], out=tmp_path)
    steps: list[Progress] = []
    again = pretrain(CONFIG, [video], [], out=tmp_path, resume=True, on_progress=steps.append)
    assert again.encoder.fingerprint == whole.encoder.fingerprint
    assert (steps, again.progress.loss, again.progress.step) == ([], whole.progress.loss, 12)


def test_a_run_by_the_clock_ends(video: ClipPool) -> None:
    result = pretrain(replace(CONFIG, steps=None, minutes=0.01), [video], [])
    assert result.progress.step >= 1
    assert 0.6 <= result.progress.elapsed_s < 20


def test_resume_refuses_another_run_and_names_the_differences(video: ClipPool, tmp_path: Path) -> None:
    pretrain(CONFIG, [video], [], out=tmp_path, data_hashes=["aa"])
    with pytest.raises(UserError, match=r"another run.*data was \['aa'\], is \['bb'\]"):
        pretrain(CONFIG, [video], [], out=tmp_path, resume=True, data_hashes=["bb"])
    with pytest.raises(UserError, match="another run"):
        pretrain(replace(CONFIG, learning_rate=1.0), [video], [], out=tmp_path, resume=True, data_hashes=["aa"])


def test_resume_without_a_state(video: ClipPool, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no"):
        pretrain(CONFIG, [video], [], out=tmp_path, resume=True)
    with pytest.raises(UserError, match="--out"):
        pretrain(CONFIG, [video], [], resume=True)


@pytest.mark.parametrize("damage", ["truncated", "empty", "header"])
def test_a_damaged_state_is_one_clear_line(video: ClipPool, tmp_path: Path, damage: str) -> None:
    pretrain(replace(CONFIG, steps=2), [video], [], out=tmp_path)
    path = tmp_path / STATE_NAME
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "header": b"\xff" * 8 + whole[8:]}[damage])
    with pytest.raises(UserError, match="damaged") as caught:
        pretrain(replace(CONFIG, steps=2), [video], [], out=tmp_path, resume=True)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_clear_line(video: ClipPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="free some space"):
        pretrain(replace(CONFIG, steps=2), [video], [], out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_divergence_stops_before_the_optimiser_moves(video: ClipPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, save_every_s=0.0)
    good: list[bytes] = []

    def poisoned(*arguments, **options):
        terms = objective(*arguments, **options)
        return replace(terms, loss=terms.loss * float("nan")) if len(good) == 3 else terms

    monkeypatch.setattr("goalward.wm.pretrain.objective", poisoned)
    moved = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *arguments: (moved.append(1), step(self, *arguments))[1])
    with pytest.raises(UserError, match=r"diverged at step 4.*lower learning_rate"):
        pretrain(config, [video], [], out=tmp_path, on_progress=lambda _: good.append(b""))
    assert len(moved) == 3
    monkeypatch.setattr("goalward.wm.pretrain.objective", objective)
    resumed = pretrain(config, [video], [], out=tmp_path, resume=True)
    assert resumed.encoder.fingerprint == pretrain(config, [video], []).encoder.fingerprint


def test_the_global_generators_are_left_alone(video: ClipPool) -> None:
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    pretrain(replace(CONFIG, steps=2), [video], [])
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("minutes", 0.0),
        ("minutes", float("inf")),
        ("learning_rate", -1.0),
        ("learning_rate", float("nan")),
        ("max_grad_norm", 0.0),
        ("weight_decay", -0.1),
        ("save_every_s", -1.0),
        ("batch_clips", 1),
        ("warmup_steps", -1),
        ("check_every", 0),
        ("seed", -1),
    ],
)
def test_bad_settings_name_the_field(field: str, value: float) -> None:
    with pytest.raises(UserError, match=field):
        PretrainConfig(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clip_frames", 2),
        ("sigreg_weight", -1.0),
        ("sigreg_weight", float("nan")),
        ("within_video_weight", -1.0),
        ("within_video_weight", float("inf")),
        ("sigreg_directions", 0),
        ("sigreg_scope", "pixel"),
        ("predictor_width", 0),
        ("brightness_jitter", 1.0),
    ],
)
def test_bad_objectives_name_the_field(field: str, value: object) -> None:
    with pytest.raises(UserError, match=field):
        ObjectiveConfig(**{field: value})  # type: ignore[arg-type]


def test_an_untrained_predictor_predicts_persistence_and_constant_speed_is_learnable() -> None:
    generator = torch.Generator().manual_seed(0)
    start, speed = torch.randn(64, 1, 1, 6, generator=generator), 0.3 * torch.randn(64, 1, 1, 6, generator=generator)
    z_CLND = (start + speed * torch.arange(5).reshape(1, 5, 1, 1)).expand(-1, -1, 4, -1)
    predictor = FuturePredictor(24, 32, generator)
    config = ObjectiveConfig(clip_frames=5, sigreg_weight=0.0, within_video_weight=0.0)
    terms = objective(z_CLND, predictor, config, generator)
    assert float(terms.prediction) == pytest.approx(float(terms.persistence), rel=1e-6)
    optimizer = torch.optim.Adam(predictor.parameters(), lr=3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        objective(z_CLND, predictor, config, generator).loss.backward()
        optimizer.step()
    assert float(objective(z_CLND, predictor, config, generator).prediction) < 0.1 * float(terms.persistence)


@pytest.mark.parametrize("scope", ["frame", "token"])
def test_the_regulariser_sees_collapse_in_either_scope(scope: str) -> None:
    generator = torch.Generator().manual_seed(0)
    config = ObjectiveConfig(sigreg_scope=scope)  # type: ignore[arg-type]
    predictor = FuturePredictor(32, 8, generator)
    healthy = objective(torch.randn(64, 4, 4, 8, generator=generator), predictor, config, generator).regulariser
    collapsed = objective(torch.zeros(64, 4, 4, 8), predictor, config, generator).regulariser
    assert float(collapsed) > 20 * float(healthy)


def test_only_the_frame_scope_sees_tokens_that_repeat_one_another() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(512, 4, 1, 8, generator=generator).expand(-1, -1, 4, -1)
    predictor = FuturePredictor(32, 8, generator)
    frame, token = (
        float(objective(z, predictor, ObjectiveConfig(sigreg_scope=scope), generator).regulariser)  # type: ignore[arg-type]
        for scope in ("frame", "token")
    )
    assert frame > 10 * token


def test_differences_within_a_video_see_through_what_never_changes_in_it() -> None:
    generator = torch.Generator().manual_seed(0)
    config = ObjectiveConfig(sigreg_weight=1.0, within_video_weight=1.0)
    predictor = FuturePredictor(32, 8, generator)
    colours = torch.randn(128, 1, 4, 8, generator=generator).repeat_interleave(2, 0).expand(-1, 4, -1, -1)
    moving = torch.randn(256, 4, 4, 8, generator=generator)
    blind, seeing = (objective(z, predictor, config, generator) for z in (colours, moving))
    assert float(blind.regulariser) < 0.05  # Gaussian over all videos: a collapse that plain SIGReg cannot see
    assert float(blind.within_video) > 20 * float(seeing.within_video)
    assert float(seeing.loss.detach()) == pytest.approx(float(seeing.prediction + seeing.regulariser + seeing.within_video), rel=1e-5)
    plain = objective(moving, predictor, ObjectiveConfig(within_video_weight=0.0), generator)
    assert float(plain.within_video) == 0


def test_brightness_changes_by_clip_not_by_frame() -> None:
    clips = torch.full((6, 3, 4, 4, 3), 100, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    assert jitter_brightness(clips, 0.0, generator) is clips
    changed = jitter_brightness(clips, 0.3, generator)
    assert changed.dtype == torch.uint8
    assert torch.equal(changed, changed[:, :1, :1, :1].expand_as(changed))
    assert len(changed[:, 0, 0, 0, 0].unique()) > 2
    bright = jitter_brightness(torch.full_like(clips, 250), 0.9, generator)  # clipped, never wrapped around
    assert int(bright.max()) <= 255
    assert int(jitter_brightness(torch.zeros_like(clips), 0.9, generator).min()) == 0


def test_fingerprints_of_encoder_and_trainable_copy_agree(video: ClipPool) -> None:
    encoder = pretrain(replace(CONFIG, steps=1), [video], []).encoder
    assert fingerprint_of(encoder.network()) == encoder.fingerprint
