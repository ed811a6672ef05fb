"""A generative world model under a planner: it plans in pixels, and a problem's plan does not depend on the batch, to the last bit.

Checked with one, two and three threads, for the reason that `test_invariance.py` gives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from goalward.planners.actions import Box, Situation
from goalward.planners.base import Plan, PlannerState, Problem
from goalward.planners.methods.adam import AdamConfig
from goalward.planners.methods.cem import CEMConfig
from goalward.planners.objectives import DecodedDistance, LatentDistance, Objective, Outcome
from goalward.planners.registry import make_planner
from goalward.wm.checkpoint import EncoderReference, ModelDescription
from goalward.wm.decoder import Decoder, DecoderConfig, DecoderNetwork
from goalward.wm.encoders import SmallEncoder, SmallEncoderConfig, SmallEncoderNetwork
from goalward.wm.model import WorldModel
from goalward.wm.predictor import LatentPredictor, PredictorConfig

SIZES = PredictorConfig(width=32, depth=2, heads=2)
DTYPES = [torch.bfloat16, torch.float32]


@pytest.fixture(params=[1, 2, 3], ids=lambda count: f"threads{count}")
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=DTYPES, ids=["bfloat16", "float32"])
def model(signature, request: pytest.FixtureRequest) -> WorldModel:
    generator = torch.Generator().manual_seed(0)
    shape = SmallEncoderConfig(image_size_px=32, widths=(8, 8, 8), blocks=(0, 0, 1), dim=32)
    encoder = SmallEncoder(SmallEncoderNetwork(shape, generator))
    predictor = LatentPredictor(SIZES, num_tokens=8, dim=32, action_dim=2, generator=generator)
    with torch.no_grad():
        predictor.head.normal_(std=0.3, generator=generator)
    description = ModelDescription(
        predictor=SIZES,
        num_tokens=8,
        dim=32,
        env=dataclasses.replace(signature, image_size_px=32),
        encoder=EncoderReference(name="small", fingerprint=encoder.fingerprint, shipped=False),
        latent_scale=0.5,
        action_mean=(0.0, 0.0),
        action_std=(0.03, 0.03),
        proprio_mean=(0.0,) * 3,
        proprio_std=(1.0,) * 3,
        data_hash="",
        training={},
        versions={},
    )
    made = WorldModel(description, predictor, draw(8, 32), encoder, dtype=request.param)
    network = DecoderNetwork(DecoderConfig(image_size_px=32, dim=32, widths=(16, 8, 8), blocks=(1, 0, 0)), generator)
    made.decoder = Decoder(network, encoder=encoder.fingerprint, dtype=request.param)
    return made


def problem_of(model: WorldModel, z_BTND: Tensor, z_goal_BGND: Tensor, objective: Objective) -> Problem:
    return Problem(
        model=model,
        context=model.prime(z_BTND),
        z_goal_BGND=z_goal_BGND,
        action_set=Box.of(model.action_low, model.action_high),
        situation=Situation(),
        objective=objective,
        horizon=2,
        dt_s=model.dt_s,
        start_time_s=(0.0,) * len(z_BTND),
    )


@pytest.mark.parametrize(
    ("planner", "config"),
    [
        ("cem", CEMConfig(num_samples=6, num_iterations=2, num_elites=2, num_kept_elites=1)),
        ("adam", AdamConfig(num_starts=2, num_iterations=3)),
    ],
)
def test_a_plan_in_pixels_does_not_depend_on_the_batch(model: WorldModel, planner: str, config: object, threads: int) -> None:
    z_BTND, goals = draw(3, 2, 8, 32), draw(3, 1, 8, 32, seed=1)
    objective = Objective(terms=(DecodedDistance(model=model, step_weights="uniform"),))

    def plan(chosen: list[int]) -> Plan:
        problem = problem_of(model, z_BTND[chosen], goals[chosen], objective)
        return make_planner(planner, config).plan(problem, PlannerState.initial([10 + b for b in chosen]))[0]

    together = plan([0, 1, 2])
    for b in range(3):
        alone = plan([b])
        assert torch.equal(alone.actions_BHA[0], together.actions_BHA[b])
        assert torch.equal(alone.cost_B[0], together.cost_B[b])
    assert bool((together.best_cost_BI[:, -1] <= together.best_cost_BI[:, 0]).all())
    elsewhere = problem_of(model, z_BTND, goals, Objective(terms=(LatentDistance(step_weights="uniform"),)))
    in_latents = make_planner(planner, config).plan(elsewhere, PlannerState.initial([10, 11, 12]))[0]
    assert not torch.equal(in_latents.actions_BHA, together.actions_BHA)  # the decoder does have a say


def test_what_it_costs_is_the_error_of_decoded_frames_and_has_its_gradient(model: WorldModel) -> None:
    if model.dtype is not torch.float32:
        pytest.skip("finite differences need float32")
    z_BTND, goals = draw(1, 2, 8, 32), draw(1, 1, 8, 32, seed=1)
    context, term = model.prime(z_BTND), DecodedDistance(model=model)

    def cost(actions_BSHA: Tensor) -> Tensor:
        z_BSHND = model.rollout(context, actions_BSHA)
        unit_A = torch.ones(2)
        return term.cost(Outcome(z_BSHND=z_BSHND, z_goal_BGND=goals, actions_BSHA=actions_BSHA, unit_A=unit_A, situation=Situation()))

    actions, along = 0.02 * draw(1, 1, 2, 2, seed=2), draw(1, 1, 2, 2, seed=3)
    with torch.no_grad():
        seen, wanted = (model.decode(z) for z in (model.rollout(context, actions)[:, :, -1], goals))
        torch.testing.assert_close(cost(actions), ((seen - wanted) ** 2).mean((2, 3, 4, 5)))
        step = 3e-3
        slope = float((cost(actions + step * along) - cost(actions - step * along)) / (2 * step))
    (gradient,) = torch.autograd.grad(cost(actions.requires_grad_()).sum(), actions)
    assert float((gradient * along).sum()) == pytest.approx(slope, rel=0.02)
