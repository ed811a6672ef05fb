"""Figures are well-formed SVG that stays inside its box and says in text what it shows."""

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goalward.experiments import charts

CLASSES = {"cem": "m-planner", "hold": "m-hold"}


def parsed(svg: str) -> ET.Element:
    element = ET.fromstring(svg)
    width, height = map(float, element.attrib["viewBox"].split()[2:])
    for part in element.iter():
        for name, limit in (
            ("x", width),
            ("x1", width),
            ("x2", width),
            ("cx", width),
            ("y", height),
            ("y1", height),
            ("y2", height),
            ("cy", height),
        ):
            value = part.attrib.get(name)
            if value is not None and part.tag != "text":
                assert math.isfinite(float(value))
                assert -1 <= float(value) <= limit + 1, (part.tag, part.attrib)
    return element


def tips(element: ET.Element) -> str:
    return "\n".join(part.attrib["data-tip"] for part in element.iter() if "data-tip" in part.attrib)


def method(name: str, rate: float) -> dict[str, object]:
    interval = {"rate": rate, "low": max(0.0, rate - 0.1), "high": min(1.0, rate + 0.1)}
    return {"name": name, "strict": interval, "moderate": interval}


def test_interval_bars_show_rate_and_interval() -> None:
    said = tips(parsed(charts.interval_bars([method("cem", 0.955), method("hold", 0.0)], classes=CLASSES)))
    assert "cem: strict 95.5\u202f%, 95 % interval 85.5\u202f% to 100\u202f%" in said
    assert "hold: strict 0\u202f%" in said


def test_success_over_steps_counts_goals_reached_so_far() -> None:
    svg = charts.success_over_steps({"cem": [2, 4, None, 4], "hold": [None] * 4}, max_steps=6, classes=CLASSES, dt_s=0.5)
    lines = tips(parsed(svg)).splitlines()
    assert lines[1] == "within 1 steps (0.5 s): cem 0\u202f%, hold 0\u202f%"
    assert lines[2].startswith("within 2 steps (1.0 s): cem 25\u202f%")
    assert lines[6].startswith("within 6 steps (3.0 s): cem 75\u202f%")


def test_distance_swarm_has_a_dot_per_episode_and_marks_failures() -> None:
    svg = charts.distance_swarm(
        {"cem": [(0.01, "a"), (0.01, "b"), (math.inf, "failed <one>")], "hold": [(0.4, "c")]},
        classes=CLASSES,
        thresholds_m=[(0.03, "3 cm")],
    )
    element = parsed(svg)
    dots = [part for part in element.iter("circle") if part.attrib["class"].startswith("bead")]
    assert len(dots) == 4
    assert sum("failed" in dot.attrib["class"] for dot in dots) == 1
    assert len({(dot.attrib["cx"], dot.attrib["cy"]) for dot in dots}) == 4, "equal distances must not hide one another"
    assert "failed <one>" in tips(element)


def test_distance_swarm_without_any_finite_distance() -> None:
    parsed(charts.distance_swarm({"cem": [(math.inf, "x")]}, classes=CLASSES, thresholds_m=[]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=60))
def test_histogram_counts_everything_once(values: list[float]) -> None:
    element = parsed(charts.histogram(values, unit="ms", marks=[("p50", sorted(values)[len(values) // 2]), ("p99", None)], css="m-planner"))
    assert sum(int(tip.split()[0]) for tip in tips(element).splitlines()) == len(values)


def test_histogram_of_equal_values() -> None:
    parsed(charts.histogram([5.0] * 10, unit="ms", marks=[("p50", 5.0)], css="m-planner"))


def test_one_slow_decision_does_not_squeeze_the_rest() -> None:
    element = parsed(charts.histogram([10.0 + k / 10 for k in range(50)] + [5000.0], unit="ms", marks=[("p50", 12.0)], css="x"))
    bars = [tip for tip in tips(element).splitlines() if "decisions" in tip]
    assert len(bars) > 4
    assert bars[-1].endswith("and more")


def test_scatter_has_a_dot_per_step() -> None:
    element = parsed(charts.energy_scatter([(0.1 * k, k * 1.0, f"step {k}") for k in range(5)], css="m-planner"))
    assert len(list(element.iter("circle"))) == 5


@pytest.mark.parametrize("values", [[0.3, 0.2, 0.1], [0.3, None, 0.1], [None], [0.0, 0.0]])
def test_curve_gives_its_values_to_the_page(values: list[float | None]) -> None:
    element = parsed(charts.curve(values, max_steps=30, name="distance", unit="cm", css="x", thresholds=(3.0,), ghost=(0.3, 0.0)))
    assert len(element.attrib["data-values"].split(",")) == len(values)
    assert element.attrib["data-n"] == "30"


@given(st.floats(1e-9, 1e9), st.integers(1, 50))
def test_nice_steps_are_round_and_few(span: float, wanted: int) -> None:
    step = charts.nice_step(span, wanted)
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 1e-6
    assert span / step <= wanted * 1.01


def test_logarithmic_axis_clips() -> None:
    assert charts.log_share(1e-9, 0.01, 1.0) == 0.0
    assert charts.log_share(0.1, 0.01, 1.0) == pytest.approx(0.5)
    assert charts.log_share(9.0, 0.01, 1.0) == 1.0


def test_markup_in_names_is_escaped() -> None:
    svg = charts.interval_bars([method("<script>", 0.5)], classes={"<script>": "x"})
    assert "<script>" not in svg
    parsed(svg)


def test_percent() -> None:
    assert charts.percent(0.96) == "96\u202f%"
    assert charts.percent(0.9567) == "95.7\u202f%"
    assert charts.percent(1.0) == "100\u202f%"
