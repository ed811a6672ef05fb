"""The table on the terminal, as it looks."""

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from goalward.experiments.console import decision_lines, detection_lines, print_summary, summary_table
from goalward.experiments.statistics import Rate


def method(name: str, role: str, strict: tuple[float, ...], moderate: tuple[float, ...], **figures: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "name": name, "role": role, "episodes": 50, "failures": 0,
        "strict": dict(zip(("rate", "low", "high"), strict, strict=True)),
        "moderate": dict(zip(("rate", "low", "high"), moderate, strict=True)),
        "final_distance_m": {"median": 0.0184, "p90": 0.0271}, "steps_to_success": {"median": 8.0, "p90": 11.0},
        "plan_ms": {"p50": None, "p95": None, "p99": None},
    }  # fmt: skip
    return base | figures


@pytest.fixture
def results() -> dict[str, Any]:
    plan = {"p50": 92.4, "p95": 110.1, "p99": 131.8}
    nothing = {"median": None, "p90": None}
    return {
        "config": {"episodes": 50, "split": "test", "seed": 0},
        "env": {"version": "Goalward/Reach-v0", "strict_tolerance_m": 0.03, "strict_steps": 3, "moderate_tolerance_m": 0.05},
        "resumed_episodes": 0,
        "methods": [
            method("cem", "planner", (0.96, 0.865, 0.989), (0.98, 0.895, 0.996), plan_ms=plan),
            method("hold", "reference", (0.0, 0.0, 0.071), (0.0, 0.0, 0.071), final_distance_m=nothing, steps_to_success=nothing),
        ],
    }


GOLDEN = """
              strict success     moderate success   final distance   steps to       planning ms
 method    % [95 % interval]    % [95 % interval]   median / p90 cm    success   p50 / p95 / p99
 ────────────────────────────────────────────────────────────────────────────────────────────────
 cem       96.0 [86.5, 98.9]    98.0 [89.5, 99.6]         1.8 / 2.7          8    92 / 110 / 132
 hold         0.0 [0.0, 7.1]       0.0 [0.0, 7.1]             - / -          -                 -
"""


def test_the_table_looks_like_this(results: dict[str, Any]) -> None:
    out = io.StringIO()
    Console(file=out, width=118).print(summary_table(results))
    found = [" ".join(line.split()) for line in out.getvalue().splitlines() if line.strip() and "─" not in line]
    wanted = [" ".join(line.split()) for line in GOLDEN.splitlines() if line.strip() and "─" not in line]
    assert found == wanted
    assert max(map(len, out.getvalue().splitlines())) <= 118


def test_the_summary_explains_itself(results: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    results["methods"][0]["failures"] = 2
    results["resumed_episodes"] = 7
    print_summary(results, Path("reports/x/report.html"))
    said = capsys.readouterr().out
    assert "Goalward/Reach-v0, 50 test goals, seed 0" in said
    assert "strict: within 3 cm at 3 steps running; moderate: within 5 cm at the end" in said
    assert "cem: 2 of 50 episodes broken off as failed" in said
    assert "7 episodes were taken over" in said
    assert "report: reports/x/report.html" in said
    assert "\x1b" not in said, "no colours in a pipe"


def test_an_environment_without_tolerances_is_not_given_any(results: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    results["env"] = {"version": "Test/Other-v0"}
    print_summary(results, Path("r"))
    assert "within" not in capsys.readouterr().out


def rate(successes: int, trials: int) -> dict[str, Any]:
    return asdict(Rate.of([True] * successes + [False] * (trials - successes)))


def test_budget_reuse_and_detection_are_told(results: dict[str, Any]) -> None:
    results["methods"][0]["decisions"] = {
        "planned": 400, "reused": 100, "iterations": {"p5": 2.0, "p50": 3.0, "max": 6.0}, "surprise": {"p50": 1.0, "p99": 7.0},
        "stop_reasons": {"deadline": 390, "iterations": 10}, "surprised": 4,
    }  # fmt: skip
    results["methods"][1]["decisions"] = None
    assert decision_lines(results) == [
        "cem: 3 iterations a plan at the median, 2 at the 5th percentile (deadline 390, iterations 10); "
        "100 of 500 actions from an earlier plan; 4 surprises"
    ]
    results["detection"] = {
        "tolerance_m": 0.03, "frames": {"precision": rate(90, 100), "recall": None},
        "episodes": {"precision": rate(4, 4), "precision_strict": rate(4, 4), "recall": rate(4, 5)},
        "claims": [{"step": 3}] * 4 + [{"step": None}],
    }  # fmt: skip
    (line,) = detection_lines(results)
    assert line == (
        "success seen in latents: frames within 3 cm: precision 90.0 [82.6, 94.5] %, recall -; claimed in 4 of 5 episodes: "
        "true 100.0 [51.0, 100.0] %, of the reached 80.0 [37.6, 96.4] %"
    )


def test_an_ordinary_run_says_no_more_than_its_table(results: dict[str, Any]) -> None:
    results["methods"][0]["decisions"] = {
        "planned": 400, "reused": 0, "iterations": {"p5": 6.0, "p50": 6.0, "max": 6.0}, "surprise": {"p50": 1.0, "p99": 7.0},
        "stop_reasons": {"iterations": 400}, "surprised": 0,
    }  # fmt: skip
    assert decision_lines(results) == []
    assert detection_lines(results) == []
