"""Our numbers against those of the public code, which stand in golden.safetensors (a few kilobytes).

They are made by `python -m goalward.experiments.bench.vjepa2_ac_equality --checkout FOLDER --golden FILE`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from goalward.experiments.bench.vjepa2_ac.golden import FRAMES, STEPS, golden_preset
from goalward.experiments.bench.vjepa2_ac.landscape import grid_1SHA
from goalward.experiments.bench.vjepa2_ac.planning import our_action
from goalward.planners.objectives import latent_distance
from goalward.planners.vjepa2_ac import VJEPA2_AC_PRESETS
from goalward.wm.vjepa2_ac.poses import pose_after, pose_difference

GOLDEN = load_file(Path(__file__).with_name("golden.safetensors"))
CLOSE = {"rtol": 0.0, "atol": 1e-5}


def test_the_predictor_equals_the_public_one(ac):
    predictor, window = ac.make(), ac.inputs(ac.TINY, problems=2, frames=FRAMES + STEPS)
    z = predictor(window.z_BTND[:, :FRAMES], window.actions_BTA[:, :FRAMES], window.states_BTP[:, :FRAMES])
    assert float(z.abs().max()) > 1.0
    torch.testing.assert_close(z, GOLDEN["window"], **CLOSE)


def test_rollouts_equal_the_public_ones(ac):
    predictor, window = ac.make(), ac.inputs(ac.TINY, problems=2, frames=FRAMES + STEPS)
    context = predictor.prime(window.z_BTND[:, :FRAMES], window.states_BTP[:, :FRAMES], window.actions_BTA[:, : FRAMES - 1])
    z = predictor.rollout(context, window.actions_BTA[:, None, FRAMES - 1 : FRAMES - 1 + STEPS])[:, 0]
    torch.testing.assert_close(z, GOLDEN["rollout"], **CLOSE)


def test_the_camera_and_a_grid_that_is_not_square_equal_the_public_ones(ac):
    predictor = ac.make(columns=3, extrinsics=True)
    window = ac.inputs(predictor.config, problems=1, frames=FRAMES)
    z = predictor(window.z_BTND, window.actions_BTA, window.states_BTP, window.extrinsics_BTE)
    torch.testing.assert_close(z, GOLDEN["camera"], **CLOSE)


def test_poses_equal_the_public_ones(ac):
    window = ac.inputs(ac.TINY, problems=2, frames=FRAMES + STEPS)
    after = pose_after(window.states_BTP, window.actions_BTA).flatten(0, 1)
    torch.testing.assert_close(after, GOLDEN["pose_after"], rtol=0.0, atol=1e-6)
    difference = pose_difference(window.states_BTP[:, 0], window.states_BTP[:, 1])
    torch.testing.assert_close(difference, GOLDEN["pose_difference"], rtol=0.0, atol=1e-6)


def test_the_energy_landscape_equals_that_of_the_public_notebook(ac):
    predictor, window = ac.make(), ac.inputs(ac.TINY, problems=1, frames=1)
    context = predictor.prime(window.z_BTND, window.states_BTP, window.actions_BTA[:, :0])
    energy = latent_distance(predictor.rollout(context, grid_1SHA())[0, :, -1], window.z_goal_BND, "l1")
    torch.testing.assert_close(energy, GOLDEN["energy"], **CLOSE)
    assert int(energy.argmin()) == int(GOLDEN["energy"].argmin())


@pytest.mark.parametrize("name", VJEPA2_AC_PRESETS)
def test_the_presets_return_the_public_planners_action_for_the_same_noise(ac, name):
    preset = golden_preset(name)
    action = our_action(ac.make(), ac.inputs(ac.TINY, problems=1, frames=1), preset, list(GOLDEN[f"noise_{name}"]))
    torch.testing.assert_close(action, GOLDEN[f"action_{name}"], rtol=0.0, atol=1e-6)


def test_without_the_duplicated_frequencies_the_numbers_are_others(ac):
    """The golden values would tell: the fault is really there."""
    window = ac.inputs(ac.TINY, problems=2, frames=FRAMES)
    repaired = ac.make(dataclasses.replace(ac.TINY, duplicated_frequencies=False))
    z = repaired(window.z_BTND, window.actions_BTA, window.states_BTP)
    assert float((z - GOLDEN["window"]).abs().max()) > 1e-3
