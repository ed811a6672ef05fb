"""What a model says of how it is best planned with, and workspaces of arms that move along some axes only."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from goalward import UserError
from goalward.planners.actions import Intersection, Workspace
from goalward.planners.control.controller import bounded_by, make_controller
from goalward.planners.methods.cem import CEM, CEMConfig
from goalward.planners.methods.icem import ICEM, ICEMConfig
from goalward.planners.objectives import LatentDistance
from goalward.planners.registry import configured

GOAL = (0.6, 0.5, 0.4)


def advised(worlds: SimpleNamespace, **changes: Any) -> Any:
    world = worlds.PointWorld()
    given = {"planner": "icem", "settings": {"num_samples": 9}, "horizon": 5, "step_weights": "last"}
    world.planning = SimpleNamespace(**(given | changes))
    return world


def test_a_model_is_planned_with_as_it_advises(worlds: SimpleNamespace) -> None:
    world = advised(worlds)
    policy = make_controller(world, world.image(GOAL)).policy
    assert isinstance(policy.planner, ICEM)
    assert policy.planner.config == ICEMConfig(num_samples=9)
    assert policy.config.horizon == 5
    (term,) = policy.objective.terms
    assert isinstance(term, LatentDistance)
    assert term.step_weights == "last"


def test_whoever_asks_for_something_gets_it(worlds: SimpleNamespace) -> None:
    world = advised(worlds)
    policy = make_controller(world, world.image(GOAL), planner="cem", horizon=2).policy
    assert isinstance(policy.planner, CEM)
    assert not isinstance(policy.planner, ICEM)
    assert policy.planner.config == CEMConfig()
    assert policy.config.horizon == 2
    own = ICEMConfig(num_samples=30)
    assert make_controller(world, world.image(GOAL), planner_config=own).policy.planner.config == own  # type: ignore[attr-defined]


def test_without_advice_the_defaults_hold(worlds: SimpleNamespace) -> None:
    world = worlds.PointWorld()
    policy = make_controller(world, world.image(GOAL)).policy
    assert policy.planner.config == CEMConfig()  # type: ignore[attr-defined]
    assert policy.config.horizon == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"planner": "icen"}, "did you mean icem"),
        ({"settings": {"num_sample": 3}}, "no num_sample"),
        ({"settings": {"num_samples": 0}}, "num_samples"),
        ({"horizon": 0}, "horizon"),
        ({"step_weights": "first"}, "step_weights"),
    ],
)
def test_bad_advice_is_refused(changes: dict[str, Any], said: str, worlds: SimpleNamespace) -> None:
    world = advised(worlds, **changes)
    with pytest.raises(UserError, match=said):
        make_controller(world, world.image(GOAL))


def test_a_configuration_keeps_what_is_not_named() -> None:
    assert configured("cem", {}) == CEMConfig()
    assert configured("cem", {"num_iterations": 7}) == CEMConfig(num_iterations=7)


def test_a_workspace_bounds_the_axes_that_actions_steer(worlds: SimpleNamespace) -> None:
    """An arm that moves along z and x alone, in this order, in a box whose y says nothing about it."""
    world = worlds.LinearWorld(torch.eye(2), torch.eye(2), low=-0.1, high=0.1)
    world.action_names = ("dz_m", "dx_m")
    bounds = bounded_by(world, [0.0, 0.4, 0.2], [1.0, 0.3, 0.25])
    assert isinstance(bounds, Intersection)
    (workspace,) = bounds.limits
    assert isinstance(workspace, Workspace)
    assert workspace.action_dims == (1, 0)
    assert workspace.low_E.tolist() == [0.0, 0.2]
    assert workspace.high_E.tolist() == [1.0, 0.25]


def test_a_controller_never_steers_out_of_a_planar_workspace(worlds: SimpleNamespace) -> None:
    class Planar(worlds.PointWorld):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.G_DA = torch.eye(3)[:, :2]
            self.num_actions, self.action_names = 2, ("dx_m", "dy_m")
            self.action_low, self.action_high = torch.full((2,), -0.1), torch.full((2,), 0.1)

    world = Planar()
    controller = make_controller(world, world.image((0.9, 0.1, 0.5)), workspace=([0.3, 0.3, 9.0], [0.6, 0.6, 1.0]))
    position = np.array([0.5, 0.4, 0.5])
    for step in range(6):
        action = controller.act(world.observation(position, 0.25 * step))
        assert action.shape == (2,)
        position[:2] += action
        assert (position[:2] >= 0.3).all()
        assert (position[:2] <= 0.6).all()
    np.testing.assert_allclose(position[:2], [0.6, 0.3], atol=0.01)
