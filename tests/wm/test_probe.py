import math

import numpy as np
import pytest
import torch

from goalward import UserError
from goalward.wm.encoders import SmallEncoder, SmallEncoderConfig, SmallEncoderNetwork
from goalward.wm.probe import collapse_report, distance_ranking, encoder_features, pixel_features, rank_correlation, ridge_probe


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_rank_counts_the_directions_in_use(rank: int) -> None:
    basis = torch.linalg.qr(normal(8, 8, seed=1)).Q[:rank]
    report = collapse_report(normal(20_000, rank) @ basis)
    assert report.effective_rank == pytest.approx(rank, rel=0.02)
    assert report.participation_ratio == pytest.approx(rank, rel=0.02)
    assert report.width == 8


def test_rank_of_unequal_directions_in_closed_form() -> None:
    variances = torch.tensor([4.0, 1.0, 1.0], dtype=torch.float64)
    report = collapse_report(normal(100_000, 3) * variances.sqrt())
    share = variances / variances.sum()
    assert report.effective_rank == pytest.approx(math.exp(-float((share * share.log()).sum())), rel=0.02)
    assert report.participation_ratio == pytest.approx(36 / 18, rel=0.02)


def test_collapse_is_seen() -> None:
    constant = collapse_report(torch.full((50, 4), 3.7))
    assert (constant.effective_rank, constant.participation_ratio) == (1.0, 1.0)
    assert constant.std_mean == pytest.approx(0)
    half = collapse_report(torch.cat([normal(500, 4), torch.zeros(500, 4)], 1))
    assert half.dead_fraction == 0.5
    assert half.std_min == 0


def test_the_rank_does_not_depend_on_scale_or_offset() -> None:
    z = normal(500, 6)
    assert collapse_report(1e-3 * z + 5).effective_rank == pytest.approx(collapse_report(z).effective_rank, rel=1e-6)


@pytest.mark.parametrize("z", [torch.zeros(1, 3), torch.zeros(3), torch.full((4, 2), float("nan"))])
def test_latents_that_cannot_be_judged_are_refused(z: torch.Tensor) -> None:
    with pytest.raises(UserError, match="latents"):
        collapse_report(z)


def splits(count: int, width: int, noise: float) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    weights = normal(width, 3, seed=9)
    made = []
    for seed, size in enumerate((count, count // 2, 20_000)):
        x = normal(size, width, seed=seed) + 2
        made.append((x, x @ weights + 5 + noise * normal(size, 3, seed=100 + seed)))
    return tuple(made)


def test_the_probe_recovers_a_known_error() -> None:
    # The mean length of a three-dimensional normal vector is 2 sqrt(2 / pi) sigma; its median 1.5382 sigma.
    result = ridge_probe(*splits(20_000, 10, noise=0.02))
    assert result.mean_error == pytest.approx(2 * math.sqrt(2 / math.pi) * 0.02, rel=0.02)
    assert result.median_error == pytest.approx(1.5382 * 0.02, rel=0.02)
    assert result.median_error < result.p90_error
    assert result.r2 > 0.999


def test_the_probe_is_exact_where_the_target_is_linear() -> None:
    result = ridge_probe(*splits(500, 10, noise=0.0))
    assert result.mean_error < 1e-5
    assert result.r2 == pytest.approx(1)


def test_features_without_information_explain_nothing_and_are_regularised_away() -> None:
    train, validation, test = splits(60, 50, noise=0.0)
    blind = [(normal(len(x), 50, seed=40 + index), y) for index, (x, y) in enumerate((train, validation, test))]
    result = ridge_probe(*blind)
    assert abs(result.r2) < 0.15
    assert result.ridge >= 1


def test_regularisation_is_chosen_on_validation_samples() -> None:
    noisy = splits(60, 50, noise=3.0)
    chosen = ridge_probe(*noisy)
    least = ridge_probe(*noisy, strengths=(1e-7,))
    assert chosen.mean_error < 0.8 * least.mean_error


def test_the_probe_does_not_depend_on_the_scale_of_the_features() -> None:
    data = splits(300, 10, noise=0.1)
    scaled = [(1e-3 * x + 7, y) for x, y in data]
    assert ridge_probe(*scaled).mean_error == pytest.approx(ridge_probe(*data).mean_error, rel=1e-6)


def test_constant_features_predict_the_mean() -> None:
    data = [(torch.ones_like(x), y) for x, y in splits(300, 4, noise=0.1)]
    assert abs(ridge_probe(*data).r2) < 0.02


@pytest.mark.parametrize("broken", ["empty", "lengths", "width", "finite"])
def test_bad_splits_are_refused(broken: str) -> None:
    train, validation, (x, y) = splits(50, 4, noise=0.1)
    bad = {
        "empty": (x[:0], y[:0]),
        "lengths": (x[:10], y[:9]),
        "width": (x[:, :3], y),
        "finite": (x.index_fill(0, torch.tensor([0]), math.inf), y),
    }[broken]
    with pytest.raises(UserError, match="test split"):
        ridge_probe(train, validation, bad)


def test_rank_correlation() -> None:
    a = normal(500)
    assert rank_correlation(a, a.exp()) == pytest.approx(1)
    assert rank_correlation(a, -(a**3)) == pytest.approx(-1)
    assert abs(rank_correlation(a, normal(500, seed=3))) < 0.15


def test_latents_that_are_the_position_rank_distances_perfectly() -> None:
    position = 0.3 * torch.rand(400, 3, generator=torch.Generator().manual_seed(0))
    everywhere, near = distance_ranking(3 * position - 1, position, generator=torch.Generator().manual_seed(1))
    assert everywhere > 0.999
    assert near > 0.999
    blind, _ = distance_ranking(normal(400, 3), position, generator=torch.Generator().manual_seed(1))
    assert abs(blind) < 0.1
    assert math.isnan(distance_ranking(position, 1e3 * position, generator=torch.Generator().manual_seed(1), pairs=50)[1])


def test_encoder_features_put_the_tokens_of_all_views_end_to_end() -> None:
    config = SmallEncoderConfig(image_size_px=32, widths=(8, 8, 8), blocks=(0, 0, 1), dim=4)
    encoder = SmallEncoder(SmallEncoderNetwork(config))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 2, 32, 32, 3), dtype=np.uint8)
    features = encoder_features(encoder, pixels)
    assert features.shape == (3, 32)
    assert torch.equal(features[1, 16:].reshape(4, 4), encoder.encode(pixels[1, 1:2])[0])


def test_pixel_features_are_averages() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 2, 8, 8, 3), dtype=np.uint8)
    features = pixel_features(pixels, side=2)
    assert features.shape == (300, 2 * 3 * 4)
    assert float(features[299, 12]) == pytest.approx(pixels[299, 1, :4, :4, 0].mean() / 255, rel=1e-5)
    with pytest.raises(UserError, match="side = 3"):
        pixel_features(pixels, side=3)
