"""Reading other people's checkpoints: what is whole comes out unchanged, what is not is one clear error, and nothing of it ever runs."""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
import subprocess
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from goalward import UserError
from goalward.wm.conversion import tensor_file, unpickle
from goalward.wm.conversion.tensor_file import read_tensors

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}


class Trap:
    """Unpickled carelessly, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def here(monkeypatch):
    """Runs the other program in this process: starting it takes seconds."""

    def run(command, **_):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = unpickle.main(command[3:])
        return subprocess.CompletedProcess(command, code, said.getvalue(), "")

    monkeypatch.setattr(tensor_file.subprocess, "run", run)


def test_it_is_a_process_of_its_own(tmp_path):
    path, mark = tmp_path / "x.pt", tmp_path / "it-ran"
    torch.save({"predictor": TENSORS, "more": Trap(mark)}, path)
    with pytest.raises(UserError, match="nothing of it was run"):
        read_tensors(path, ("predictor",))
    assert not mark.exists()


def test_a_process_that_dies_is_reported(tmp_path, monkeypatch):
    path = tmp_path / "x.pt"
    torch.save({"predictor": TENSORS}, path)
    program = tmp_path / "dies.py"
    program.write_text("raise MemoryError('no more')")
    monkeypatch.setattr(tensor_file, "_PROGRAM", program)
    with pytest.raises(UserError, match=r"ended with 1 \(MemoryError: no more\); see that memory and disk suffice"):
        read_tensors(path, ("predictor",))


@pytest.mark.usefixtures("here")
def test_sections_come_out_unchanged(tmp_path):
    path = tmp_path / "x.pt"
    shared = torch.arange(4.0)
    content = {
        "predictor": OrderedDict(TENSORS),
        "encoder": {"c": shared[:2], "d": shared},
        "epoch": 3,
        "opt": {"lr": 0.1, "steps": [1, 2]},
    }
    torch.save(content, path)
    read = read_tensors(path, ("predictor", "encoder"))
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read.sections["predictor"].keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(read.sections["predictor"][name], tensor)
        assert read.sections["predictor"][name].dtype == tensor.dtype
    assert torch.equal(read.sections["encoder"]["c"], shared[:2])


@pytest.mark.usefixtures("here")
def test_the_format_before_zip_is_read_too(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"predictor": TENSORS}, path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_tensors(path, ("predictor",)).sections["predictor"]["b"], TENSORS["b"])


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("inside", [True, False])
def test_nothing_of_a_pickle_is_run(tmp_path, inside):
    path, mark = tmp_path / "x.pt", tmp_path / "it-ran"
    trap = Trap(mark)
    if inside:
        torch.save({"predictor": TENSORS, "more": trap}, path)
    else:
        path.write_bytes(pickle.dumps({"predictor": trap}))
    with pytest.raises(UserError, match="nothing of it was run"):
        read_tensors(path, ("predictor",))
    assert not mark.exists()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_said_to_be_so(tmp_path, share):
    whole, path = tmp_path / "whole.pt", tmp_path / "x.pt"
    torch.save({"predictor": {"a": torch.zeros(4000)}}, whole)
    raw = whole.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(UserError, match=r"truncated|damaged") as caught:
        read_tensors(path, ("predictor",))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"encoder": TENSORS, "epoch": 1}, "no mapping 'predictor' of tensors; it has encoder, epoch"),
        ({"predictor": 5}, "no mapping 'predictor'"),
        ({"predictor": {}}, "no mapping 'predictor'"),
        ({"predictor": {"a": 1.5, "b": torch.zeros(1), "c": "text"}}, r"what is no plain tensor: a \(float\), c \(str\)"),
        ([torch.zeros(1)], "holds a list"),
    ],
)
def test_other_content_is_refused(tmp_path, content, says):
    path = tmp_path / "x.pt"
    torch.save(content, path)
    with pytest.raises(UserError, match=says):
        read_tensors(path, ("predictor",))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("raw", [b"<html>404</html>", b"PK\x03\x04 not really", b"\x80\x02."])
def test_what_is_no_checkpoint_is_refused(tmp_path, raw):
    path = tmp_path / "x.pt"
    path.write_bytes(raw)
    with pytest.raises(UserError, match="download it again, and compare its SHA-256"):
        read_tensors(path, ("predictor",))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_tensors(tmp_path / "x.pt", ("predictor",))
