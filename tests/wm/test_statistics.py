"""Normalisation: round trips, agreement with recomputed values, refusal of data that cannot be normalised."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from goalward import UserError
from goalward.wm.statistics import latent_statistics, vector_statistics


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(1e-3, 1e3), offset=st.floats(-1e3, 1e3), seed=st.integers(0, 2**31))
def test_latents_round_trip_and_have_unit_rms(scale: float, offset: float, seed: int) -> None:
    z = torch.randn(200, 3, 4, generator=torch.Generator().manual_seed(seed)) * scale + offset
    statistics = latent_statistics(z)
    normal = statistics.normalise(z)
    torch.testing.assert_close(statistics.denormalise(normal), z, rtol=1e-5, atol=1e-5 * max(scale, abs(offset)))
    tolerance = 1e-3 + 1e-6 * abs(offset) / scale
    assert float(normal.square().mean().sqrt()) == pytest.approx(1, abs=tolerance)
    assert float(normal.mean(0).abs().max()) < tolerance


def test_one_scale_keeps_the_proportions_of_distances() -> None:
    z = torch.randn(50, 2, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10.0, 0.1])
    normal = latent_statistics(z).normalise(z)
    ratio = (normal[1:] - normal[:-1]).norm(dim=(1, 2)) / (z[1:] - z[:-1]).norm(dim=(1, 2))
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-4, atol=0)


def test_many_frames_are_summed_in_parts_without_loss() -> None:
    z = torch.randn(9001, 1, 2, generator=torch.Generator().manual_seed(0)) + 100
    statistics = latent_statistics(z)
    torch.testing.assert_close(statistics.mean_ND, z.double().mean(0).float())
    assert statistics.scale == pytest.approx(float((z.double() - z.double().mean(0)).square().mean().sqrt()), rel=1e-9)


def test_vector_statistics_equal_recomputed_ones() -> None:
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([0.05, 1.0, 3.0]) + 1
    statistics = vector_statistics(x, "actions")
    torch.testing.assert_close(statistics.mean, x.mean(0))
    torch.testing.assert_close(statistics.std, x.std(0, correction=0))
    torch.testing.assert_close(statistics.denormalise(statistics.normalise(x)), x, rtol=1e-6, atol=1e-6)


def test_an_entry_that_never_changes_is_left_finite() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    normal = vector_statistics(x, "actions").normalise(x)
    assert torch.isfinite(normal).all()
    assert torch.equal(normal[:, 1], torch.zeros(2))


def test_collapsed_latents_are_refused() -> None:
    with pytest.raises(UserError, match="collapsed"):
        latent_statistics(torch.full((10, 2, 3), 0.7))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(UserError, match="not finite"):
        latent_statistics(torch.tensor([[[1.0]], [[bad]]]))
    with pytest.raises(UserError, match=r"actions.*not finite"):
        vector_statistics(torch.tensor([[1.0], [bad]]), "actions")
