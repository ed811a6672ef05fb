"""A share of the training episodes, for curves of success against the amount of data; smaller shares lie inside larger ones."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from goalward import UserError

if TYPE_CHECKING:
    from goalward.datasets.store import EpisodeStore


def check_fraction(fraction: float) -> None:
    """Refuses what is no share.

    Raises:
        UserError: It is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"fraction is {fraction}; must be above 0 and at most 1")


def nested_share(episodes: Sequence[int], fraction: float) -> list[int]:
    """Positions in `episodes`, ascending, of a share of them: at least one, rounded up.

    Episodes are ranked by a hash of their number, so the choice is as good as random, the same in every run, and every share contains all
    smaller ones.

    Args:
        episodes: Numbers of episodes.
        fraction: Share, above 0 and at most 1.
    """
    check_fraction(fraction)
    ranked = sorted(range(len(episodes)), key=lambda at: hashlib.sha256(f"goalward share {episodes[at]}".encode()).digest())
    # Not one episode more because 0.1 * 30 is a little above 3.
    return sorted(ranked[: math.ceil(fraction * len(episodes) - 1e-9)])


def share_hash(store: EpisodeStore, episodes: Sequence[int]) -> str:
    """SHA-256 over the contents of some episodes, in the order given."""
    return hashlib.sha256("\n".join(store.entries[index].content_sha256 for index in episodes).encode()).hexdigest()
