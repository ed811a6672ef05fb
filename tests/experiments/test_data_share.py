"""Shares of the training episodes: nested, repeatable, of the size that was asked for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from goalward.experiments.data_share import nested_share

fractions = st.floats(0.001, 1.0)
numbers = st.lists(st.integers(0, 10**6), min_size=1, max_size=60, unique=True)


@given(numbers, fractions, fractions)
def test_smaller_shares_lie_inside_larger_ones(episodes: list[int], a: float, b: float) -> None:
    small, large = (nested_share(episodes, fraction) for fraction in sorted((a, b)))
    assert set(small) <= set(large)
    assert large == sorted(set(large))
    assert len(small) >= 1
    assert abs(len(large) - max(a, b) * len(episodes)) < 1.0001


@given(numbers, fractions, st.randoms())
def test_a_share_depends_on_the_episodes_and_not_on_their_order(episodes: list[int], fraction: float, random) -> None:
    shuffled = random.sample(episodes, len(episodes))
    chosen = {episodes[at] for at in nested_share(episodes, fraction)}
    assert {shuffled[at] for at in nested_share(shuffled, fraction)} == chosen


def test_sizes_are_not_off_by_one_for_rounding() -> None:
    assert len(nested_share(range(30), 0.1)) == 3
    assert len(nested_share(range(1080), 0.03)) == 33
    assert nested_share(range(5), 1.0) == [0, 1, 2, 3, 4]
