"""The specification and the episode: what is accepted, and how mistakes are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from goalward import UserError
from goalward.datasets.splits import SPLITS, check_split, split_of
from goalward.datasets.store import Episode, StoreSpec


def test_survives_json(spec: StoreSpec) -> None:
    assert StoreSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"env": ""}, "env"),
        ({"env": "a\nb"}, "env"),
        ({"env_id": "x" * 500}, "env_id"),
        ({"cameras": ()}, "cameras"),
        ({"cameras": ("front", "front")}, "cameras"),
        ({"cameras": tuple(map(str, range(99)))}, "cameras"),
        ({"image_size_px": 0}, "image_size_px"),
        ({"image_size_px": 10**9}, "image_size_px"),
        ({"image_size_px": True}, "image_size_px"),
        ({"image_size_px": 8.0}, "image_size_px"),
        ({"dt_s": float("nan")}, "dt_s"),
        ({"dt_s": 0.0}, "dt_s"),
        ({"action_low": (-1.0,)}, "action_low"),
        ({"action_high": (1.0, float("inf"))}, "action_high"),
        ({"action_low": (1.0, 1.0)}, "action_low"),
        ({"frames_per_chunk": 0}, "frames_per_chunk"),
        ({"proprio_names": ("a", 3)}, "proprio_names"),
        ({"software": [1]}, "software"),
        ({"config": {3: 4}}, "config"),
    ],
)
def test_a_bad_field_is_named(spec: StoreSpec, change: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        replace(spec, **change)


@pytest.mark.parametrize("data", [None, [], {}, {"env": "x"}, "text"])
def test_json_of_another_kind_is_refused(data: Any) -> None:
    with pytest.raises(UserError, match="specification"):
        StoreSpec.from_json(data)


def test_json_with_an_unknown_field_is_refused(spec: StoreSpec) -> None:
    with pytest.raises(UserError, match="surprise"):
        StoreSpec.from_json({**spec.to_json(), "surprise": 1})


def test_differences_name_nested_fields(spec: StoreSpec) -> None:
    other = replace(spec, image_size_px=16, config={"seed": 4, "new": 1}, software={"mujoco": "3.18.0"})
    text = "; ".join(spec.differences(other))
    for part in ("image_size_px: 8 != 16", "config.seed: 3 != 4", "config.new: None != 1", "software.mujoco: '3.17.0' != '3.18.0'"):
        assert part in text
    assert spec.differences(spec) == []


def test_python_and_zarr_versions_do_not_split_a_collection(spec: StoreSpec) -> None:
    other = replace(spec, software={**spec.software, "python": "3.99", "zarr": "9"})
    assert spec.differences(other) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda e: {"pixels": e.pixels.astype(np.float32)}, "pixels"),
        (lambda e: {"pixels": e.pixels[:-1]}, "pixels"),
        (lambda e: {"pixels": e.pixels[:, :1]}, "pixels"),
        (lambda e: {"proprio": e.proprio.astype(np.float64)}, "proprio"),
        (lambda e: {"proprio": e.proprio[:, :2]}, "proprio"),
        (lambda e: {"proprio": np.full_like(e.proprio, np.nan)}, "proprio"),
        (lambda e: {"actions": e.actions[:, :1]}, "actions"),
        (lambda e: {"actions": np.full_like(e.actions, np.inf)}, "actions"),
        (lambda e: {"actions": e.actions[:0], "pixels": e.pixels[:1], "proprio": e.proprio[:1]}, "num_steps"),
        (lambda e: {"seed": -1}, "seed"),
        (lambda e: {"behaviour": "a\tb"}, "behaviour"),
    ],
)
def test_an_episode_that_does_not_fit_is_named(
    spec: StoreSpec, make_episode: Callable[..., Episode], change: Callable[[Episode], dict[str, Any]], named: str
) -> None:
    episode = make_episode(0)
    episode.check(spec)
    with pytest.raises(UserError, match=named):
        replace(episode, **change(episode)).check(spec)


def test_content_hash_sees_every_part(make_episode: Callable[..., Episode]) -> None:
    episode = make_episode(1)
    pixels = episode.pixels.copy()
    pixels[0, 0, 0, 0, 0] ^= 1
    others = [
        replace(episode, pixels=pixels),
        replace(episode, proprio=-episode.proprio),
        replace(episode, actions=-episode.actions),
        replace(episode, seed=2),
        replace(episode, behaviour="idle"),
    ]
    assert len({e.content_sha256() for e in (episode, *others)}) == 6
    strided = replace(episode, pixels=np.asfortranarray(episode.pixels))
    assert strided.content_sha256() == episode.content_sha256()


def test_splits_are_90_5_5_and_present_in_the_smallest_stores() -> None:
    assert {split_of(k) for k in range(3)} == set(SPLITS)
    counts = {split: sum(split_of(k) == split for k in range(1000)) for split in SPLITS}
    assert counts == {"train": 900, "validation": 50, "test": 50}
    with pytest.raises(UserError, match="training"):
        check_split("training")
