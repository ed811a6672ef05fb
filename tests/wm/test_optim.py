"""Schedule, parameter groups and weight average."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from goalward.wm.optim import make_adamw, update_average, warmup_cosine
from goalward.wm.predictor import LatentPredictor, PredictorConfig


def test_the_rate_rises_then_falls_to_its_floor() -> None:
    rates = [warmup_cosine(step, steps=100, warmup=10, peak=2.0) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == max(rates) == 2.0
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.02)
    assert rates[10 + 89 // 2] == pytest.approx((2.0 + 0.02) / 2, rel=0.05)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 10), (5, 5), (2, 1)])
def test_short_runs_have_finite_positive_rates(steps: int, warmup: int) -> None:
    assert all(0 < warmup_cosine(step, steps=steps, warmup=warmup, peak=1.0) <= 1 for step in range(steps))


def test_every_parameter_is_optimised_once_and_only_matrices_decay() -> None:
    generator = torch.Generator().manual_seed(0)
    predictor = LatentPredictor(PredictorConfig(width=16, heads=2), num_tokens=2, dim=3, action_dim=2, generator=generator)
    decayed, plain = make_adamw(predictor, weight_decay=0.1).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    names = {id(p): name for name, p in predictor.named_parameters()}
    listed = [names[id(p)] for group in (decayed, plain) for p in group["params"]]
    assert sorted(listed) == sorted(names.values())
    assert {names[id(p)] for p in plain["params"]} == {"token", "age", "step", "observed", "action_in_bias", "modulate_bias"}


def test_the_average_starts_fast_and_ends_at_its_decay() -> None:
    average, current = torch.zeros(3), torch.ones(3)
    update_average([average], [current], step=1, decay=0.99)
    torch.testing.assert_close(average, torch.full((3,), 1 - 2 / 11))
    average.zero_()
    update_average([average], [current], step=10**6, decay=0.99)
    torch.testing.assert_close(average, torch.full((3,), 0.01))
