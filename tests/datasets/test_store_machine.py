"""A state machine: any sequence of adding, aborting, crashing, reopening and reading agrees with a dictionary."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from goalward import UserError
from goalward.datasets import durable, writer
from goalward.datasets.splits import split_of
from goalward.datasets.store import Episode, EpisodeWriter, StoreSpec, open_store

SPEC = StoreSpec(
    env="tiny", env_id="Goalward/Tiny-v0", cameras=("front",), image_size_px=2, dt_s=0.2, action_names=("dx_m",), action_low=(-1.0,),
    action_high=(1.0,), proprio_names=("x_m",), frames_per_chunk=3,
)  # fmt: skip


def _episode(seed: int, steps: int) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode(
        pixels=rng.integers(0, 255, (steps + 1, 1, 2, 2, 3), dtype=np.uint8),
        proprio=rng.normal(size=(steps + 1, 1)).astype(np.float32),
        actions=rng.uniform(-1, 1, (steps, 1)).astype(np.float32),
        seed=seed,
        behaviour="explore",
    )


class _Crash(BaseException):
    """The process ends here; nothing in the writer handles this."""


class StoreMachine(RuleBasedStateMachine):
    numbers = Bundle("numbers")

    def __init__(self) -> None:
        super().__init__()
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(writer, "SEGMENT_EPISODES", 3)
        self._patch.setattr("os.fsync", lambda fd: None)
        self._folder = Path(tempfile.mkdtemp())
        self._path = self._folder / "s"
        self._model: dict[int, Episode] = {}
        self._writer: EpisodeWriter | None = None

    @initialize()
    def make(self) -> None:
        self._writer = EpisodeWriter(self._path, SPEC)

    def _open_writer(self) -> EpisodeWriter:
        if self._writer is None:
            self._writer = EpisodeWriter(self._path, SPEC)
        assert self._writer.ids == set(self._model)
        try:  # a fault at a commit closes a writer
            self._writer.append(_episode(0, 1), index=-1)
        except UserError as error:
            if "closed" in str(error):
                self._writer.close()
                self._writer = EpisodeWriter(self._path, SPEC)
        return self._writer

    @rule(target=numbers, seed=st.integers(0, 99), steps=st.integers(1, 7), gap=st.integers(0, 3))
    def add(self, seed: int, steps: int, gap: int) -> int:
        number = max(self._model, default=-1) + 1 + gap
        episode = _episode(seed, steps)
        assert self._open_writer().append(episode, index=number) == number
        self._model[number] = episode
        return number

    @rule(number=numbers)
    def add_again(self, number: int) -> None:
        with pytest.raises(UserError, match="already"):
            self._open_writer().append(_episode(0, 1), index=number)

    @rule(name=st.sampled_from(["write_unflushed", "rename", "make_folders", "flush_all"]), operation=st.integers(0, 8))
    def abort(self, name: str, operation: int) -> None:
        """The disk is full while an episode is added; the writer may or may not stay open, the store must be whole."""
        self._add_with_fault(name, operation, OSError(28, "No space left on device"), UserError)

    @rule(name=st.sampled_from(["write_unflushed", "rename", "make_folders", "flush_all"]), operation=st.integers(0, 8))
    def crash(self, name: str, operation: int) -> None:
        """The process dies while an episode is added: nothing is tidied up, and the system releases its lock."""
        self._add_with_fault(name, operation, _Crash(), _Crash)
        assert self._writer is not None
        self._writer.close()
        self._writer = None

    def _add_with_fault(self, name: str, operation: int, error: BaseException, expected: type[BaseException]) -> None:
        active = self._open_writer()
        original, calls = getattr(durable, name), 0

        def faulty(*arguments: object) -> None:
            nonlocal calls
            calls += 1
            if calls == operation + 1:
                raise error
            original(*arguments)

        number, episode = max(self._model, default=-1) + 1, _episode(5, 2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(durable, name, faulty)
            try:
                active.append(episode, index=number)
                self._model[number] = episode  # the fault lay beyond the last operation
            except expected:
                assert number not in open_store(self._path).entries  # none of these faults lies behind the rename of the manifest

    @rule()
    def reopen(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._open_writer()

    @rule(number=numbers, data=st.data())
    def clip(self, number: int, data: st.DataObject) -> None:
        expected = self._model[number]
        frames = len(expected.pixels)
        start = data.draw(st.integers(0, frames - 1))
        length = data.draw(st.integers(1, frames - start))
        clip = open_store(self._path).clip(number, start, length)
        np.testing.assert_array_equal(clip["pixels"], expected.pixels[start : start + length])
        np.testing.assert_array_equal(clip["actions"], expected.actions[start : start + length - 1])

    @invariant()
    def agrees(self) -> None:
        if not self._path.exists():
            return
        store = open_store(self._path)
        assert store.indices() == tuple(sorted(self._model))
        assert store.indices("train") == tuple(k for k in sorted(self._model) if split_of(k) == "train")
        for number, episode in store.iter_episodes():
            np.testing.assert_array_equal(episode.pixels, self._model[number].pixels)
            np.testing.assert_array_equal(episode.proprio, self._model[number].proprio)
            np.testing.assert_array_equal(episode.actions, self._model[number].actions)

    def teardown(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._patch.undo()
        shutil.rmtree(self._folder)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=20, stateful_step_count=12, deadline=None)
