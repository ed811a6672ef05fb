"""Golden values: what the public code gives for the synthetic weights and inputs of the tiny size, a few kilobytes.

Letters: B problems, T frames, H horizon steps, A actions, P states.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from goalward.experiments.bench.vjepa2_ac.landscape import energies
from goalward.experiments.bench.vjepa2_ac.planning import public_arguments, recorded, their_action
from goalward.experiments.bench.vjepa2_ac.public import PublicCode
from goalward.experiments.bench.vjepa2_ac.synthetic import TINY, inputs, weights
from goalward.planners.vjepa2_ac import VJEPA2_AC_PRESETS, VJepa2ACPlanning
from goalward.wm.vjepa2_ac.folder import predictor_of

FRAMES, STEPS = 2, 3


def golden_preset(name: str) -> VJepa2ACPlanning:
    """A preset, small enough for a test."""
    return dataclasses.replace(VJEPA2_AC_PRESETS[name], num_samples=20, num_iterations=3)


@torch.no_grad()
def golden_values(public: PublicCode) -> dict[str, Tensor]:
    """Computes them by the public code."""
    given = weights(TINY)
    theirs = public.predictor(TINY, given)
    window = inputs(TINY, problems=2, frames=FRAMES + STEPS)
    z, states, actions = window.z_BTND[:, :FRAMES], window.states_BTP[:, :FRAMES], window.actions_BTA
    values = {
        "window": theirs(z.flatten(1, 2), actions[:, :FRAMES], states).view(z.shape),
        "rollout": public.rolled(theirs, z, states, actions[:, : FRAMES - 1 + STEPS], None, STEPS),
        "pose_after": public.mpc.compute_new_pose(window.states_BTP.flatten(0, 1)[:, None], actions.flatten(0, 1)[:, None])[:, 0],
        "pose_difference": torch.stack([public.mpc.poses_to_diff(*pair) for pair in window.states_BTP[:, :2]]).to(torch.float32),
    }
    one = inputs(TINY, problems=1, frames=1)
    values["energy"], _ = energies(public, theirs, predictor_of(given, TINY), one)
    wide = dataclasses.replace(TINY, rows=2, columns=3, extrinsics=True)
    with_camera = inputs(wide, problems=1, frames=FRAMES)
    values["camera"] = public.predictor(wide, weights(wide))(
        with_camera.z_BTND.flatten(1, 2), with_camera.actions_BTA, with_camera.states_BTP, with_camera.extrinsics_BTE
    ).view(with_camera.z_BTND.shape)
    for name in VJEPA2_AC_PRESETS:
        preset = golden_preset(name)
        with recorded(seed=3) as noise:
            values[f"action_{name}"] = their_action(public.planner(theirs, TINY, public_arguments(preset)), one)
        values[f"noise_{name}"] = torch.stack(noise)
    return values


def write_golden(public: PublicCode, path: Path) -> None:
    """Writes them."""
    save_file({name: value.contiguous() for name, value in golden_values(public).items()}, path)
