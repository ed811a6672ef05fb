"""Distance in pixels: the mean squared error of decoded pictures, its gradients, its goals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from goalward import UserError
from goalward.planners.actions import Situation
from goalward.planners.objectives import DecodedDistance, LatentDistance, Objective, Outcome
from goalward.planners.objectives.decoded import picture_distance

VIEWS, SIZE, TOKENS, WIDTH = 2, 4, 6, 5


class Painter:
    """A smooth decoder of known values, in the precision of its latents; counts the pictures."""

    def __init__(self) -> None:
        self.brush = torch.randn(TOKENS * WIDTH, VIEWS * SIZE * SIZE * 3, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
        self.painted = 0

    def decode(self, z_BND: Tensor) -> Tensor:
        shape = (*z_BND.shape[:-2], VIEWS, SIZE, SIZE, 3)
        self.painted += shape[0] if len(shape) == 5 else int(torch.tensor(shape[:-4]).prod())
        return torch.sigmoid(0.2 * z_BND.flatten(-2) @ self.brush.to(z_BND.dtype)).reshape(shape)


def outcome(seed: int = 0, *, goals: int = 1, horizon: int = 3, dtype: torch.dtype = torch.float64) -> Outcome:
    generator = torch.Generator().manual_seed(seed)
    return Outcome(
        z_BSHND=torch.randn(2, 4, horizon, TOKENS, WIDTH, generator=generator, dtype=dtype),
        z_goal_BGND=torch.randn(2, goals, TOKENS, WIDTH, generator=generator, dtype=dtype),
        actions_BSHA=torch.randn(2, 4, horizon, 3, generator=generator, dtype=dtype),
        unit_A=torch.ones(3, dtype=dtype),
        situation=Situation(),
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), goals=st.integers(1, 3), step_weights=st.sampled_from(["last", "uniform", "linear", (0.0, 2.0, 1.0)]))
def test_it_is_the_mean_squared_error_of_decoded_pictures(seed: int, goals: int, step_weights: Any) -> None:
    painter, shown = Painter(), outcome(seed, goals=goals)
    cost_BS = DecodedDistance(model=painter, step_weights=step_weights).cost(shown)
    named = {"last": (0, 0, 1), "uniform": (1 / 3, 1 / 3, 1 / 3), "linear": (1 / 6, 2 / 6, 3 / 6)}
    shares = named.get(str(step_weights), (0, 2 / 3, 1 / 3))
    assert cost_BS.shape == (2, 4)
    for b in range(2):
        wanted = [painter.decode(goal) for goal in shown.z_goal_BGND[b]]
        for s in range(4):
            seen = [painter.decode(z) for z in shown.z_BSHND[b, s]]
            nearest = [min(float(((picture - goal) ** 2).mean()) for goal in wanted) for picture in seen]
            assert float(cost_BS[b, s]) == pytest.approx(sum(w * d for w, d in zip(shares, nearest, strict=True)), rel=1e-9)


def test_the_goal_itself_costs_nothing_and_black_from_white_costs_one() -> None:
    painter, shown = Painter(), outcome()
    there = replace(shown, z_BSHND=shown.z_goal_BGND[:, :, None].expand(-1, 4, 3, -1, -1))
    assert float(DecodedDistance(model=painter).cost(there).abs().max()) < 1e-30
    black = torch.zeros(VIEWS, SIZE, SIZE, 3)
    assert float(picture_distance(black, black + 1)) == 1


@pytest.mark.parametrize("step_weights", ["last", "uniform"])
def test_gradients_equal_finite_differences(step_weights: Any) -> None:
    shown = outcome(3, goals=2)
    term = DecodedDistance(model=Painter(), step_weights=step_weights)

    def cost(z_BSHND: Tensor) -> Tensor:
        return term.cost(replace(shown, z_BSHND=z_BSHND))

    assert torch.autograd.gradcheck(cost, (shown.z_BSHND[:, :, :2].clone().requires_grad_(),), atol=1e-7)


def test_only_frames_that_count_are_decoded() -> None:
    painter = Painter()
    DecodedDistance(model=painter, step_weights="last").cost(outcome())
    assert painter.painted == 2 * 4 + 2
    DecodedDistance(model=painter, step_weights="uniform").cost(outcome())
    assert painter.painted == 2 * 4 + 2 + 3 * 2 * 4 + 2


def test_goal_images_themselves_may_be_given() -> None:
    painter, shown = Painter(), outcome()
    images = torch.randint(0, 256, (2, VIEWS, SIZE, SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    cost_BS = DecodedDistance(model=painter, goal_pixels_GVhw3=images).cost(shown)
    seen_BSVhw3 = painter.decode(shown.z_BSHND[:, :, -1])
    each = torch.stack([((seen_BSVhw3 - image / 255) ** 2).flatten(2).mean(-1) for image in images])
    torch.testing.assert_close(cost_BS, each.amin(0))
    with pytest.raises(UserError, match="the model decodes"):
        DecodedDistance(model=painter, goal_pixels_GVhw3=images[:, :1]).cost(shown)


def test_a_cost_does_not_depend_on_the_batch_to_the_last_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    seen_BSVhw3 = torch.rand(3, 5, 2, 64, 64, 3, generator=generator)
    goal_BVhw3 = torch.rand(3, 2, 64, 64, 3, generator=generator)
    together = picture_distance(seen_BSVhw3, goal_BVhw3[:, None])
    for b in range(3):
        assert torch.equal(picture_distance(seen_BSVhw3[b : b + 1].clone(), goal_BVhw3[b : b + 1, None].clone())[0], together[b])
        assert torch.equal(picture_distance(seen_BSVhw3[b, 2].clone(), goal_BVhw3[b].clone()), together[b, 2])


def test_it_goes_with_other_terms() -> None:
    shown, term = outcome(dtype=torch.float32), DecodedDistance(model=Painter(), weight=100.0)
    assert term.cost(shown).dtype == torch.float32
    both = Objective(terms=(LatentDistance(), term))(shown)
    torch.testing.assert_close(both, LatentDistance().cost(shown) + 100 * term.cost(shown))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"weight": -1.0}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"step_weights": "first"}, "step_weights"),
        ({"step_weights": (0.0, 0.0)}, "step_weights"),
        ({"goal_pixels_GVhw3": torch.zeros(1, 2, 4, 4, 3)}, "goal_pixels"),
        ({"goal_pixels_GVhw3": torch.zeros(2, 4, 4, 3, dtype=torch.uint8)}, "goal_pixels"),
    ],
)
def test_bad_settings_name_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(UserError, match=field):
        DecodedDistance(model=Painter(), **changes)
