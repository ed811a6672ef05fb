"""What is measured on held-out episodes, on worlds where the answer is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from goalward import UserError
from goalward.wm.calibrate import Pairs, detected, halves, pairs_of, prediction_errors, success_threshold
from goalward.wm.latents import LatentEpisodes


class Drifting:
    """Predicts that every entry is off by `off` after each step."""

    context_frames = 2

    def __init__(self, off: float) -> None:
        self.off = off

    def prime(self, z_BTND: torch.Tensor) -> torch.Tensor:
        return z_BTND[:, -1]

    def rollout(self, context: torch.Tensor, actions_BSHA: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(1, actions_BSHA.shape[2] + 1)
        return context[:, None, None] + actions_BSHA[..., :1, None].cumsum(2) + self.off * steps[None, None, :, None, None]


def walk(episodes: int = 6, steps: int = 20, seed: int = 0) -> LatentEpisodes:
    """Latents are the position, moved along every axis by the first action entry; proprioception is the position, among other things."""
    generator = torch.Generator().manual_seed(seed)
    actions = 0.02 * torch.randn(episodes, steps + 1, 1, generator=generator)
    start = 0.1 * torch.rand(episodes, 1, 3, generator=generator)
    position = start + torch.cat([torch.zeros(episodes, 1, 1), actions[:, :-1].cumsum(1)], dim=1)
    flat = position.reshape(-1, 3)
    return LatentEpisodes(
        z_FND=flat[:, None], actions_FA=actions.reshape(-1, 1), proprio_FP=torch.cat([torch.zeros(len(flat), 1), flat], dim=1),
        first=torch.arange(episodes + 1) * (steps + 1),
    )  # fmt: skip


def test_a_known_error_is_measured_at_every_level() -> None:
    error_HQ, clips = prediction_errors(Drifting(0.1), walk(), horizon=3, levels=(0.5, 0.99))
    assert clips == 6 * 18
    assert error_HQ.tolist() == [pytest.approx([(0.1 * h) ** 2] * 2, rel=1e-3) for h in (1, 2, 3)]


def test_too_short_episodes_and_broken_models_are_named() -> None:
    with pytest.raises(UserError, match="horizon is 30"):
        prediction_errors(Drifting(0.1), walk(), horizon=30, levels=(0.5,))
    with pytest.raises(UserError, match="not finite"):
        prediction_errors(Drifting(float("nan")), walk(), horizon=3, levels=(0.5,))


def test_pairs_have_the_true_distance_and_the_planner_s_energy_evenly_over_distances() -> None:
    pairs = pairs_of(walk(), [1, 2, 3], max_distance_m=0.1, per_shell=30)
    torch.testing.assert_close(pairs.energy_K, pairs.distance_K.square() / 3, atol=1e-9, rtol=1e-4)
    counts = torch.histc(pairs.distance_K.float(), bins=10, min=0, max=0.1)
    assert set(counts.tolist()) == {30.0}
    again = pairs_of(walk(), [1, 2, 3], max_distance_m=0.1, per_shell=30)
    assert torch.equal(pairs.distance_K, again.distance_K)


def test_a_latent_that_is_the_position_is_detected_perfectly() -> None:
    pairs = pairs_of(walk(), [1, 2, 3], max_distance_m=0.1)
    energy = success_threshold(pairs, tolerance_m=0.03, precision=1.0)
    assert energy == pytest.approx(0.03**2 / 3, rel=0.02)
    near, found, both = detected(pairs, energy=energy, tolerance_m=0.03)
    assert near == found == both > 50


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), noise=st.floats(0.0, 0.05), precision=st.floats(0.5, 1.0), count=st.integers(25, 400))
def test_the_threshold_is_the_largest_that_keeps_the_precision(seed: int, noise: float, precision: float, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    distance = 0.2 * torch.rand(count, generator=generator, dtype=torch.float64)
    energy = (distance + noise * torch.randn(count, generator=generator, dtype=torch.float64)).square()
    pairs = Pairs(distance_K=distance, energy_K=energy)

    def share(at: float) -> float:
        _, found, both = detected(pairs, energy=at, tolerance_m=0.03)
        return both / found if found >= 20 else 0.0

    good = [at for at in energy.tolist() if share(at) >= precision]
    if not good:
        with pytest.raises(UserError, match="no latent distance detects"):
            success_threshold(pairs, tolerance_m=0.03, precision=precision)
    else:
        assert success_threshold(pairs, tolerance_m=0.03, precision=precision) == max(good)


def test_halves_share_no_episode() -> None:
    one, other = halves(walk(5))
    assert (one.num_episodes, other.num_episodes) == (3, 2)
    seen: list[Any] = [set(map(tuple, half.z_FND[:, 0].tolist())) for half in (one, other)]
    assert not seen[0] & seen[1]
    with pytest.raises(UserError, match="1 validation episodes are too few"):
        halves(walk(1))
