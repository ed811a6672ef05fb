"""The time a benchmark states is that of all its runs, interrupted ones too."""

from __future__ import annotations

import json

import pytest

from goalward.experiments.benchmark.time_spent import NAME, clocked, process_hours


def test_runs_add_up_also_interrupted_ones(tmp_path, monkeypatch):
    now = iter([0.0, 3600.0, 10_000.0, 11_800.0])
    monkeypatch.setattr("goalward.experiments.benchmark.time_spent.time.monotonic", lambda: next(now))
    assert process_hours(tmp_path) == 0
    with clocked(tmp_path, workers=2):
        pass
    with pytest.raises(KeyboardInterrupt), clocked(tmp_path, workers=0):
        raise KeyboardInterrupt
    assert process_hours(tmp_path) == pytest.approx(2 * 1.0 + 0.5)


@pytest.mark.parametrize("junk", ["{", "[]", "null", '{"hours": -1, "workers": 1}', '{"hours": NaN, "workers": 1}', '{"hours": 1}', "\x00"])
def test_a_torn_line_costs_only_itself(tmp_path, junk):
    (tmp_path / NAME).write_text(json.dumps({"hours": 1.5, "workers": 2}) + "\n" + junk)
    with clocked(tmp_path, workers=1):
        pass
    assert process_hours(tmp_path) == pytest.approx(3.0, abs=1e-3)
