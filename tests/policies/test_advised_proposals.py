"""What a model advises is what is planned with: proposals beside the model are found, and can be left out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import goalward
from goalward import UserError
from goalward.policies import proposals
from goalward.wm.planning_defaults import PlanningDefaults, read_planning

BODY = '"format": "goalward-planning", "planner": "cem", "settings": {}, "horizon": 3, "step_weights": "uniform", "chosen_on": "a test"'


def advice(**changes: Any) -> PlanningDefaults:
    values: dict[str, Any] = {"planner": "cem", "settings": {}, "horizon": 3, "step_weights": "uniform", "chosen_on": "a test"}
    return PlanningDefaults(**(values | {"proposals": "", "num_proposals": 4, "closed_loop": False} | changes))


def test_a_model_need_not_advise_any(tmp_path: Path) -> None:
    (tmp_path / "planning.json").write_text("{" + BODY + "}")
    assert read_planning(tmp_path) == advice()
    for model in (SimpleNamespace(), SimpleNamespace(planning=None), SimpleNamespace(planning=advice())):
        assert proposals.advised_proposer(model) is None


def test_a_folder_beside_the_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planning.json").write_text("{" + BODY + ', "proposals": "policy", "num_proposals": 7, "closed_loop": true}')
    asked: list[Any] = []
    monkeypatch.setattr(proposals, "load_policy", lambda folder, device, encoder: asked.append((folder, encoder)) or "policy")
    monkeypatch.setattr(proposals, "policy_proposer", lambda policy, model, **options: (policy, options))
    model = SimpleNamespace(planning=read_planning(tmp_path), folder=tmp_path, device=torch.device("cpu"), encoder="shared")
    assert proposals.advised_proposer(model) == ("policy", {"num_samples": 7, "closed_loop": True})
    assert asked == [(tmp_path / "policy", "shared")]


@pytest.mark.parametrize("name", ["../other", "a/b", "..", "a\\b"])
def test_proposals_never_lead_out_of_the_models_folder(name: str) -> None:
    with pytest.raises(UserError, match="name of a folder beside"):
        advice(proposals=name)


def test_controllers_take_the_advice_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(proposals, "advised_proposer", lambda model: "advised")
    make = "goalward.planners.control.controller.make_controller"
    monkeypatch.setattr(make, lambda model, goal, **options: made.append(options["proposer"]))
    goalward.make_controller(None, None)
    goalward.make_controller(None, None, proposer=None)
    assert made == ["advised", None]


def test_a_closed_loop_needs_a_policy() -> None:
    with pytest.raises(UserError, match="closed_loop is true"):
        advice(closed_loop=True)
