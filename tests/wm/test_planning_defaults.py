"""`planning.json`: read strictly, and fit for the planners."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import goalward.wm
from goalward import UserError
from goalward.wm.model import shipped_models
from goalward.wm.planning_defaults import FORMAT, PLANNING_JSON, read_planning

GOOD: dict[str, Any] = {
    "format": FORMAT, "planner": "cem", "settings": {"num_samples": 8, "init_std": 0.5, "return_mean": True}, "horizon": 4,
    "step_weights": "last", "chosen_on": "a test",
}  # fmt: skip


def written(folder: Path, content: Any) -> Path:
    (folder / PLANNING_JSON).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_what_is_written_is_read(tmp_path: Path) -> None:
    found = read_planning(written(tmp_path, GOOD))
    assert found is not None
    assert (found.planner, found.horizon, found.step_weights) == ("cem", 4, "last")
    assert found.settings == GOOD["settings"]


def test_no_file_is_no_advice(tmp_path: Path) -> None:
    assert read_planning(tmp_path) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "x"}, {"planner": 3}, {"settings": []}, {"settings": {"num_samples": "8"}}, {"settings": {"num_samples": [8]}},
        {"settings": {"num_samples": None}}, {"horizon": 0}, {"horizon": 2.5}, {"horizon": True}, {"step_weights": "first"},
        {"chosen_on": None}, {"surprise": 1},
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_one_line(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=PLANNING_JSON) as caught:
        read_planning(written(tmp_path, GOOD | changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": NaN}', "[" * 5000])
def test_what_is_not_json_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=PLANNING_JSON):
        read_planning(written(tmp_path, text))


@pytest.mark.parametrize("name", shipped_models())
def test_shipped_advice_makes_a_planner(name: str) -> None:
    from goalward.planners.control.advice import advised_planner
    from goalward.planners.registry import make_planner

    found = read_planning(Path(goalward.wm.__path__[0]) / "weights" / name)
    assert found is not None
    make_planner(*advised_planner(found))
