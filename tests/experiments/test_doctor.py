"""The doctor says what is here, and what is missing with its fix."""

import json
from typing import Any

import pytest

import goalward
from goalward import UserError
from goalward.experiments import doctor
from goalward.experiments.doctor import DoctorCommand, diagnose, machine, run, usable_cpus, versions


def test_versions_are_those_installed() -> None:
    import torch

    found = versions()
    assert found["goalward"] == goalward.__version__
    assert found["torch"] == torch.__version__
    assert "missing" not in found.values()


def test_machine_names_processor_and_threads() -> None:
    found = machine()
    assert found["cpus"] == usable_cpus() >= 1
    assert found["threads"] >= 1
    assert found["processor"]
    json.dumps(found)


def test_a_sound_installation_names_environments_and_goals() -> None:
    facts, _ = diagnose()
    assert facts["rendering"]["backend"] in ("egl", "osmesa", "glfw", "cgl", "wgl")
    assert facts["environments"]["reach"]["goals"] == {"test": 400, "validation": 200, "test-region": 200, "validation-region": 100}
    assert facts["video"]


@pytest.fixture
def no_checks(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(
        doctor, "_models", lambda problems: {"reach": {"env": "Goalward/Reach-v0", "cameras": ["front"], "encoder": "small"}}
    )
    monkeypatch.setattr(doctor, "_encoders", lambda problems: {"small": {"about": "an encoder", "fingerprint": "f" * 64}})
    return monkeypatch


def test_without_rendering_it_says_what_to_install(no_checks: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def none() -> str:
        raise UserError("no OpenGL; apt-get install libegl1")

    no_checks.setattr("goalward.envs.gl_backend.choose_backend", none)
    assert run(DoctorCommand()) == 1
    assert "problem: no OpenGL; apt-get install libegl1" in capsys.readouterr().out


def test_a_missing_package_is_named(no_checks: pytest.MonkeyPatch) -> None:
    no_checks.setattr(doctor, "_PACKAGES", ("torch", "no-such-package-at-all"))
    facts, problems = diagnose()
    assert facts["versions"]["no-such-package-at-all"] == "missing"
    assert any("no-such-package-at-all is not installed" in problem for problem in problems)


def test_missing_ffmpeg_is_a_problem_with_a_fix(no_checks: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise RuntimeError("no ffmpeg exe")

    no_checks.setattr("imageio_ffmpeg.get_ffmpeg_version", none)
    facts, problems = diagnose()
    assert facts["video"] is None
    assert any("imageio[ffmpeg]" in problem for problem in problems)


def test_a_damaged_model_is_shown_and_nothing_breaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def damaged(*_: Any, **__: Any) -> Any:
        raise UserError("weights/reach: tensor x is missing")

    monkeypatch.setattr("goalward.load_model", damaged)
    monkeypatch.setattr("goalward.wm.model.shipped_models", lambda: ("reach",))
    monkeypatch.setattr(doctor, "_encoders", lambda problems: {})
    assert run(DoctorCommand()) == 1
    said = capsys.readouterr().out
    assert "problem: weights/reach: tensor x is missing" in said


def test_without_models_it_says_how_to_train_one(monkeypatch: pytest.MonkeyPatch) -> None:
    problems: list[str] = []
    monkeypatch.setattr("goalward.wm.model.shipped_models", lambda: ())
    assert doctor._models(problems) == {}
    assert "goalward train" in problems[0]


def test_all_is_well(no_checks: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(DoctorCommand()) == 0
    said = capsys.readouterr().out
    for text in ("rendering", "environment reach", "model reach", "encoder small", "everything needed is here"):
        assert text in said


def test_json_is_json_alone(no_checks: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(DoctorCommand(json=True)) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["problems"] == []
    assert facts["versions"]["goalward"] == goalward.__version__
