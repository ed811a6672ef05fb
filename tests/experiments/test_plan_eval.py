"""The command: what it writes, what it prints, what it refuses, and that nothing is lost when it is killed."""

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from goalward import UserError
from goalward.experiments import plan_eval, planning, report_cards
from goalward.experiments.command_line import parse
from goalward.experiments.plan_eval import PlanEvalCommand, check_folder, command_of, describe_env, evaluate_methods
from goalward.experiments.results import read_results, schema_problems

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def no_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos have their own tests, and ffmpeg takes its time."""
    monkeypatch.setattr(report_cards, "mp4_uri", lambda *_, **__: "data:video/mp4;base64,AAAA")


@pytest.fixture
def command(point_env: Any, make_planner: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs the command line on the small world; returns its exit code."""
    from goalward.envs import goals, splits

    env = point_env()
    asked: list[dict[str, Any]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan_eval, "open_env_and_model", lambda config, name, **_: (env, object()))
    monkeypatch.setattr(planning, "planner_method", lambda model, planner, config, **options: asked.append(options) or make_planner(env))
    monkeypatch.setattr(planning, "model_hashes", lambda name, model: {"model": "ab" * 32})
    for module in (goals, splits):
        monkeypatch.setattr(module, "load_manifest", lambda name, split: SimpleNamespace(goals=range(10), sha256="cd" * 32))

    def run(*args: str) -> int:
        monkeypatch.setattr(sys, "argv", ["plan-eval", *args])
        with pytest.raises(SystemExit) as stop:
            plan_eval.main()
        return int(stop.value.code or 0)

    run.env, run.asked = env, asked  # type: ignore[attr-defined]
    return run


def without_times(results: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on when and how often the command ran."""
    kept = {k: v for k, v in results.items() if k not in ("created", "wall_s", "resumed_episodes")}
    kept["methods"] = [{k: v for k, v in m.items() if k != "plan_ms"} for m in kept["methods"]]
    kept["episodes"] = [{k: v for k, v in e.items() if k != "plan_ms"} for e in kept["episodes"]]
    return kept


def test_table_results_and_report(command: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command("--env", "reach", "--episodes", "5") == 0
    said = capsys.readouterr()
    folder = tmp_path / "reports" / "reach-cem"
    assert sorted(p.name for p in folder.iterdir()) == ["report.html", "results.json"]
    for name in ("cem", "hold", "random", "oracle"):
        assert f"\n {name} " in said.out
    assert "80.0 [37.6, 96.4]" in said.out
    assert "reports/reach-cem/report.html" in said.out
    assert "strict 4/5" in said.err
    assert command.env.closed


def test_results_have_everything(command: Any, tmp_path: Path) -> None:
    command("--episodes", "4", "--seed", "11", "--report", "out")
    results = read_results(tmp_path / "out")
    assert schema_problems(results) == []
    assert [m["name"] for m in results["methods"]] == ["cem", "hold", "random", "oracle"]
    for method in results["methods"]:
        assert {"rate", "low", "high"} <= set(method["strict"])
        assert {"rate", "low", "high"} <= set(method["moderate"])
        assert {"p50", "p95", "p99"} <= set(method["plan_ms"])
        assert set(method["final_distance_m"]) == {"median", "p90"}
        assert (method["plan_ms"]["p50"] is None) == (method["name"] != "cem")
    assert results["command"] == "plan-eval --env reach --episodes 4 --seed 11 --report out"
    assert results["config"]["episodes"] == 4
    assert results["config"]["planner_config"]["num_samples"] > 0
    assert results["seeds"]["base"] == 11
    assert results["hashes"] == {"model": "ab" * 32, "goals": "cd" * 32}
    assert {"goalward", "torch", "mujoco", "python"} <= set(results["versions"])
    assert len(results["episodes"]) == 16
    assert {e["seed"] for e in results["episodes"]} == {11, 12, 13, 14}


def test_json_is_all_that_standard_output_gets(command: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    noisy = command.env.reset

    def reset(**options: Any) -> Any:
        print("a library chatters")
        return noisy(**options)

    command.env.reset = reset
    assert command("--episodes", "3", "--json", "--report", "out") == 0
    said = capsys.readouterr()
    printed = json.loads(said.out)
    assert printed == read_results(tmp_path / "out")
    assert said.out == (tmp_path / "out" / "results.json").read_text()
    assert "a library chatters" in said.err


def test_no_references(command: Any, tmp_path: Path) -> None:
    command("--episodes", "3", "--no-references", "--report", "out")
    results = read_results(tmp_path / "out")
    assert [m["name"] for m in results["methods"]] == ["cem"]
    assert results["paired"] == []


def test_budget_and_reuse_are_passed_on_and_recorded(command: Any, tmp_path: Path) -> None:
    command("--episodes", "1", "--budget-ms", "50", "--execute-steps", "2", "--horizon", "4", "--report", "out")
    assert command.asked == [{"horizon": 4, "execute_steps": 2, "budget_ms": 50.0}]
    results = read_results(tmp_path / "out")
    assert (results["config"]["budget_ms"], results["config"]["execute_steps"], results["config"]["realtime"]) == (50.0, 2, False)
    assert results["command"].endswith("--execute-steps 2 --budget-ms 50.0 --report out")


def test_in_real_time_the_planner_alone_waits_and_the_replays_agree(command: Any, tmp_path: Path) -> None:
    waits: list[float] = []
    command.env.wait = lambda duration_s: waits.append(duration_s)
    assert command("--episodes", "2", "--realtime", "--report", "out") == 0
    results = read_results(tmp_path / "out")
    own = [wait for e in results["episodes"] if e["method"] == "cem" for wait in e["waits_s"]]
    assert own
    assert sorted(waits) == sorted(own + own), "once in the evaluation, once in the replays"
    assert all(e["waits_s"] == [] for e in results["episodes"] if e["method"] != "cem")
    assert results["config"]["realtime"] is True


def test_split_is_passed_on(command: Any) -> None:
    command("--episodes", "3", "--split", "validation")
    assert {split for _, _, split in command.env.resets} == {"validation"}


def test_the_same_command_gives_the_same_results(command: Any, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        command("--episodes", "3", "--report", folder)
    first, second = (without_times(read_results(tmp_path / folder)) for folder in ("a", "b"))
    for results in (first, second):
        del results["command"], results["config"]["report"]
    assert first == second


def test_a_finished_command_measures_again(command: Any, tmp_path: Path) -> None:
    command("--episodes", "3")
    before = len(command.env.resets)
    command("--episodes", "3")
    assert len(command.env.resets) == 2 * before
    assert read_results(tmp_path / "reports" / "reach-cem")["resumed_episodes"] == 0


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["--episodes", "0"], "episodes is 0; must be at least 1"),
        (["--episodes", "-5"], "episodes is -5"),
        (["--episodes", "many"], "many"),
        (["--episodes", "11"], "10 test goals"),
        (["--env", "raech"], "did you mean reach"),
        (["--planner", "cem2"], "did you mean cem"),
        (["--num-samples", "0"], "num_samples is 0"),
        (["--num-iterations", "0"], "num_iterations is 0"),
        (["--horizon", "-1"], "horizon is -1"),
        (["--execute-steps", "0"], "execute_steps is 0"),
        (["--budget-ms", "0"], "budget_ms is 0.0; must be a positive number"),
        (["--budget-ms", "nan"], "budget_ms is nan"),
        (["--realtime", "--episodes", "3"], "realtime: environment 'reach' cannot go on"),
        (["--max-cards", "1"], "max_cards is 1"),
        (["--seed", "-1"], "seed is -1"),
        (["--split", "train"], "train"),
        (["--episode", "5"], "did you mean --episodes"),
        (["--teleport"], "unknown option --teleport"),
        (["--episodes", "3", "--report", "a-file"], "a-file is a file"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    command: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, args: list[str], complaint: str
) -> None:
    (tmp_path / "a-file").write_text("x")
    assert command(*args) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert complaint in said.err


def test_help_says_what_every_option_does(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--help") == 0
    said = capsys.readouterr().out
    for field in dataclasses.fields(PlanEvalCommand):
        assert f"--{field.name.replace('_', '-')}" in said
    assert "Killed or interrupted, the same command continues" in " ".join(said.replace("│", " ").split())


def test_the_set_of_options_is_deliberate() -> None:
    assert [field.name for field in dataclasses.fields(PlanEvalCommand)] == [
        "env", "planner", "episodes", "seed", "model", "encoder", "num_samples", "num_iterations", "horizon", "execute_steps", "budget_ms",
        "realtime", "split", "compare", "references", "report", "max_cards", "device", "json",
    ]  # fmt: skip


def test_a_full_disk_keeps_the_episodes_so_far(command: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from goalward.experiments import journal

    original = journal.Journal.append
    calls = []

    def append(self: Any, record: Any) -> None:
        calls.append(record)
        if len(calls) > 5:
            raise OSError(28, "No space left on device", str(self.path))
        original(self, record)

    monkeypatch.setattr(journal.Journal, "append", append)
    assert command("--episodes", "3", "--report", "out") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ")
    assert "the disk is full" in said
    assert not Path("out/results.json").exists()
    monkeypatch.undo()


def test_an_interruption_is_130_and_the_same_command_continues(
    command: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, count = command.env.step, []

    def interrupted(action: Any) -> Any:
        count.append(1)
        if len(count) == 40:
            raise KeyboardInterrupt
        return step(action)

    command.env.step = interrupted
    assert command("--episodes", "4", "--report", "out") == 130
    assert "continues" in capsys.readouterr().err
    assert not (tmp_path / "out" / "results.json").exists()
    command.env.step = step
    assert command("--episodes", "4", "--report", "out") == 0
    results = read_results(tmp_path / "out")
    assert results["resumed_episodes"] > 0
    assert len(results["episodes"]) == 16
    assert "taken over from an interrupted run" in capsys.readouterr().out


def test_a_run_killed_while_it_draws_does_not_evaluate_again(
    point_env: Any, make_planner: Any, eval_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> str:
        raise KeyboardInterrupt

    env = point_env()
    monkeypatch.setattr(plan_eval, "draw_page", die)
    with pytest.raises(KeyboardInterrupt):
        evaluate_methods(env, make_planner(env), config=eval_config(), hashes={}, folder=tmp_path)
    monkeypatch.undo()
    again = point_env()
    results = evaluate_methods(again, make_planner(again), config=eval_config(), hashes={}, folder=tmp_path)
    assert results["resumed_episodes"] == 20
    assert len(again.resets) == 5, "only the replays"


def test_the_page_does_not_decide_what_is_resumed(point_env: Any, make_planner: Any, eval_config: Any, tmp_path: Path) -> None:
    env = point_env()
    evaluate_methods(env, make_planner(env), config=eval_config(max_cards=3), hashes={}, folder=tmp_path)
    assert (tmp_path / "report.html").read_text().count('<article class="card"') == 3


KILLED = """
import os, runpy, signal, sys
from pathlib import Path
from goalward.experiments import doctor, journal, plan_eval, report_cards
report_cards.mp4_uri = lambda *_, **__: "data:video/mp4;base64,AAAA"
doctor.machine = dict
world = runpy.run_path(sys.argv[1])
folder, die_after, phase = Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
append = journal.Journal.append
count = [0]
def dying(self, record):
    if phase == "torn" and count[0] == die_after:
        os.write(self._fd, b'{"method": "cem", "ind')
    if count[0] == die_after:
        os.kill(os.getpid(), signal.SIGKILL)
    count[0] += 1
    append(self, record)
journal.Journal.append = dying
env = world["PointEnv"]()
config = {"env": "point", "episodes": 5, "seed": 7, "split": "test", "references": True, "max_cards": 3}
plan_eval.evaluate_methods(env, world["_planner"](env), config=config, hashes={"model": "x"}, folder=folder)
"""


def test_a_killed_run_continues_and_ends_as_if_nothing_had_happened(tmp_path: Path, point_env: Any, make_planner: Any) -> None:
    folder = tmp_path / "report"

    def start(die_after: int, phase: str) -> int:
        arguments = [sys.executable, "-c", KILLED, str(HERE / "conftest.py"), str(folder), str(die_after), phase]
        return subprocess.run(arguments, env=os.environ | {"COLUMNS": "100"}, capture_output=True, check=False, timeout=120).returncode

    assert start(7, "between") == -signal.SIGKILL
    assert not (folder / "results.json").exists()
    assert start(6, "torn") == -signal.SIGKILL
    assert start(100, "-") == 0
    results = read_results(folder)
    assert results["resumed_episodes"] == 13
    assert sorted(p.name for p in folder.iterdir()) == ["report.html", "results.json"]
    env = point_env()
    config = {"env": "point", "episodes": 5, "seed": 7, "split": "test", "references": True, "max_cards": 3}
    whole = evaluate_methods(env, make_planner(env), config=config, hashes={"model": "x"}, folder=tmp_path / "whole")
    assert without_times(results)["episodes"] == without_times(json.loads(json.dumps(whole)))["episodes"]


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (PlanEvalCommand(), "plan-eval --env reach"),
        (PlanEvalCommand(references=False, json=True, num_samples=8), "plan-eval --env reach --num-samples 8 --no-references"),
        (PlanEvalCommand(model="my runs/a", report=Path("out")), "plan-eval --env reach --model 'my runs/a' --report out"),
    ],
)
def test_the_recorded_command_makes_the_same_configuration(config: PlanEvalCommand, line: str) -> None:
    assert command_of(config) == line
    again = parse(PlanEvalCommand, prog="plan-eval", args=shlex.split(line)[1:])
    assert again == dataclasses.replace(config, json=False)


def test_facts_about_an_environment_are_json(point_env: Any) -> None:
    facts = json.loads(json.dumps(describe_env(point_env())))
    assert facts["cameras"] == ["top", "side"]
    assert facts["action_high"] == pytest.approx([0.05, 0.05])
    assert (facts["strict_tolerance_m"], facts["strict_steps"]) == (0.03, 3)


def test_a_folder_that_cannot_be_made_is_found_out_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: Any) -> None:  # as /proc does
        raise FileNotFoundError(2, "No such file or directory", str(path))

    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="Not a directory"):
        check_folder(tmp_path / "file" / "below")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(UserError, match="cannot be made; choose another"):
            check_folder(tmp_path / "nowhere")
    check_folder(tmp_path / "new" / "deep")
    assert (tmp_path / "new" / "deep").is_dir()


class FakeEnv:
    """An environment with cameras of its own choice; remembers whether it was closed."""

    made: list["FakeEnv"]

    def __init__(self, cameras: tuple[str, ...] = ("front", "side"), image_size_px: int = 128, variation: str = "none") -> None:
        self.variation = variation
        self.spec_info = SimpleNamespace(cameras=cameras, image_size_px=image_size_px)
        self.closed = False
        FakeEnv.made.append(self)

    @property
    def unwrapped(self) -> "FakeEnv":
        return self

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("cameras", "size", "seen"),
    [(("front", "side"), 128, ("front", "side")), (("front",), 128, ("front",)), (("side", "front"), 64, ("side", "front"))],
)
def test_the_environment_gets_the_model_s_cameras(
    monkeypatch: pytest.MonkeyPatch, cameras: tuple[str, ...], size: int, seen: tuple[str, ...]
) -> None:
    FakeEnv.made = []
    trained = SimpleNamespace(cameras=cameras, image_size_px=size)
    checked: list[Any] = []
    model = SimpleNamespace(description=SimpleNamespace(env=trained), check_env=checked.append)
    monkeypatch.setattr("goalward.load_model", lambda *_, **__: model)
    monkeypatch.setattr("goalward.envs.registry.make_env", lambda name, **kwargs: FakeEnv(**kwargs))
    env, _ = plan_eval.open_env_and_model(PlanEvalCommand(), "reach", variation="look")
    assert (env.spec_info.cameras, env.spec_info.image_size_px) == (seen, size)
    assert {made.variation for made in FakeEnv.made} == {"look"}
    assert checked == [env.spec_info]
    assert [made.closed for made in FakeEnv.made] == [True] * (len(FakeEnv.made) - 1) + [False]


def test_a_model_of_another_kind_is_refused_and_nothing_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> None:
        raise UserError("the model does not suit this environment: action_names")

    FakeEnv.made = []
    model = SimpleNamespace(description=SimpleNamespace(env=SimpleNamespace(cameras=("wrist",), image_size_px=128)), check_env=refuse)
    monkeypatch.setattr("goalward.load_model", lambda *_, **__: model)
    monkeypatch.setattr("goalward.envs.registry.make_env", lambda name, **kwargs: FakeEnv(**kwargs))
    with pytest.raises(UserError, match="does not suit"):
        plan_eval.open_env_and_model(PlanEvalCommand(), "reach")
    assert all(made.closed for made in FakeEnv.made)
