"""Random numbers: per problem, reproducible, and of unit variance when coloured."""

from __future__ import annotations

import pytest
import torch

from goalward.planners.methods.noise import coloring_matrix_HH, generators, standard_normal_BSHA

CPU = torch.device("cpu")


def test_noise_of_a_problem_depends_on_its_own_seed_and_step_alone() -> None:
    together = standard_normal_BSHA(generators([3, 4, 5], [0, 7, 1]), (6, 4, 3), device=CPU)
    for b, (seed, step) in enumerate([(3, 0), (4, 7), (5, 1)]):
        alone = standard_normal_BSHA(generators([seed], [step]), (6, 4, 3), device=CPU)
        assert torch.equal(together[b : b + 1], alone)


def test_seeds_and_steps_do_not_collide() -> None:
    drawn = {float(torch.randn((), generator=g)) for seed in range(20) for g in generators([seed] * 20, range(20))}
    assert len(drawn) == 400


@pytest.mark.parametrize(("exponent", "correlation"), [(1.0, 0.26), (2.0, 0.45), (3.0, 0.56)])
def test_coloured_noise_has_unit_variance_and_the_expected_correlation(exponent: float, correlation: float) -> None:
    coloring = coloring_matrix_HH(6, exponent)
    assert coloring is not None
    covariance = coloring @ coloring.T
    assert torch.allclose(covariance.diagonal(), torch.ones(6), atol=1e-5)
    noise = standard_normal_BSHA(generators([0], [0]), (20000, 6, 1), device=CPU, coloring_HH=coloring)[0, :, :, 0]
    assert torch.allclose(noise.T @ noise / 20000, covariance, atol=0.05)
    assert float(covariance[0, 1]) == pytest.approx(correlation, abs=0.015)
    assert float(noise.abs().max()) < 6.0, "normalising by the analytic spectrum leaves no heavy tail"


def test_more_exponent_is_smoother() -> None:
    lag_one = [float((c @ c.T)[0, 1]) for e in (0.5, 1.0, 2.0, 4.0) if (c := coloring_matrix_HH(8, e)) is not None]
    assert lag_one == sorted(lag_one)


@pytest.mark.parametrize(("horizon", "exponent"), [(1, 3.0), (5, 0.0)])
def test_nothing_to_colour(horizon: int, exponent: float) -> None:
    assert coloring_matrix_HH(horizon, exponent) is None
