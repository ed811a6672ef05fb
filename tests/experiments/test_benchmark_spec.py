"""Benchmark files: what they say, and that nothing else is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from goalward import UserError
from goalward.experiments.benchmark.cells import cells_of
from goalward.experiments.benchmark.spec import read_spec

BODY: dict[str, Any] = {
    "format": "goalward-benchmark",
    "name": "Small",
    "seed": 3,
    "against": "planner",
    "methods": {
        "planner": {"kind": "planner", "weights": "runs/{env}-{seed}"},
        "gcbc": {"kind": "policy", "weights": "runs/{env}-gcbc-{seed}"},
        "oracle": {"kind": "oracle"},
    },
    "cells": [
        {"envs": ["reach", "push"], "splits": ["test"], "methods": ["oracle", "planner"], "episodes": 4, "training_seeds": [0, 1]},
        {"envs": ["reach"], "splits": ["test", "test-look"], "methods": ["planner", "gcbc"], "episodes": 9},
    ],
}


def written(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(BODY | changes))
    return path


def test_cells_are_counted_once_and_learners_once_a_seed(tmp_path: Path) -> None:
    cells = cells_of(read_spec(written(tmp_path)))
    assert [(cell.title, cell.episodes) for cell in cells] == [
        ("push/test/planner/0", 4),
        ("push/test/planner/1", 4),
        ("push/test/oracle", 4),
        ("reach/test/planner/0", 9),
        ("reach/test/planner/1", 4),
        ("reach/test/gcbc/0", 9),
        ("reach/test/oracle", 4),
        ("reach/test-look/planner/0", 9),
        ("reach/test-look/gcbc/0", 9),
    ]
    assert cells[4].method.weights == "runs/reach-1"
    assert len({cell.folder for cell in cells}) == len(cells)


def test_the_shipped_benchmark_is_sound() -> None:
    import goalward.experiments.benchmark as package

    spec = read_spec(Path(package.__path__[0]) / "shipped.json")
    assert cells_of(spec)


def test_what_decides_outcomes_decides_the_hash(tmp_path: Path) -> None:
    spec = read_spec(written(tmp_path))
    assert spec.sha256 == read_spec(written(tmp_path)).sha256
    assert spec.sha256 != read_spec(written(tmp_path, seed=4)).sha256


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "other"}, "lacks"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": "0"}, "seed must be int"),
        ({"against": "nobody"}, "'nobody' is not among methods: planner, gcbc, oracle"),
        ({"methods": {"a": {"kind": "magic"}}}, "kind is 'magic'; choose one of hold"),
        ({"methods": {"a": {"kind": "planner"}}}, "weights is ''; a planner needs them"),
        ({"methods": {"a": {"kind": "hold", "weights": "x"}}}, "a hold has none"),
        ({"methods": {"a": {"kind": "planner", "weights": "{env.__class__}"}}}, "only {env} and {seed}"),
        ({"methods": {"a": {"kind": "planner", "weights": "{0}"}}}, "only {env} and {seed}"),
        ({"methods": {"a": {"kind": "planner", "weights": "{"}}}, "only {env} and {seed}"),
        ({"methods": {"a": {"kind": "planner", "weights": "{env!r}"}}}, "only {env} and {seed}"),
        ({"methods": {"a": {"kind": "planner", "weights": "x", "objective": "state"}}}, "only true dynamics know the state"),
        ({"methods": {"a": {"kind": "hold", "speed": 3}}}, "methods.a.speed is unknown"),
        ({"methods": {"a": {"kind": "hold", "horizon": 1.5}}}, "horizon must be int"),
        ({"methods": []}, "must not be empty"),
        ({"cells": []}, "must not be empty"),
        ({"cells": [{"envs": [], "splits": ["test"], "methods": ["oracle"], "episodes": 1}]}, "envs is []"),
        ({"cells": [{"envs": ["a", "a"], "splits": ["test"], "methods": ["oracle"], "episodes": 1}]}, "each once"),
        ({"cells": [{"envs": ["a"], "splits": ["test"], "methods": ["oracle"], "episodes": 0}]}, "episodes is 0"),
        ({"cells": [{"envs": ["a"], "splits": ["test"], "methods": ["who"], "episodes": 1}]}, "'who' is not among methods"),
        ({"cells": [{"envs": ["a"], "splits": ["test"], "methods": ["oracle"]}]}, "episodes is missing"),
        ({"colour": "red"}, "colour is unknown"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        read_spec(written(tmp_path, **changes))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text('{"seed": NaN}')
    with pytest.raises(UserError, match="not valid JSON"):
        read_spec(path)
    with pytest.raises(UserError, match="none"):
        read_spec(tmp_path / "none.json")


def test_step_weights_belong_to_the_latent_objective(tmp_path: Path) -> None:
    planner = {"kind": "planner", "weights": "reach", "step_weights": "quartic"}
    changed = BODY["methods"] | {"planner": planner | {"objective": "latent"}}
    assert read_spec(written(tmp_path, methods=changed)).methods["planner"].step_weights == "quartic"
    with pytest.raises(UserError, match="only the objective 'latent' takes it"):
        read_spec(written(tmp_path, methods=BODY["methods"] | {"planner": planner}))
    with pytest.raises(UserError, match="step_weights is 'cubic'; choose one of last"):
        read_spec(written(tmp_path, methods=BODY["methods"] | {"planner": planner | {"objective": "latent", "step_weights": "cubic"}}))


def test_a_closed_loop_is_of_proposals_that_are_named(tmp_path: Path) -> None:
    planner = {"kind": "planner", "weights": "reach", "closed_loop": True}
    named = BODY["methods"] | {"planner": planner | {"proposals": "runs/{env}-inverse"}}
    assert read_spec(written(tmp_path, methods=named)).methods["planner"].closed_loop
    for proposals in ("", "none"):
        with pytest.raises(UserError, match="closed_loop is true"):
            read_spec(written(tmp_path, methods=BODY["methods"] | {"planner": planner | {"proposals": proposals}}))
