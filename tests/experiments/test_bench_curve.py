"""The picture of success against time, and the other benchmarks' options."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from goalward import UserError
from goalward.experiments.bench.deadline import DeadlineCommand
from goalward.experiments.bench.rank_correlation import RankCommand
from goalward.experiments.bench.success_curve import CurveCommand, drawing


def point(planner: str, ms: float, **more: Any) -> dict[str, Any]:
    return {"planner": planner, "num_samples": 8, "num_iterations": 2, "strict": 0.5, "median_cm": 1.5, "p50_ms": ms} | more


def test_every_point_is_drawn_in_both_panels_and_named() -> None:
    points = [point("cem", 20.0), point("cem", 10.0, strict=1.0), point("adam", 90.0, median_cm=0.2)]
    root = ET.fromstring(drawing(points))
    spots = [c for c in root.iter("{http://www.w3.org/2000/svg}circle") if len(c)]
    assert len(spots) == 2 * len(points)
    assert sum("cem 8 x 2: 100 %, 1.5 cm, 10 ms" in (c[0].text or "") for c in spots) == 2
    texts = {t.text for t in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"cem", "adam", "strict success", "final distance, median", "2 cm", "50 %"} <= texts


def test_better_is_higher_above_and_lower_below() -> None:
    root = ET.fromstring(drawing([point("cem", 10.0, strict=0.2, median_cm=2.0), point("adam", 11.0, strict=0.9, median_cm=0.5)]))
    heights: dict[str, list[float]] = {}
    for circle in root.iter("{http://www.w3.org/2000/svg}circle"):
        if len(circle):
            heights.setdefault((circle[0].text or "").split()[0], []).append(float(circle.attrib["cy"]))
    assert heights["adam"][0] < heights["cem"][0]
    assert heights["adam"][1] > heights["cem"][1]


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        (RankCommand, {"goals": 1}, "goals=1"),
        (RankCommand, {"candidates": 2}, "candidates=2"),
        (RankCommand, {"dynamics": "wrong"}, "learned or true"),
        (CurveCommand, {"episodes": 0}, "episodes"),
        (DeadlineCommand, {"plans": 0}, "plans"),
    ],
)
def test_options_out_of_range_are_named(command: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        command(**options)
