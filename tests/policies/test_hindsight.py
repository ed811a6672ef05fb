"""Hindsight goals: always later in the same episode, as far ahead as the rule says, and past the goal there is nothing to imitate."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from goalward import UserError
from goalward.policies.hindsight import RULES, HindsightConfig, draw_goals, gather, starts
from goalward.wm.latents import LatentEpisodes


def numbered(lengths: list[int]) -> LatentEpisodes:
    """Episodes whose latents and actions are the number of their frame."""
    total = sum(lengths)
    first = torch.tensor([0, *lengths]).cumsum(0)
    number = torch.arange(total, dtype=torch.float32)
    actions = number[:, None].clone()
    actions[first[1:] - 1] = 0.0
    return LatentEpisodes(z_FND=number[:, None, None], actions_FA=actions, proprio_FP=-number[:, None], first=first)


lengths = st.lists(st.integers(1, 9), min_size=1, max_size=6).filter(lambda found: max(found) > 1)
configs = st.builds(HindsightConfig, rule=st.sampled_from(RULES), max_steps=st.integers(1, 12), discount=st.floats(0.01, 0.999))


@settings(max_examples=150, deadline=None)
@given(lengths=lengths, config=configs, seed=st.integers(0, 1000))
def test_a_goal_lies_in_the_future_of_its_own_episode(lengths: list[int], config: HindsightConfig, seed: int) -> None:
    episodes = numbered(lengths)
    frames = starts(episodes).repeat(5)
    goals = draw_goals(episodes, frames, config, torch.Generator().manual_seed(seed))
    episode_of = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    assert goals.dtype == torch.int64
    assert (goals > frames).all()
    assert torch.equal(episode_of[goals], episode_of[frames])
    if config.rule == "within":
        assert (goals - frames <= config.max_steps).all()


def test_every_frame_but_the_last_of_an_episode_is_a_start() -> None:
    assert starts(numbered([3, 1, 2])).tolist() == [0, 1, 4]


def shares(config: HindsightConfig, frames_left: int, draws: int = 40_000) -> list[float]:
    episodes = numbered([frames_left + 1])
    goals = draw_goals(episodes, torch.zeros(draws, dtype=torch.int64), config, torch.Generator().manual_seed(0))
    return (torch.bincount(goals, minlength=frames_left + 1)[1:] / draws).tolist()


def test_uniform_draws_every_later_frame_equally_often() -> None:
    assert shares(HindsightConfig(rule="uniform", max_steps=2), 8) == pytest.approx([1 / 8] * 8, abs=0.01)


def test_within_draws_the_near_ones_equally_often_and_no_other() -> None:
    assert shares(HindsightConfig(rule="within", max_steps=3), 8) == pytest.approx([1 / 3] * 3 + [0.0] * 5, abs=0.01)


def test_geometric_falls_by_the_discount_and_puts_the_rest_at_the_end() -> None:
    expected = [0.4 * 0.6**k for k in range(4)] + [0.6**4]
    assert shares(HindsightConfig(rule="geometric", discount=0.6), 5) == pytest.approx(expected, abs=0.01)


def test_draws_follow_the_generator() -> None:
    episodes = numbered([9, 9])
    drawn = [draw_goals(episodes, starts(episodes), HindsightConfig(), torch.Generator().manual_seed(seed)).tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@settings(max_examples=60, deadline=None)
@given(lengths=lengths, horizon=st.integers(1, 5), context=st.integers(1, 3), seed=st.integers(0, 99))
def test_a_batch_holds_what_was_done_until_the_goal_and_then_holds_still(lengths: list[int], horizon: int, context: int, seed: int) -> None:
    episodes = numbered(lengths)
    frames = starts(episodes)
    goals = draw_goals(episodes, frames, HindsightConfig(), torch.Generator().manual_seed(seed))
    hold = torch.tensor([-7.0])
    batch = gather(episodes, frames, goals, context=context, horizon=horizon, hold_A=hold, proprio_FP=episodes.proprio_FP)
    assert torch.equal(batch.z_goal_CND[:, 0, 0], goals.float())
    assert torch.equal(batch.steps_C, goals - frames)
    assert torch.equal(batch.z_CTND[:, -1, 0, 0], frames.float())
    assert torch.equal(batch.proprio_CP[:, 0], -frames.float())
    for row, (frame, goal) in enumerate(zip(frames.tolist(), goals.tolist(), strict=True)):
        expected = [float(t) if t < goal else -7.0 for t in range(frame, frame + horizon)]
        assert batch.actions_CHA[row, :, 0].tolist() == expected
        assert batch.actions_CHA[row, 0, 0] == frame, "the first action always lies before the goal"


@pytest.mark.parametrize(
    ("change", "said"),
    [({"rule": "future"}, "rule is 'future'"), ({"max_steps": 0}, "max_steps is 0"), ({"discount": 1.0}, "discount is 1.0")],
)
def test_bad_options_are_named(change: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        HindsightConfig(**change)
