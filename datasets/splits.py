"""Which episodes are for training, validation and test: by whole episode, never by frame."""

from __future__ import annotations

from goalward import UserError

SPLITS = ("train", "validation", "test")
_BLOCK = 20


def split_of(index: int) -> str:
    """The split of episode `index`: of every 20 episodes one is for validation and one for test (90/5/5).

    A fixed position is a fair draw, since the episodes of a collection are independent of one another. It beats a random draw in that even
    a store of three episodes has every split, and that the split of an episode never depends on which other episodes exist.
    """
    return {1: "validation", 2: "test"}.get(index % _BLOCK, "train")


def check_split(split: str) -> str:
    """Returns `split` if it is one.

    Raises:
        UserError: unknown split.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    return split
