"""V-JEPA 2-AC's planner settings: what they search, and the parts of our CEM that they need."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from goalward import UserError
from goalward.planners.actions import Situation
from goalward.planners.base import PlannerState
from goalward.planners.methods.cem import CEM, CEMConfig
from goalward.planners.registry import configured
from goalward.planners.vjepa2_ac import VJEPA2_AC_PRESETS, VJepa2ACPlanning, vjepa2_ac_planning


def test_the_papers_settings():
    preset = vjepa2_ac_planning("paper")
    config = preset.cem_config()
    assert (config.num_samples, config.num_iterations, config.num_elites, preset.horizon) == (800, 10, 10, 1)
    assert set(config.momentum) == {0.15}
    actions = preset.action_set()
    torch.testing.assert_close(actions.high_A, torch.tensor([0.075] * 3 + [0.0] * 3 + [0.75]))
    spread = torch.tensor(config.init_std) * actions.high_A
    torch.testing.assert_close(spread, torch.tensor([0.075] * 3 + [0.0] * 3 + [1.0]))


def test_the_notebook_has_another_momentum_for_the_spread_of_x_y_z():
    assert VJEPA2_AC_PRESETS["notebook"].cem_config().std_momentum == (0.75,) * 6 + (0.15,)


def test_what_is_sent_has_a_dead_zone_and_what_is_searched_need_not():
    preset = VJepa2ACPlanning()
    wanted = torch.zeros(1, 4, 1, 7)
    wanted[0, :, 0, 6] = torch.tensor([0.1, -0.2, 0.3, 2.0])
    wanted[0, :, 0, 3] = 1.0
    searched = preset.action_set().project(wanted, Situation())
    torch.testing.assert_close(searched[0, :, 0, 6], torch.tensor([0.1, -0.2, 0.3, 0.75]))
    assert not searched[..., 3:6].any()
    torch.testing.assert_close(preset.settled(searched[0])[:, 0, 6], torch.tensor([0.0, 0.0, 0.3, 0.75]))
    inside = dataclasses.replace(preset, dead_zone_in_search=True).action_set().project(wanted, Situation())
    torch.testing.assert_close(inside[0, :, 0, 6], torch.tensor([0.0, 0.0, 0.3, 0.75]))


def test_a_closed_gripper_stays_closed():
    preset = VJepa2ACPlanning(closed=True, dead_zone_in_search=True)
    projected = preset.action_set().project(torch.zeros(1, 2, 1, 7), Situation())
    assert torch.equal(projected[..., 6], torch.ones(1, 2, 1))
    assert torch.equal(preset.settled(projected[0]), projected[0])


def test_an_unknown_preset_is_refused():
    with pytest.raises(UserError, match="preset: 'papers' is unknown; choose from paper, wrapper, notebook"):
        vjepa2_ac_planning("papers")
    with pytest.raises(UserError, match="max_step_m"):
        VJepa2ACPlanning(max_step_m=0.0)
    with pytest.raises(UserError, match="num_elites"):
        VJepa2ACPlanning(num_samples=5)


def problem(worlds, num_actions: int = 2):
    world = worlds.random_world(0, num_actions=num_actions)
    return world, worlds.make_problem(world, torch.zeros(1, 3), torch.ones(1, 3), horizon=2)


def test_one_spread_and_one_momentum_for_every_action_entry(worlds):
    world, given = problem(worlds)
    config = CEMConfig(num_samples=4000, num_iterations=2, num_elites=200, min_std=0.0, num_kept_elites=0)
    CEM(dataclasses.replace(config, init_std=(0.1, 0.3), num_iterations=1)).plan(given, PlannerState.initial([0]))
    torch.testing.assert_close(world.seen[0][0].std(dim=(0, 1)), torch.tensor([0.1, 0.3]), rtol=0.05, atol=0)
    world.seen.clear()
    CEM(dataclasses.replace(config, init_std=0.1, momentum=(0.0, 0.999))).plan(given, PlannerState.initial([0]))
    mean_HA, spread_HA = world.seen[1][0].mean(dim=0), world.seen[1][0].std(dim=0)
    torch.testing.assert_close(spread_HA[:, 1], torch.full((2,), 0.1), rtol=0.05, atol=0)
    assert float(mean_HA[:, 1].abs().max()) < 0.01
    assert float(spread_HA[:, 0].min()) < 0.097
    world.seen.clear()
    CEM(dataclasses.replace(config, init_std=0.1, std_momentum=0.999)).plan(given, PlannerState.initial([0]))
    torch.testing.assert_close(world.seen[1][0].std(dim=0), torch.full((2, 2), 0.1), rtol=0.05, atol=0)
    assert float(world.seen[1][0].mean(dim=0).abs().max()) > 0.05


def test_deviations_divided_by_their_number_less_one(worlds):
    spreads = []
    for unbiased in (False, True):
        world, given = problem(worlds)
        config = CEMConfig(num_samples=3000, num_iterations=2, num_elites=2, min_std=0.0, num_kept_elites=0, unbiased=unbiased)
        CEM(dataclasses.replace(config, init_std=0.05)).plan(given, PlannerState.initial([0]))
        spreads.append(world.seen[1][0].std(dim=0))
    torch.testing.assert_close(spreads[1], spreads[0] * 2**0.5, rtol=0.05, atol=1e-6)


def test_the_mean_need_not_compete(worlds):
    for competes in (True, False):
        world, given = problem(worlds)
        CEM(CEMConfig(num_samples=8, num_iterations=1, mean_competes=competes)).plan(given, PlannerState.initial([0]))
        assert bool((world.seen[0][0, 0] == 0).all()) is competes


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"init_std": (0.1, 0.0)}, "init_std: 0.0"),
        ({"momentum": (0.1, 1.0)}, "momentum: 1.0"),
        ({"std_momentum": -0.1}, "std_momentum: -0.1"),
    ],
)
def test_settings_out_of_range_are_refused(fields, says):
    with pytest.raises(UserError, match=says):
        CEMConfig(**fields)


def test_a_models_advice_may_give_one_number_per_entry():
    assert configured("cem", {"init_std": [0.1, 0.2]}) == CEMConfig(init_std=(0.1, 0.2))


def test_another_number_of_spreads_than_action_entries_is_refused(worlds):
    _, given = problem(worlds)
    with pytest.raises(UserError, match="init_std: 3 numbers for 2 action entries"):
        CEM(CEMConfig(init_std=(0.1, 0.2, 0.3))).plan(given, PlannerState.initial([0]))
