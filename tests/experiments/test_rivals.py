"""`plan-eval --compare`: planners by name and policies by folder, on the same goals and seeds; mistakes are named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from goalward import UserError
from goalward.experiments import plan_eval
from goalward.experiments.evaluation import hold_method, oracle_method
from goalward.experiments.rivals import rival_methods

MODEL = SimpleNamespace(description=SimpleNamespace(encoder=SimpleNamespace(fingerprint="ab" * 32)))


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for a policy's; the policy itself is made up."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "policy.json").write_text("{}")
    made = SimpleNamespace(
        description=MODEL.description, check_env=lambda info: None, adjusted=lambda **_: made, horizon=3, kind="gcbc", options=None
    )
    monkeypatch.setattr("goalward.policies.load_policy", lambda name: made)
    return folder


def test_planners_by_name_policies_by_folder(policy: Path) -> None:
    methods, hashes = rival_methods(["adam", str(policy)], MODEL, None, taken="cem")
    assert [(method.name, method.role) for method in methods] == [("adam", "compared"), ("mine", "imitation")]
    assert set(hashes) == {"compare mine"}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["adm"], "did you mean adam"),
        (["/nowhere/else"], "policies are folders"),
        (["cem"], "two methods are called cem"),
        (["adam", "adam"], "two methods are called adam"),
    ],
)
def test_mistakes_are_named(names: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        rival_methods(names, MODEL, None, taken="cem")


def test_a_policy_of_another_encoder_is_refused(policy: Path) -> None:
    other = SimpleNamespace(description=SimpleNamespace(encoder=SimpleNamespace(fingerprint="00" * 32)))
    with pytest.raises(UserError, match="another encoder"):
        rival_methods([str(policy)], other, None, taken="cem")


def test_they_stand_in_results_and_page(tmp_path: Path, point_env: Any, make_planner: Any) -> None:
    import dataclasses

    env = point_env()
    rival = dataclasses.replace(hold_method(), name="rival <1>", role="compared")
    config = {"env": "reach", "episodes": 3, "seed": 0, "split": "validation", "references": False, "max_cards": 3, "planner": "cem"}
    twin = dataclasses.replace(oracle_method(env), name="twin", role="imitation")
    results = plan_eval.evaluate_methods(env, make_planner(env), others=[rival, twin], config=config, hashes={}, folder=tmp_path)
    assert [m["name"] for m in results["methods"]] == ["cem", "rival <1>", "twin"]
    assert {(p["method"], p["against"]) for p in results["paired"]} == {("cem", "rival <1>"), ("cem", "twin")}
    page = (tmp_path / "report.html").read_text()
    assert "rival &lt;1&gt;" in page
    assert "rival <1>" not in page
