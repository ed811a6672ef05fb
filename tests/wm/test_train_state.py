"""Checkpoints of a training run: whole or absent, never older than the one before, whatever happens while saving."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from goalward import UserError
from goalward.datasets import durable
from goalward.wm.optim import make_adamw
from goalward.wm.predictor import LatentPredictor, PredictorConfig
from goalward.wm.train_state import FOLDER, LATEST, TrainState, has_state, load_state, save_state

IDENTITY = {"config": {"steps": 5, "seed": 0}, "data": "abc"}


def fresh(seed: int = 0) -> TrainState:
    generator = torch.Generator().manual_seed(seed)

    def build() -> LatentPredictor:
        return LatentPredictor(PredictorConfig(width=8, depth=1, heads=1), num_tokens=2, dim=3, action_dim=2, generator=generator)

    predictor, average = build(), build()
    return TrainState(predictor=predictor, average=average, optimizer=make_adamw(predictor, weight_decay=0.1), generator=generator)


def advance(state: TrainState) -> TrainState:
    for parameter in state.predictor.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=state.generator)
    state.optimizer.step()
    state.step += 1
    state.history.append({"step": state.step, "loss": 0.5})
    return state


def test_everything_comes_back(tmp_path) -> None:
    state = advance(advance(fresh()))
    state.elapsed_s = 12.5
    save_state(tmp_path, state, IDENTITY)
    other = fresh(seed=9)
    assert load_state(tmp_path, other, IDENTITY) == []
    assert (other.step, other.elapsed_s, other.history) == (2, 12.5, state.history)
    before, after = state.tensors(), other.tensors()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(torch.randn(3, generator=state.generator), torch.randn(3, generator=other.generator))
    for a, b in zip(advance(state).tensors().values(), advance(other).tensors().values(), strict=True):
        assert torch.equal(a, b), "the next step is the same too"


def test_the_newest_two_are_kept(tmp_path) -> None:
    state = fresh()
    for _ in range(4):
        save_state(tmp_path, advance(state), IDENTITY)
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == [LATEST, "step-000003.safetensors", "step-000004.safetensors"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, damage: str) -> None:
    state = fresh()
    for _ in range(2):
        save_state(tmp_path, advance(state), IDENTITY)
    newest = tmp_path / FOLDER / "step-000002.safetensors"
    raw = bytearray(newest.read_bytes())
    raw[len(raw) // 2] ^= 4
    if damage == "remove":
        newest.unlink()
    else:
        newest.write_bytes(raw if damage == "flip" else raw[:50])
    restored = fresh(seed=3)
    (note,) = load_state(tmp_path, restored, IDENTITY)
    assert "step-000002" in note
    assert restored.step == 1


def test_no_whole_checkpoint_is_an_error(tmp_path) -> None:
    with pytest.raises(UserError, match="no whole checkpoint"):
        load_state(tmp_path, fresh(), IDENTITY)
    save_state(tmp_path, advance(fresh()), IDENTITY)
    (tmp_path / FOLDER / "step-000001.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"no whole checkpoint.*SHA-256"):
        load_state(tmp_path, fresh(), IDENTITY)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'[{"file": "../x", "sha256": "0"}]', b'[{"file": 3}]', b"[" * 10_000])
def test_a_senseless_pointer_is_no_checkpoint(tmp_path, content: bytes) -> None:
    save_state(tmp_path, advance(fresh()), IDENTITY)
    (tmp_path / FOLDER / LATEST).write_bytes(content)
    assert not has_state(tmp_path)
    with pytest.raises(UserError, match="no whole checkpoint"):
        load_state(tmp_path, fresh(), IDENTITY)


def test_another_runs_checkpoint_is_refused_with_every_difference(tmp_path) -> None:
    save_state(tmp_path, advance(fresh()), IDENTITY)
    with pytest.raises(UserError, match=r"config.steps was 5, is 6; data was abc, is xyz"):
        load_state(tmp_path, fresh(), {"config": {"steps": 6, "seed": 0}, "data": "xyz"})


@pytest.mark.parametrize("failing", range(8))
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_failing_disk_never_costs_the_checkpoint_before(tmp_path, monkeypatch, failing: int, code: int) -> None:
    """Every system call that saving makes fails once; the run can always be continued."""
    state = fresh()
    save_state(tmp_path, advance(state), IDENTITY)
    calls = 0

    def breakable(real):
        def call(*arguments):
            nonlocal calls
            calls += 1
            if calls - 1 == failing:
                raise OSError(code, os.strerror(code))
            return real(*arguments)

        return call

    for name in ("open", "write", "fsync", "replace"):
        monkeypatch.setattr(durable.os, name, breakable(getattr(os, name)))
    with contextlib.suppress(UserError):
        save_state(tmp_path, advance(state), IDENTITY)
    monkeypatch.undo()
    restored = fresh(seed=3)
    load_state(tmp_path, restored, IDENTITY)
    assert restored.step in (1, 2)
    assert not [path for path in (tmp_path / FOLDER).iterdir() if path.suffix == ".tmp"]
    save_state(tmp_path, advance(restored), IDENTITY)


SAVER = textwrap.dedent(
    """
    import importlib.util, sys
    from pathlib import Path
    spec = importlib.util.spec_from_file_location("state_test", sys.argv[1])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    state = module.fresh()
    while True:
        module.save_state(Path(sys.argv[2]), module.advance(state), module.IDENTITY)
        print(state.step, flush=True)
    """
)


def survive_kills(tmp_path, kills: int) -> None:
    """R32: a process that saves without pause is killed; what it last confirmed, or something newer, is always there."""
    for attempt in range(kills):
        out = tmp_path / str(attempt)
        with subprocess.Popen([sys.executable, "-c", SAVER, __file__, str(out)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.011 * attempt % 0.13)
            process.send_signal(signal.SIGKILL)
            confirmed = [int(line) for line in process.stdout.read().split()]
        state = fresh(seed=3)
        assert load_state(out, state, IDENTITY) == []
        assert state.step >= max(confirmed, default=1)
        assert all(torch.isfinite(tensor.float()).all() for tensor in state.tensors().values())
        save_state(out, advance(state), IDENTITY)


def test_kills_while_saving(tmp_path) -> None:
    survive_kills(tmp_path, 2)


@pytest.mark.slow
def test_fifty_kills_while_saving(tmp_path) -> None:
    survive_kills(tmp_path, 50)


def test_the_pointer_is_plain_json(tmp_path) -> None:
    save_state(tmp_path, advance(fresh()), IDENTITY)
    (entry,) = json.loads((tmp_path / FOLDER / LATEST).read_text())
    assert entry["file"] == "step-000001.safetensors"
