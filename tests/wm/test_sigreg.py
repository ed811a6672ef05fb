import math

import numpy as np
import pytest
import torch

from goalward import UserError
from goalward.wm.sigreg import epps_pulley, sigreg


def gaussian(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_constant_has_the_integral_of_the_statistic_in_closed_form() -> None:
    # phi_sample = 1 at the origin: the integral of (1 - exp(-t^2/2))^2 exp(-t^2/2) over the line.
    root = math.sqrt(2 * math.pi)
    exact = root * (1 - 2 / math.sqrt(2) + 1 / math.sqrt(3))
    found = epps_pulley(torch.zeros(4, 1, dtype=torch.float64), knots=401, t_max=8.0)
    assert float(found) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_one_point_against_direct_integration(shift: float) -> None:
    t = np.linspace(-8, 8, 20_001)
    values = np.abs(np.exp(1j * t * shift) - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)
    found = epps_pulley(torch.full((3, 1), shift, dtype=torch.float64), knots=801, t_max=8.0)
    assert float(found) == pytest.approx(float(np.trapezoid(values, t)), rel=1e-5)


def test_its_expectation_for_normal_samples_is_as_documented() -> None:
    count = 64
    found = epps_pulley(gaussian(count, 4_000), knots=101, t_max=6.0).mean()
    assert float(found) == pytest.approx((math.sqrt(2 * math.pi) - math.sqrt(2 * math.pi / 3)) / count, rel=0.05)


def test_gaussian_samples_score_low_and_every_other_shape_high() -> None:
    normal = gaussian(2_000, 16)
    low = float(sigreg(normal, generator=rng()))
    others = {
        "collapsed to a point": torch.zeros_like(normal),
        "shrunk": 0.3 * normal,
        "spread": 3.0 * normal,
        "shifted": normal + 1.0,
        "of rank one": normal[:, :1].expand(-1, 16),
        "of half rank": torch.cat([normal[:, :8], torch.zeros(2_000, 8, dtype=torch.float64)], 1),
        "two clusters": torch.where(normal[:, :1] > 0, 3.0, -3.0) + 0.1 * normal,
    }
    assert low < 1e-3
    for name, z in others.items():
        assert float(sigreg(z, generator=rng())) > 10 * low, name


def test_uniform_samples_are_told_from_normal_ones_in_one_dimension() -> None:
    uniform = math.sqrt(12) * (torch.rand(4_000, 1, generator=rng(), dtype=torch.float64) - 0.5)
    assert float(epps_pulley(uniform)) > 5 * float(epps_pulley(gaussian(4_000, 1)))


@pytest.mark.parametrize("start", ["tiny", "flat", "shifted"])
def test_descending_its_gradient_makes_samples_gaussian(start: str) -> None:
    z = gaussian(256, 4, seed=1).float()
    z = {"tiny": 0.05 * z, "flat": z * torch.tensor([1.0, 1.0, 0.1, 0.1]), "shifted": z + 0.7}[start].requires_grad_(True)
    optimizer, generator = torch.optim.Adam([z], lr=0.05), rng(2)
    for _ in range(200):
        optimizer.zero_grad()
        sigreg(z, generator=generator, directions=32).backward()
        optimizer.step()
    z = z.detach()
    assert z.mean(0).abs().max() < 0.2
    eigenvalues = torch.linalg.eigvalsh(torch.cov(z.T))
    assert eigenvalues.min() > 0.7
    assert eigenvalues.max() < 1.4


def test_it_is_invariant_to_the_order_of_samples_and_reproducible() -> None:
    z = gaussian(100, 8)
    first = sigreg(z, generator=rng(7))
    assert torch.allclose(sigreg(z.flip(0), generator=rng(7)), first)
    assert torch.equal(sigreg(z, generator=rng(7)), first)
    assert not torch.equal(sigreg(z, generator=rng(8)), first)


@pytest.mark.parametrize(
    ("z", "options", "words"),
    [
        (torch.zeros(1, 3), {}, "embeddings"),
        (torch.zeros(3), {}, "embeddings"),
        (torch.zeros(4, 3), {"directions": 0}, "directions = 0"),
        (torch.zeros(4, 3), {"knots": 2}, "knots = 2"),
    ],
)
def test_bad_arguments_are_named(z: torch.Tensor, options: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        sigreg(z, generator=rng(), **options)


def test_a_bad_end_of_the_integral_is_named() -> None:
    with pytest.raises(UserError, match="t_max"):
        epps_pulley(torch.zeros(4, 1), t_max=float("nan"))
