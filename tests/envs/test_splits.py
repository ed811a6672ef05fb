"""Splits: named, hashed, paired goal by goal; goals of the region are where training never was."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from goalward import UserError
from goalward.envs import splits as module
from goalward.envs.goals import load_manifest
from goalward.envs.registry import ENVS, make_env
from goalward.envs.splits import SPLITS, find_split
from goalward.envs.variation import VARIATIONS

TASKS = sorted(name for name, entry in ENVS.items() if entry.goal_splits)
REGIONS = sorted(name for name in TASKS if "test-region" in ENVS[name].goal_splits)


@pytest.mark.parametrize("task", TASKS)
def test_varied_splits_have_the_plain_goals_and_hashes_of_their_own(task: str) -> None:
    names = [name for name in SPLITS if not name.endswith("region") or task in REGIONS]
    found = {name: find_split(task, name) for name in names}
    assert len({split.sha256 for split in found.values()}) == len(found)
    assert found["test"].sha256 == load_manifest(task, "test").sha256
    for name, split in found.items():
        plain, _, variation = name.partition("-")
        assert split.variation == VARIATIONS[variation or "none"]
        assert split.goals_split == (name if variation == "region" else plain)


def test_a_hash_changes_with_the_variation_and_with_the_goals(monkeypatch: pytest.MonkeyPatch) -> None:
    before = find_split("reach", "test-camera").sha256
    assert find_split("push", "test-camera").sha256 != before
    farther = dataclasses.replace(VARIATIONS["camera"], camera_shift_m=0.05)
    monkeypatch.setitem(module.VARIATIONS, "camera", farther)
    assert find_split("reach", "test-camera").sha256 != before


@pytest.mark.parametrize("task", REGIONS)
@pytest.mark.parametrize("split", ["test-region", "validation-region"])
def test_goals_of_the_region_are_new(task: str, split: str) -> None:
    env = make_env(task, variation="region", image_size_px=32)
    try:
        world = env.unwrapped
        goals = load_manifest(task, split).goals
        assert len(goals) >= 100
        assert all(world._is_new(np.array(goal.goal_position_m)) for goal in goals)
        assert len({goal.goal_position_m for goal in goals}) == len(goals)
        _, info = env.reset(seed=0, options={"goal_index": 7, "split": split})
        assert info["distance_m"] >= world.min_distance_m
    finally:
        env.close()


@pytest.mark.parametrize("task", REGIONS)
def test_the_region_needs_its_environment(task: str) -> None:
    env = make_env(task, image_size_px=32)
    try:
        with pytest.raises(UserError, match="variation='region'"):
            env.reset(seed=0, options={"goal_index": 0, "split": "test-region"})
    finally:
        env.close()


@pytest.mark.parametrize(
    ("given", "said"), [("test-lok", "did you mean test-look"), ("training", "choose one of|did you mean"), ("", "choose")]
)
def test_unknown_names_are_answered(given: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        find_split("reach", given)
