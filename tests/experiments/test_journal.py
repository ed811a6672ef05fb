"""A journal loses at most the episode in hand, whatever happens to the process or the file."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goalward import UserError
from goalward.experiments.journal import Journal, config_key
from goalward.experiments.results import EpisodeRecord


def record(index: int, method: str = "cem") -> EpisodeRecord:
    return EpisodeRecord(
        method=method, index=index, goal_id=f"g{index}", seed=index, distances_m=(0.3, 0.2), energies=None, actions=((0.0,),), plan_ms=(),
        strict=False, moderate=False, steps=1, failure=None,
    )  # fmt: skip


def filled(folder: Path, count: int) -> Path:
    with Journal(folder, "k" * 64) as journal:
        for index in range(count):
            journal.append(record(index))
    return journal.path


def test_what_was_appended_is_there_next_time(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    with Journal(tmp_path, "k" * 64) as journal:
        assert journal.num_resumed == 3
        assert journal.records["cem", 1] == record(1)
        journal.append(record(3))
    with Journal(tmp_path, "k" * 64) as journal:
        assert journal.num_resumed == 4


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cut=st.integers(0, 10_000))
def test_a_file_torn_anywhere_keeps_every_whole_line(tmp_path: Path, cut: int) -> None:
    path = tmp_path / f".episodes-{'k' * 16}.jsonl"
    path.unlink(missing_ok=True)
    filled(tmp_path, 4)
    content = path.read_bytes()
    cut %= len(content) + 1
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    with Journal(tmp_path, "k" * 64) as journal:
        assert journal.num_resumed == whole
        journal.append(record(9))
    assert [json.loads(line)["index"] for line in path.read_bytes().splitlines()] == [*range(whole), 9]


@pytest.mark.parametrize("rubbish", [b"not json\n", b'{"index": 1}\n', b"\xff\xfe\n", b"[]\n", b"null\n"])
def test_rubbish_ends_the_journal_but_not_the_run(tmp_path: Path, rubbish: bytes) -> None:
    path = filled(tmp_path, 2)
    path.write_bytes(path.read_bytes() + rubbish + json.dumps(record(2).to_json()).encode() + b"\n")
    with Journal(tmp_path, "k" * 64) as journal:
        assert journal.num_resumed == 2


def test_another_configuration_has_another_journal(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    with Journal(tmp_path, "z" * 64) as journal:
        assert journal.num_resumed == 0
    with Journal(tmp_path, "k" * 64) as journal:
        assert journal.num_resumed == 2


def test_two_processes_cannot_write_one_journal(tmp_path: Path) -> None:
    with Journal(tmp_path, "k" * 64), pytest.raises(UserError, match="another plan-eval"), Journal(tmp_path, "k" * 64):
        pass
    with Journal(tmp_path, "k" * 64):  # the lock is gone with its holder
        pass


def test_an_unused_journal_leaves_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path, "k" * 64):
        pass
    assert list(tmp_path.iterdir()) == []


def test_deleting_keeps_the_folder_clean(tmp_path: Path) -> None:
    with Journal(tmp_path, "k" * 64) as journal:
        journal.append(record(0))
        journal.delete()
    assert list(tmp_path.iterdir()) == []


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr("os.write", lambda fd, data: write(fd, bytes(data)[:7]))
    filled(tmp_path, 2)
    monkeypatch.undo()
    with Journal(tmp_path, "k" * 64) as journal:
        assert journal.num_resumed == 2


def test_key_depends_on_every_value_and_not_on_their_order() -> None:
    base = {"a": 1, "b": {"c": [1.5, None]}}
    assert config_key(base) == config_key({"b": {"c": (1.5, None)}, "a": 1})
    assert config_key(base) != config_key({"a": 1, "b": {"c": [1.5, 0]}})
    assert len(config_key(base)) == 64
