"""What an evaluation writes can be read again, is never half written, and is refused when it is not what it claims."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from goalward import UserError
from goalward.experiments.results import (
    RESULTS_NAME,
    SCHEMA,
    Decision,
    EpisodeRecord,
    count_decisions,
    finite_json,
    paired_tests,
    read_results,
    schema_problems,
    summarise,
    to_text,
    write_atomically,
)


def record(**changes: Any) -> EpisodeRecord:
    base: dict[str, Any] = {
        "method": "cem", "index": 0, "goal_id": "g0", "seed": 0, "distances_m": (0.3, 0.1, 0.02), "energies": (1.0, 0.4, 0.1),
        "actions": ((0.05, 0.0), (0.0, 0.05)), "plan_ms": (100.0, 50.0), "strict": True, "moderate": True, "steps": 2, "failure": None,
    }  # fmt: skip
    return EpisodeRecord(**(base | changes))


def decision(**changes: Any) -> Decision:
    base: dict[str, Any] = {"stop": "iterations", "iterations": 6, "surprise": None, "surprised": False, "success": None}
    return Decision(**(base | changes))


def results(**changes: Any) -> dict[str, Any]:
    episodes = [record()]
    base = {
        "schema": SCHEMA, "command": "plan-eval", "config": {}, "env": {}, "seeds": {}, "versions": {}, "hashes": {},
        "methods": [summarise("cem", episodes, role="planner")], "episodes": [e.to_json() for e in episodes],
    }  # fmt: skip
    return base | changes


def test_record_survives_json() -> None:
    timed = record(decisions=(decision(), decision(stop="reused", iterations=0, surprise=1.5, success=True)), waits_s=(0.08, 0.1))
    for original in (record(), timed, record(energies=None, plan_ms=(), failure="stuck", strict=False, distances_m=(0.3, None))):
        assert EpisodeRecord.from_json(json.loads(json.dumps(original.to_json()))) == original


@pytest.mark.parametrize("damage", [{"steps": None}, {"distances_m": 3}, {"actions": [1]}])
def test_record_with_wrong_types_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="wrong type"):
        EpisodeRecord.from_json(record().to_json() | damage)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ({"iterations": "6"}, "wrong type: iterations"),
        ({"surprised": None}, "wrong type: surprised"),
        ({"success": 1}, "wrong type: success"),
        ({"extra": 1}, "fields of a decision"),
    ],
)
def test_decisions_are_read_as_strictly(damage: dict[str, Any], complaint: str) -> None:
    raw = record(decisions=(decision(),)).to_json()
    raw["decisions"][0].update(damage)
    with pytest.raises(ValueError, match=complaint):
        EpisodeRecord.from_json(raw)


def test_decisions_are_counted() -> None:
    told = [
        decision(iterations=6), decision(iterations=2, stop="deadline", surprise=1.0), decision(stop="reused", iterations=0, surprise=3.0),
        decision(iterations=3, stop="deadline", surprise=40.0, surprised=True),
    ]  # fmt: skip
    counted = count_decisions(told)
    assert counted is not None
    assert (counted["planned"], counted["reused"], counted["surprised"]) == (3, 1, 1)
    assert counted["stop_reasons"] == {"deadline": 2, "iterations": 1}
    assert counted["iterations"] == {"p5": pytest.approx(2.1), "p50": 3.0, "max": 6.0}
    assert counted["surprise"]["p50"] == 3.0
    assert count_decisions([]) is None
    assert summarise("cem", [record(decisions=tuple(told))], role="planner")["decisions"] == counted
    assert summarise("hold", [record()], role="reference")["decisions"] is None


def test_record_with_other_fields_is_refused() -> None:
    raw = record().to_json()
    with pytest.raises(ValueError, match="extra"):
        EpisodeRecord.from_json(raw | {"extra": 1})
    del raw["seed"]
    with pytest.raises(ValueError, match="seed"):
        EpisodeRecord.from_json(raw)


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, "strict"),
        ({"strict": False}, "moderate"),
        ({"strict": False, "moderate": False}, "missed"),
        ({"failure": "diverged"}, "failed"),
    ],
)
def test_outcome(changes: dict[str, Any], outcome: str) -> None:
    assert record(**changes).outcome == outcome


def test_a_failure_ends_infinitely_far_away_however_close_it_was() -> None:
    assert record(failure="diverged").final_distance_m == math.inf
    assert record(distances_m=(0.1, None)).final_distance_m == math.inf
    assert record().final_distance_m == 0.02


def test_summary_has_exactly_the_promised_figures() -> None:
    episodes = [
        record(index=k, strict=k < 3, moderate=k < 3, distances_m=(0.3, 0.01 * (k + 1)), plan_ms=(10.0 * (k + 1),)) for k in range(4)
    ]
    summary = summarise("cem", episodes, role="planner")
    assert summary["name"] == "cem"
    assert summary["strict"]["rate"] == 0.75
    assert {"rate", "low", "high"} <= set(summary["strict"])
    assert summary["plan_ms"]["p50"] == 25.0
    assert {"p50", "p95", "p99"} <= set(summary["plan_ms"])
    assert summary["final_distance_m"] == {"median": pytest.approx(0.025), "p90": pytest.approx(0.037)}
    assert summary["steps_to_success"]["median"] == 2
    assert not schema_problems(results(methods=[summary]))


def test_summary_of_a_method_that_neither_plans_nor_succeeds_has_nulls_not_nans() -> None:
    episodes = [record(method="hold", plan_ms=(), strict=False, moderate=False, failure="broke")]
    summary = summarise("hold", episodes, role="reference")
    assert summary["plan_ms"] == {"p50": None, "p95": None, "p99": None, "calls": 0}
    assert summary["final_distance_m"] == {"median": None, "p90": None}
    assert summary["steps_to_success"]["median"] is None
    assert summary["failures"] == 1
    json.dumps(summary, allow_nan=False)
    assert not schema_problems(results(methods=[summary]))


def test_paired_tests_compare_the_planner_with_every_reference() -> None:
    good, bad = [record(index=k) for k in range(6)], [record(index=k, strict=False) for k in range(6)]
    (row,) = paired_tests({"cem": good, "hold": bad}, planner="cem")
    assert (row["against"], row["wins"], row["losses"]) == ("hold", 6, 0)
    assert row["p_value"] == pytest.approx(2 / 64)


def test_finite_json_replaces_what_json_has_not() -> None:
    assert finite_json({"a": (1, math.nan, [math.inf, "x"]), "b": None}) == {"a": [1, None, [None, "x"]], "b": None}


def test_text_is_json_with_one_episode_a_line() -> None:
    text = to_text(results(episodes=[record(index=k).to_json() for k in range(3)]))
    assert len(json.loads(text)["episodes"]) == 3
    assert sum('"goal_id"' in line for line in text.splitlines()) == 3


def test_reading_back(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep" / RESULTS_NAME, to_text(results()))
    assert read_results(tmp_path / "deep")["methods"][0]["name"] == "cem"
    assert read_results(tmp_path / "deep" / RESULTS_NAME)["schema"] == SCHEMA


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ('{"schema": 99}', "schema is 99"),
        ('{"schema": 1}', "schema is 1, not 2"),
        ('{"schema": 2}', "methods is missing"),
    ],
)
def test_damaged_results_are_refused_in_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / RESULTS_NAME).write_text(text)
    with pytest.raises(UserError, match=complaint) as caught:
        read_results(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_results_are_a_mistake_with_a_fix(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="plan-eval"):
        read_results(tmp_path / "nowhere.json")


def test_schema_names_every_problem() -> None:
    broken = summarise("cem", [record()], role="planner")
    broken["strict"] = {"rate": None, "low": 0.1}
    broken["plan_ms"]["p95"] = "fast"
    problems = schema_problems(results(methods=[broken, {"no": "name"}], episodes=[{"index": 1}]))
    text = "; ".join(problems)
    for part in ("strict.rate", "strict.high", "plan_ms.p95", "methods[1].name", "episodes[0]"):
        assert part in text


def test_a_full_disk_leaves_the_previous_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / RESULTS_NAME
    write_atomically(path, "old")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new" * 1000)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == [RESULTS_NAME]


def test_every_field_of_a_record_is_documented() -> None:
    source = Path(__import__("goalward.experiments.results", fromlist=["x"]).__file__).read_text()
    for field in dataclasses.fields(EpisodeRecord):
        after = source.split(f"    {field.name}: ", 1)[1].splitlines()[1]
        assert after.strip().startswith('"""'), field.name
