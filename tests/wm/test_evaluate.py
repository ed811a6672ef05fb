"""Held-out error as a fraction of persistence, checked against models whose error is known."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from goalward import UserError
from goalward.wm.evaluate import evaluate
from goalward.wm.latents import LatentEpisodes
from goalward.wm.predictor import PersistencePredictor, PredictorContext


class KnownWorld:
    """Latents that are a running sum of actions; the exact model, with an optional share of the truth missing."""

    def __init__(self, share: float = 1.0, use_actions: bool = True) -> None:
        self.share, self.use_actions = share, use_actions

    def prime(self, z_BTND: torch.Tensor) -> PredictorContext:
        return PredictorContext(keys=(), values=(), z_BND=z_BTND[:, -1])

    def rollout(self, context: PredictorContext, actions_BSHA: torch.Tensor) -> torch.Tensor:
        moved = self.share * actions_BSHA.cumsum(2)[..., None, :] if self.use_actions else 0 * actions_BSHA[..., None, :]
        return context.z_BND[:, None, None] + moved


def sums(episodes: int = 6, steps: int = 8) -> LatentEpisodes:
    actions = torch.randn(episodes, steps + 1, 2, generator=torch.Generator().manual_seed(0))
    z = torch.cat([torch.zeros(episodes, 1, 2), actions[:, :-1].cumsum(1)], dim=1)
    actions[:, -1] = 0
    return LatentEpisodes(
        z_FND=z.reshape(-1, 1, 2),
        actions_FA=actions.reshape(-1, 2),
        proprio_FP=torch.zeros(episodes * (steps + 1), 1),
        first=torch.arange(episodes + 1) * (steps + 1),
    )


def test_the_exact_model_has_no_error_and_needs_its_own_actions() -> None:
    result = evaluate(KnownWorld(), sums(), context=2, horizon=3)
    assert max(result.fraction) < 1e-10
    assert min(result.fraction_shuffled) > 1, "another clip's actions are worse than standing still"
    assert result.num_clips == 6 * 6


def test_persistence_is_exactly_one() -> None:
    result = evaluate(PersistencePredictor(), sums(), context=2, horizon=3)
    assert result.fraction == (1.0, 1.0, 1.0)
    assert result.fraction_shuffled == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_model_that_misses_a_share_of_the_motion_has_that_share_squared(share: float) -> None:
    result = evaluate(KnownWorld(share), sums(), context=2, horizon=3)
    assert result.fraction == pytest.approx([(1 - share) ** 2] * 3, rel=1e-4)


def test_a_model_that_ignores_actions_is_exposed_by_the_control() -> None:
    result = evaluate(KnownWorld(use_actions=False), sums(), context=1, horizon=2)
    assert result.fraction == result.fraction_shuffled


def test_persistence_error_is_the_mean_square_of_the_motion() -> None:
    data = sums()
    result = evaluate(KnownWorld(), data, context=2, horizon=1)
    moves = data.executed_actions().square().mean()
    assert result.persistence[0] == pytest.approx(float(moves), rel=1e-5)


def test_the_batch_size_does_not_matter_and_clips_can_be_limited() -> None:
    data = sums()
    full = evaluate(KnownWorld(0.7), data, context=2, horizon=3)
    assert dataclasses.replace(evaluate(KnownWorld(0.7), data, context=2, horizon=3, batch_size=5)).fraction == pytest.approx(full.fraction)
    assert evaluate(KnownWorld(), data, context=2, horizon=3, max_clips=10).num_clips == 10


def test_episodes_that_are_too_short_or_still_are_refused() -> None:
    with pytest.raises(UserError, match="horizon"):
        evaluate(KnownWorld(), sums(steps=4), context=2, horizon=5)
    still = dataclasses.replace(sums(), z_FND=torch.ones_like(sums().z_FND))
    with pytest.raises(UserError, match="never change"):
        evaluate(KnownWorld(), still, context=2, horizon=2)


def test_json_holds_plain_numbers() -> None:
    written = evaluate(KnownWorld(), sums(), context=2, horizon=2).to_json()
    assert set(written) == {"fraction", "fraction_shuffled", "persistence", "num_clips"}
    assert all(isinstance(value, float) for value in written["fraction"])
