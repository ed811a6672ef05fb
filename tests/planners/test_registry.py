"""Planners by name."""

from __future__ import annotations

import dataclasses

import pytest

from goalward import UserError
from goalward.planners.methods.adam import Adam, AdamConfig
from goalward.planners.methods.cem import CEM, CEMConfig
from goalward.planners.registry import PLANNERS, find_planner, make_planner


@pytest.mark.parametrize("name", sorted(PLANNERS))
def test_every_entry_can_be_made_with_its_defaults(name: str) -> None:
    entry = find_planner(name)
    assert isinstance(make_planner(name), entry.planner)  # type: ignore[arg-type]
    assert isinstance(make_planner(name, entry.config()), entry.planner)  # type: ignore[arg-type]
    assert entry.summary
    with pytest.raises(dataclasses.FrozenInstanceError):
        entry.config().num_iterations = 3


def test_names_lead_to_classes() -> None:
    assert isinstance(make_planner("cem", CEMConfig(num_samples=50)), CEM)
    assert isinstance(make_planner("adam"), Adam)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("cme", "did you mean .*cem"), ("Adam", "did you mean adam"), ("zzz", "choose from random, cem, icem"), ("", "choose")],
)
def test_unknown_names_get_a_hint(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint) as caught:
        make_planner(name)
    assert "\n" not in str(caught.value)


def test_the_configuration_of_another_planner_is_refused() -> None:
    with pytest.raises(UserError, match="AdamConfig does not fit planner 'cem'; give a CEMConfig"):
        make_planner("cem", AdamConfig())
