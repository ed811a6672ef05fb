"""The rollout benchmark counts what torch counts, and its statistics are what they say."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from goalward import UserError
from goalward.experiments.bench.coarse import CoarseCommand, kept_of_best, spearman
from goalward.experiments.bench.rollout import RolloutCommand, family_of
from goalward.experiments.bench.rollout_flop import Shape
from goalward.wm.predictor import LatentPredictor, PredictorConfig


@pytest.mark.parametrize(("frames", "candidates", "horizon"), [(2, 5, 3), (6, 4, 2), (1, 1, 1)])
def test_operations_are_those_torch_counts(frames: int, candidates: int, horizon: int) -> None:
    config = PredictorConfig(width=32, depth=2, heads=4, context_frames=frames)
    predictor = LatentPredictor(config, num_tokens=8, dim=16, action_dim=3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        context = predictor.prime(torch.zeros(1, frames, 8, 16))
        with FlopCounterMode(display=False) as counter:
            predictor.rolled(context, torch.zeros(1, candidates, horizon, 3))
    shape = Shape(config=config, num_tokens=8, dim=16, action_dim=3, candidates=candidates, horizon=horizon)
    assert shape.flop() == counter.get_total_flops()


@pytest.mark.parametrize(
    ("operator", "family"),
    [
        ("aten::addmm", "matrix products"),
        ("aten::_softmax", "softmax"),
        ("aten::native_layer_norm", "layer norm"),
        ("aten::addcmul", "other elementwise"),
        ("aten::cat", "copies"),
        ("aten::as_strided", "dispatch and views"),
    ],
)
def test_operators_have_families(operator: str, family: str) -> None:
    assert family_of(operator) == family


def test_rank_statistics() -> None:
    costs = torch.rand(2, 200, generator=torch.Generator().manual_seed(0))
    assert spearman(costs, costs.exp()) == pytest.approx(1)
    assert spearman(costs, -costs) == pytest.approx(-1)
    assert kept_of_best(costs, costs) == 10
    assert kept_of_best(-costs, costs) == 0


@pytest.mark.parametrize(
    ("command", "field"), [(lambda: RolloutCommand(candidates=()), "candidates"), (lambda: CoarseCommand(strides=(0,)), "strides")]
)
def test_bad_options_are_named(command, field: str) -> None:
    with pytest.raises(UserError, match=field):
        command()
