"""A real planner on a world whose model is known: colours are positions, actions add to them."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from goalward import UserError
from goalward.envs.base import EnvInfo
from goalward.experiments.evaluation import run_episode
from goalward.experiments.plan_eval import evaluate_methods
from goalward.experiments.planning import latent_energies, model_hashes, planner_config, planner_method


class ColourModel:
    """Latent: the colour of the first view, which is the position; one token of width 3."""

    cameras, image_size_px, context_frames, dt_s = ("top", "side"), 16, 2, 0.25
    action_names, proprio_names = ("dx_m", "dy_m", "dz_m"), ("ee_x_m", "ee_y_m", "ee_z_m")
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.action_low, self.action_high = torch.full((3,), -0.05), torch.full((3,), 0.05)
        self.broken = False
        self.encoded = 0

    def encode(self, pixels: Tensor) -> Tensor:
        self.encoded += len(pixels)
        return pixels[:, 0].float().mean(dim=(1, 2))[:, None] / 255

    def prime(self, z_BTND: Tensor) -> Tensor:
        return z_BTND[:, -1]

    def rollout(self, context: Tensor, actions_BSHA: Tensor) -> Tensor:
        z_BSHND = (context[:, :, None] + actions_BSHA.cumsum(2))[:, :, :, None]
        return z_BSHND * torch.nan if self.broken else z_BSHND


@pytest.fixture
def colour_env(point_env: Any) -> Any:
    """The point in three dimensions, seen as a colour."""

    class ColourEnv(point_env):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            limit = np.full(3, 0.05, dtype=np.float32)
            self.spec_info = EnvInfo(
                name="colour", version="Test/Colour-v0", cameras=("top", "side"), image_size_px=16, dt_s=0.25,
                action_names=ColourModel.action_names, action_low=-limit, action_high=limit, proprio_names=ColourModel.proprio_names,
                workspace_low_m=np.zeros(3, np.float32), workspace_high_m=np.ones(3, np.float32), max_episode_steps=12,
            )  # fmt: skip

        def places(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            return np.array([0.2, 0.3, 0.4]), np.array([0.35, 0.2, 0.4 + 0.02 * index])

        def _draw(self, place: np.ndarray) -> np.ndarray:
            return np.broadcast_to(np.round(place * 255).astype(np.uint8), (2, 16, 16, 3)).copy()

    return ColourEnv()


@pytest.mark.parametrize("planner", ["cem", "adam"])
def test_planners_reach_goals_from_pixels(colour_env: Any, planner: str) -> None:
    model = ColourModel()
    method = planner_method(model, planner, planner_config(planner, num_samples=32, num_iterations=15), horizon=1)
    episode = run_episode(colour_env, method, index=1, seed=3, split="test")
    assert episode.outcome == "strict"
    assert episode.energies is not None
    assert episode.energies[-1] is not None
    assert episode.energies[0] is not None
    assert episode.energies[-1] < 0.1 * episode.energies[0]
    assert len(episode.plan_ms) == episode.steps
    assert min(episode.plan_ms) > 0
    assert np.abs(np.array(episode.actions, dtype=float)).max() <= 0.05 + 1e-6


def test_planning_depends_on_nothing_but_seed_and_goal(colour_env: Any) -> None:
    method = planner_method(ColourModel(), "cem", planner_config("cem", num_samples=16, num_iterations=2))
    first = run_episode(colour_env, method, index=2, seed=3, split="test", warm_up=True)
    run_episode(colour_env, method, index=4, seed=8, split="test")
    again = run_episode(colour_env, method, index=2, seed=3, split="test")
    assert again.actions == first.actions
    assert run_episode(colour_env, method, index=2, seed=4, split="test").actions != first.actions


def test_a_model_that_answers_nan_fails_the_episode_with_the_reason(colour_env: Any) -> None:
    model = ColourModel()
    model.broken = True
    method = planner_method(model, "cem", planner_config("cem", num_samples=8, num_iterations=1))
    episode = run_episode(colour_env, method, index=0, seed=0, split="test", warm_up=True)
    assert (episode.outcome, episode.steps) == ("failed", 0)
    assert episode.failure is not None
    assert "finite" in episode.failure


CALIBRATION = SimpleNamespace(typical_error_H=(1e-5,) * 3, surprise_limit_H=(20.0,) * 3, success_energy=3e-4, success_steps=3)


def test_every_decision_tells_how_it_came_about(colour_env: Any) -> None:
    model = ColourModel()
    model.calibration = CALIBRATION  # type: ignore[attr-defined]
    settings = planner_config("cem", num_samples=16, num_iterations=4)
    method = planner_method(model, "cem", settings, execute_steps=2)
    record = run_episode(colour_env, method, index=1, seed=3, split="test")
    assert len(record.decisions) == record.steps
    assert [d.stop for d in record.decisions[:3]] == ["iterations", "reused", "iterations"]
    assert [d.iterations for d in record.decisions[:3]] == [4, 0, 4]
    assert record.decisions[0].surprise is None
    assert all(d.surprise is not None and not d.surprised for d in record.decisions[1:])
    # What the controller said live is what its energies say afterwards.
    assert method.detector is not None
    assert record.energies is not None
    near = [e is not None and e <= method.detector.energy for e in record.energies]
    assert [d.success for d in record.decisions] == [all(near[max(0, k - 2) : k + 1]) and k >= 2 for k in range(record.steps)]


def test_a_short_budget_stops_by_the_deadline(colour_env: Any) -> None:
    method = planner_method(ColourModel(), "cem", planner_config("cem", num_samples=64, num_iterations=500), budget_ms=5.0)
    record = run_episode(colour_env, method, index=1, seed=3, split="test")
    assert {d.stop for d in record.decisions} == {"deadline"}
    assert all(1 <= d.iterations < 500 for d in record.decisions)
    assert method.detector is None
    assert {(d.surprise, d.success) for d in record.decisions} == {(None, None)}


def test_the_report_says_whether_the_controller_knew(colour_env: Any, eval_config: Any, tmp_path: Path) -> None:
    model = ColourModel()
    model.calibration = CALIBRATION  # type: ignore[attr-defined]
    method = planner_method(model, "cem", planner_config("cem", num_samples=32, num_iterations=8), execute_steps=2)
    config = eval_config(episodes=3, references=False, max_cards=3)
    found = evaluate_methods(colour_env, method, config=config, hashes={}, folder=tmp_path)
    detection = found["detection"]
    assert [claim["index"] for claim in detection["claims"]] == [0, 1, 2]
    assert detection["frames"]["recall"]["trials"] == sum((d or 1) <= 0.03 for e in found["episodes"] for d in e["distances_m"])
    assert found["methods"][0]["decisions"]["reused"] > 0
    page = (tmp_path / "report.html").read_text()
    assert "of actions from an earlier plan" in page
    assert ("claims of success, by latents alone, were true" in page) == (detection["episodes"]["precision"] is not None)


def test_energy_is_the_distance_planners_minimise() -> None:
    goal = np.full((2, 16, 16, 3), 100, dtype=np.uint8)
    frames = np.stack([goal, goal + 51])
    assert latent_energies(ColourModel(), frames, goal) == pytest.approx([0.0, 0.2**2])


@pytest.mark.parametrize(
    ("planner", "given", "expected"),
    [
        ("cem", {"num_samples": 64, "num_iterations": 3}, {"num_samples": 64, "num_iterations": 3}),
        ("cem", {"num_samples": 8, "num_iterations": None}, {"num_samples": 8, "num_elites": 2}),
        ("cem", {"num_samples": 1, "num_iterations": 1}, {"num_samples": 1, "num_elites": 1}),
        ("adam", {"num_samples": 5, "num_iterations": 7}, {"num_starts": 5, "num_iterations": 7}),
    ],
)
def test_budget_overrides_the_planner_s_defaults(planner: str, given: dict[str, int | None], expected: dict[str, int]) -> None:
    config = planner_config(planner, num_samples=given["num_samples"], num_iterations=given["num_iterations"])
    assert {name: getattr(config, name) for name in expected} == expected


def test_without_a_budget_the_defaults_stand() -> None:
    from goalward.planners.methods.cem import CEMConfig

    assert planner_config("cem", num_samples=None, num_iterations=None) == CEMConfig()


def test_an_unknown_planner_is_named_with_near_matches() -> None:
    with pytest.raises(UserError, match="cem"):
        planner_config("cm", num_samples=None, num_iterations=None)


def test_hashes_pin_the_model_its_encoder_and_its_data(tmp_path: Path) -> None:
    text = json.dumps({"tensors_sha256": "00"})
    (tmp_path / "model.json").write_text(text)
    model = SimpleNamespace(description=SimpleNamespace(encoder=SimpleNamespace(fingerprint="e" * 64), data_hash="d" * 64))
    expected = {"model": hashlib.sha256(text.encode()).hexdigest(), "encoder": "e" * 64, "data": "d" * 64}
    assert model_hashes(str(tmp_path), model) == expected
    (tmp_path / "calibration.json").write_text("{}")
    assert model_hashes(str(tmp_path), model) == expected | {"calibration": hashlib.sha256(b"{}").hexdigest()}
