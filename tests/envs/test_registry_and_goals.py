"""Names, near matches, lazy registration, and manifests that notice damage."""

import json
import subprocess
import sys
from importlib import resources

import pytest

from goalward import UserError
from goalward.envs.behaviours import make_behaviour
from goalward.envs.goals import load_manifest, parse_manifest
from goalward.envs.registry import ENVS, find_env


@pytest.mark.parametrize("name", ["reach", "Goalward/Reach-v0"])
def test_short_name_and_id_find_the_same_entry(name: str) -> None:
    assert find_env(name) == ("reach", ENVS["reach"])


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean reach"):
        find_env("raech")
    with pytest.raises(UserError, match="choose one of reach"):
        find_env("zzz")


def test_importing_envs_registers_them_and_stays_light() -> None:
    code = (
        "import gymnasium as gym, goalward.envs, sys; assert 'Goalward/Reach-v0' in gym.registry; "
        "assert 'mujoco' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_behaviour_lists_the_known() -> None:
    import numpy as np

    with pytest.raises(UserError, match="oracle"):
        make_behaviour(np.random.default_rng(0), "orcale")


def _packaged(split: str) -> str:
    return (resources.files("goalward.envs") / "assets" / f"reach_goals_{split}.json").read_text()


@pytest.mark.parametrize("split", ["test", "validation"])
def test_packaged_manifest_round_trips(split: str) -> None:
    manifest = load_manifest("reach", split)
    assert parse_manifest(manifest.to_json(), source="copy") == manifest
    assert json.loads(_packaged(split))["sha256"] == manifest.sha256


def test_a_changed_number_in_a_manifest_is_noticed() -> None:
    raw = json.loads(_packaged("test"))
    raw["goals"][7]["goal_position_m"][2] += 1e-3
    with pytest.raises(UserError, match="damaged"):
        parse_manifest(json.dumps(raw), source="goals.json")


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"sha256": 1, "goals": [{}]}', "not json"])
def test_anything_else_is_not_a_manifest(text: str) -> None:
    with pytest.raises(UserError, match=r"goals\.json"):
        parse_manifest(text, source="goals.json")


def test_scenes_have_no_goals() -> None:
    with pytest.raises(UserError, match="no test goals"):
        load_manifest("scenes", "test")
