"""The public vjepa2 repository, run from a checkout: its predictor with given weights, its planner, its formulas for poses.

It imports `timm` for one function that inference never calls (stochastic depth), and current versions of timm need torchvision, whose
common wheel does not load beside a CPU build of torch. A stand-in that refuses to be called takes its place; all else is theirs, as it is.
"""

from __future__ import annotations

import importlib
import logging
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from goalward import UserError
from goalward.wm.vjepa2_ac.config import VJepa2ACConfig

_PATCH_PX = 16


class PublicCode:
    """What is used of the checkout.

    Args:
        root: Folder of the checkout.

    Raises:
        UserError: It is no such checkout.
    """

    def __init__(self, root: Path) -> None:
        if not (root / "src/models/ac_predictor.py").is_file() or not (root / "notebooks/utils/mpc_utils.py").is_file():
            raise UserError(f"checkout: {root} is no checkout of facebookresearch/vjepa2; git clone it, and give its folder")
        layers = types.ModuleType("timm.models.layers")
        layers.drop_path = _never  # type: ignore[attr-defined]
        sys.modules |= {"timm": types.ModuleType("timm"), "timm.models": types.ModuleType("timm.models"), "timm.models.layers": layers}
        sys.path.insert(0, str(root))
        warnings.filterwarnings("ignore", category=FutureWarning)  # its use of torch.backends.cuda.sdp_kernel
        self._predictors = importlib.import_module("src.models.ac_predictor")
        self.mpc = importlib.import_module("notebooks.utils.mpc_utils")
        self._wrapper = importlib.import_module("notebooks.utils.world_model_wrapper")
        logging.disable(logging.INFO)  # a line per iteration, which would be counted in its time

    def predictor(self, config: VJepa2ACConfig, tensors: dict[str, Tensor], *, max_frames: int = 16) -> Any:
        """Its predictor, with these weights, loaded strictly."""
        predictor = self._predictors.vit_ac_predictor(
            img_size=(config.rows * _PATCH_PX, config.columns * _PATCH_PX), patch_size=_PATCH_PX, num_frames=2 * max_frames, tubelet_size=2,
            embed_dim=config.dim, predictor_embed_dim=config.width, depth=config.depth, num_heads=config.heads,
            use_extrinsics=config.extrinsics,
        )  # fmt: skip
        predictor.load_state_dict(tensors, strict=True)
        return predictor.eval().requires_grad_(False)

    def planner(self, predictor: Any, config: VJepa2ACConfig, arguments: dict[str, Any]) -> Any:
        """Its world model with its planner; `infer_next_action(rep, pose, goal_rep)`."""
        return self._wrapper.WorldModel(None, predictor, config.num_patches, None, mpc_args=arguments, device="cpu")

    @torch.no_grad()
    def rolled(
        self, predictor: Any, z_BTND: Tensor, states_BTP: Tensor, actions_BTA: Tensor, extrinsics_BTE: Tensor | None, steps: int
    ) -> Tensor:
        """Its rollout, step after step over the whole window, z_BHND; written as its notebook does it.

        Args:
            predictor: Its predictor.
            z_BTND: The observed window of T frames.
            states_BTP: Poses in it.
            actions_BTA: Actions of T - 1 + steps frames.
            extrinsics_BTE: As many camera poses, or None.
            steps: H.
        """
        T, N = z_BTND.shape[1:3]
        window, states = z_BTND.flatten(1, 2), states_BTP
        for step in range(steps):
            frames = T + step
            seen = None if extrinsics_BTE is None else extrinsics_BTE[:, :frames]
            z = predictor(window, actions_BTA[:, :frames], states, seen)[:, -N:]
            z = torch.nn.functional.layer_norm(z, (z.shape[-1],))
            window = torch.cat([window, z], dim=1)
            states = torch.cat([states, self.mpc.compute_new_pose(states[:, -1:], actions_BTA[:, frames - 1 : frames])], dim=1)
        return window.unflatten(1, (-1, N))[:, T:]  # type: ignore[no-untyped-call,no-any-return]


def _never(*_: Any, **__: Any) -> None:
    raise UserError("timm: stochastic depth was called at inference; install the checkout's own requirements to go on")
