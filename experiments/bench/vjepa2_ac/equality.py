"""Measures, in one process with both codes, how far our numbers are from the public ones. Told what to do by a JSON file.

    python -m goalward.experiments.bench.vjepa2_ac.equality REQUEST.json

Letters: B problems, S candidates, H horizon steps, T frames, N patch tokens, D width, A actions.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from goalward.experiments.bench.vjepa2_ac.landscape import energies, grid_1SHA, heatmap
from goalward.experiments.bench.vjepa2_ac.planning import our_action, public_arguments, recorded, their_action
from goalward.experiments.bench.vjepa2_ac.public import PublicCode
from goalward.experiments.bench.vjepa2_ac.synthetic import TINY, inputs, uniform, weights
from goalward.planners.vjepa2_ac import VJEPA2_AC_PRESETS
from goalward.wm.vjepa2_ac.config import STATE_DIM, VJepa2ACConfig
from goalward.wm.vjepa2_ac.folder import predictor_of
from goalward.wm.vjepa2_ac.poses import pose_after, pose_difference

_SMALL = VJepa2ACConfig(dim=32, width=64, depth=4, heads=4, hidden=256, rows=8, columns=8)
SIZES: dict[str, VJepa2ACConfig] = {
    "tiny": TINY,
    "small": _SMALL,
    "small, with the camera's pose": dataclasses.replace(_SMALL, extrinsics=True),
    "small, 4 x 6 patches": dataclasses.replace(_SMALL, rows=4, columns=6),
    "published width, 2 layers, 256 patches": VJepa2ACConfig(depth=2),
}
"""What is compared."""


def measure(public: PublicCode, *, frames: int = 2, steps: int = 3) -> dict[str, Any]:
    """All figures: largest absolute differences in float32, beside the size of the numbers."""
    rows = {name: _predictions(public, config, frames, steps) for name, config in SIZES.items()}
    presets = {name: _planned(public, name) for name in VJEPA2_AC_PRESETS}
    return {"predictions": rows, "poses": _poses(public), "landscape": _landscape(public), "presets": presets}


@torch.no_grad()
def _predictions(public: PublicCode, config: VJepa2ACConfig, frames: int, steps: int) -> dict[str, float]:
    given = weights(config)
    theirs, ours = public.predictor(config, given), predictor_of(given, config)
    window = inputs(config, problems=2, frames=frames + steps)
    extrinsics = window.extrinsics_BTE[:, :1].expand(-1, frames + steps, -1) if config.extrinsics else None
    seen = None if extrinsics is None else extrinsics[:, :frames]
    z, states, actions = window.z_BTND[:, :frames], window.states_BTP[:, :frames], window.actions_BTA
    one_theirs = theirs(z.flatten(1, 2), actions[:, :frames], states, seen).view(z.shape)
    one_ours = ours(z, actions[:, :frames], states, seen)
    rolled_theirs = public.rolled(theirs, z, states, actions[:, : frames - 1 + steps], extrinsics, steps)
    context = ours.prime(z, states, actions[:, : frames - 1], seen)
    rolled_ours = ours.rollout(context, actions[:, None, frames - 1 : frames - 1 + steps])[:, 0]
    return {
        "parameters": float(sum(tensor.numel() for tensor in given.values())),
        "largest": float(one_theirs.abs().max()),
        "window": _apart(one_ours, one_theirs),
        "rollout": _apart(rolled_ours, rolled_theirs),
    }


def _poses(public: PublicCode, count: int = 1000) -> dict[str, float]:
    scale = torch.tensor([1.0] * 3 + [1.5] * 3 + [0.5])
    states, actions = uniform(count, STATE_DIM, seed=7) * scale, uniform(count, STATE_DIM, seed=8) * scale
    after = public.mpc.compute_new_pose(states[:, None], actions[:, None])[:, 0]
    pairs = [public.mpc.poses_to_diff(a, b).to(torch.float32) for a, b in zip(states[:50], states[50:100], strict=True)]
    return {"after": _apart(pose_after(states, actions), after), "difference": _apart(pose_difference(states[:50], states[50:100]),
                                                                                    torch.stack(pairs))}  # fmt: skip


def _landscape(public: PublicCode) -> dict[str, float]:
    config, given = _SMALL, weights(_SMALL)
    window = inputs(config, problems=1, frames=1)
    theirs, ours = energies(public, public.predictor(config, given), predictor_of(given, config), window)
    actions_SA = grid_1SHA()[0, :, 0]
    return {
        "actions": float(len(theirs)),
        "range": float(theirs.max() - theirs.min()),
        "apart": _apart(ours, theirs),
        "heatmap_apart": float(abs(heatmap(actions_SA, ours) - heatmap(actions_SA, theirs)).max()),
        "same_order": float(torch.equal(ours.argsort(), theirs.argsort())),
    }


def _planned(public: PublicCode, name: str) -> dict[str, Any]:
    """One action of each, for the same noise; the tiny size, whose plans use the gripper, and fewer samples than published."""
    preset = dataclasses.replace(VJEPA2_AC_PRESETS[name], num_samples=min(60, VJEPA2_AC_PRESETS[name].num_samples), num_iterations=4)
    config, given = TINY, weights(TINY)
    window = inputs(config, problems=1, frames=1)
    with recorded(seed=3) as noise:
        theirs = their_action(public.planner(public.predictor(config, given), config, public_arguments(preset)), window)
    ours = our_action(predictor_of(given, config), window, preset, noise)
    return {"theirs": theirs.tolist(), "ours": ours.tolist(), "apart": _apart(ours, theirs)}


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def main(arguments: list[str]) -> int:
    """Reads the request, writes the result beside it."""
    request = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    torch.set_num_threads(int(request["threads"]))
    public = PublicCode(Path(request["checkout"]))
    if request["golden"] is not None:
        from goalward.experiments.bench.vjepa2_ac.golden import write_golden

        write_golden(public, Path(request["golden"]))
    Path(request["result"]).write_text(json.dumps(measure(public)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
