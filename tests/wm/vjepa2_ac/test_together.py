"""One published file, as a user meets it: encoder and predictor are converted, loaded, and plan an action from pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from goalward.experiments.bench.vjepa2_ac.synthetic import weights
from goalward.experiments.convert import ConvertCommand, run
from goalward.planners.control.controller import make_controller
from goalward.planners.vjepa2_ac import vjepa2_ac_planning
from goalward.wm.encoders import load_encoder
from goalward.wm.encoders.vjepa2_format import VJepa2Shape
from goalward.wm.vjepa2_ac.config import VJepa2ACConfig
from goalward.wm.vjepa2_ac.folder import convert_predictor, read_predictor
from goalward.wm.vjepa2_ac.model import VJepa2ACModel


def test_a_file_with_encoder_and_predictor_leads_to_an_action(tmp_path: Path) -> None:
    shape = VJepa2Shape(width=48, depth=2, heads=2, hidden=96, patch_px=16, tubelet=2, image_px=64)
    config = VJepa2ACConfig(dim=48, width=96, depth=2, heads=4, hidden=192, rows=4, columns=4)
    generator = torch.Generator().manual_seed(0)
    encoder_tensors = {f"module.backbone.{name}": 0.2 * torch.randn(size, generator=generator) for name, size in shape.tensors().items()}
    predictor_tensors = {f"module.{name}": tensor for name, tensor in weights(config).items()}
    file = tmp_path / "vjepa2-ac-vitg.pt"
    torch.save({"encoder": encoder_tensors, "predictor": predictor_tensors, "epoch": 1}, file)

    run(ConvertCommand(checkpoint=file, out=tmp_path / "encoder", heads=2, image_size_px=64, quiet=True))
    convert_predictor(file, tmp_path / "predictor", heads=4, rows=4, columns=4)
    encoder = load_encoder(f"{tmp_path / 'encoder'}#tokens=all,fit=whole,norm=layer")
    model = VJepa2ACModel(read_predictor(tmp_path / "predictor"), encoder)

    preset = vjepa2_ac_planning("paper")
    frame = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    planner_config: Any = preset.cem_config()
    controller = make_controller(
        model, frame[:, ::-1].copy(), planner="cem", planner_config=planner_config, action_set=preset.action_set(device=model.device),
        objective=preset.objective(), horizon=preset.horizon,
    )  # fmt: skip
    action = controller.act({"pixels": frame, "proprio": np.array([0.45, 0, 0.3, 3.1, 0, 0, 0], np.float32), "time_s": 0.0})
    assert controller.last_hold_reason is None
    assert np.abs(action[:3]).max() <= 0.075 + 1e-6
    assert np.array_equal(action[3:6], np.zeros(3)), "the published planner never turns"
    assert np.abs(action[:3]).max() > 0
