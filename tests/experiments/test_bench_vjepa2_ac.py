"""The comparison with the public V-JEPA 2-AC: what it counts and says, without the public code."""

from __future__ import annotations

import dataclasses
import json
import types
from pathlib import Path

import pytest
import torch

from goalward import UserError
from goalward.experiments.bench import vjepa2_ac_equality, vjepa2_ac_speed
from goalward.experiments.bench.vjepa2_ac import process
from goalward.experiments.bench.vjepa2_ac.clock import Products, Spent, extra_mib, seconds
from goalward.experiments.bench.vjepa2_ac.flop import cached_flop, frame_flop, naive_flop
from goalward.experiments.bench.vjepa2_ac.landscape import grid_1SHA, heatmap
from goalward.experiments.bench.vjepa2_ac.planning import public_arguments, recorded
from goalward.experiments.bench.vjepa2_ac.public import PublicCode
from goalward.experiments.bench.vjepa2_ac.rivals import matched
from goalward.experiments.bench.vjepa2_ac.speed import CASES
from goalward.experiments.bench.vjepa2_ac.synthetic import TINY, uniform
from goalward.planners.vjepa2_ac import VJEPA2_AC_PRESETS
from goalward.wm.predictor import LatentPredictor
from goalward.wm.vjepa2_ac.config import VJepa2ACConfig
from goalward.wm.vjepa2_ac.mapping import expected_shapes


def test_synthetic_numbers_are_those_of_the_formula_and_of_unit_variance():
    values = uniform(100, 100, seed=3)
    assert float(values.mean()) == pytest.approx(0.0, abs=0.03)
    assert float(values.var()) == pytest.approx(1.0, abs=0.03)
    assert values[0, :3].tolist() == pytest.approx(uniform(3, seed=3).tolist())
    assert abs(float(torch.corrcoef(torch.stack([values.flatten(), uniform(10000, seed=4)]))[0, 1])) < 0.05


def test_operations_are_counted_by_hand():
    c = VJepa2ACConfig(dim=2, width=12, depth=3, heads=1, hidden=5, rows=1, columns=2)  # four tokens
    linear = 3 * 4 * (12 * 36 + 12 * 12 + 2 * 12 * 5) + 2 * 2 * 2 * 12
    assert frame_flop(c) == 2 * (linear + 3 * 2 * 4 * 4 * 12)
    one, two = frame_flop(c), frame_flop(c, seen=2)
    assert cached_flop(c, candidates=5, horizon=2) == 5 * (one + two)
    assert naive_flop(c, candidates=5, horizon=2) == 5 * (one + 2 * two)


def test_the_full_size_needs_what_the_paper_budget_is_known_to_cost():
    flop = cached_flop(VJepa2ACConfig(), candidates=8000, horizon=1)
    assert flop == pytest.approx(1.3e15, rel=0.1)


def test_our_own_predictor_has_as_many_parameters():
    c = VJepa2ACConfig(dim=64, width=128, depth=4, heads=4, hidden=512, rows=4, columns=4)
    theirs = sum(torch.Size(shape).numel() for shape in expected_shapes(c).values())
    own = LatentPredictor(matched(c), num_tokens=16, dim=64, action_dim=7)
    assert sum(p.numel() for p in own.parameters()) == pytest.approx(theirs, rel=0.03)


def test_the_grid_of_the_landscape_is_the_notebooks():
    actions = grid_1SHA()
    assert actions.shape == (1, 125, 1, 7)
    first = torch.tensor([[-0.075, -0.075, -0.075], [-0.075, -0.075, -0.0375], [-0.075, -0.075, 0.0]])
    torch.testing.assert_close(actions[0, :3, 0, :3], first)
    assert not actions[..., 3:].any()
    assert heatmap(actions[0, :, 0], torch.ones(125)).tolist() == [[5.0] * 5] * 5


def test_random_numbers_are_recorded_and_given_back():
    original = torch.randn
    with recorded(seed=1) as drawn:
        first = torch.randn(2, 4)
        torch.randn(2, 4, device="cpu")
    assert torch.randn is original
    assert len(drawn) == 2
    assert torch.equal(drawn[0], first)
    with recorded(seed=1) as again:
        torch.randn(2, 4)
    assert torch.equal(again[0], first)


def test_presets_translate_back_to_the_public_arguments():
    assert public_arguments(VJEPA2_AC_PRESETS["notebook"]) == {
        "rollout": 2, "samples": 25, "topk": 10, "cem_steps": 2, "momentum_mean": 0.15, "momentum_std": 0.75, "momentum_mean_gripper": 0.15,
        "momentum_std_gripper": 0.15, "maxnorm": 0.075,
    }  # fmt: skip


def test_small_budgets_keep_no_more_elites_than_samples():
    for case in CASES.values():
        assert case.planning.num_elites <= case.planning.num_samples
        case.planning.cem_config()


def test_time_is_added_up_and_functions_are_put_back():
    owner = types.SimpleNamespace(work=lambda: sum(range(20000)))
    original = owner.work
    with Spent(owner, "work") as spent:
        assert owner.work() == original()
        owner.work()
    assert owner.work is original
    assert spent.total_s > 0
    assert seconds(original) >= 0
    assert Products(torch.float32, side=32).rate() > 0
    assert extra_mib(lambda: None) is None or extra_mib(lambda: torch.ones(2**21)) >= 0


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no checkout"):
        PublicCode(tmp_path)
    with pytest.raises(UserError, match="is no checkout"):
        process.measured("speed", {"checkout": str(tmp_path)}, env_dir=tmp_path, rebuild=False, threads=1, say=print)
    with pytest.raises(UserError, match="threads: 0"):
        vjepa2_ac_equality.EqualityCommand(checkout=tmp_path, threads=0)
    with pytest.raises(UserError, match="rounds: 0"):
        vjepa2_ac_speed.SpeedCommand(checkout=tmp_path, rounds=0)


def test_the_measurement_runs_in_the_environment_with_this_checkout_on_its_path(tmp_path, monkeypatch):
    for name in ("src/models/ac_predictor.py", "notebooks/utils/mpc_utils.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    made: dict[str, object] = {}
    monkeypatch.setattr(process, "ensure", lambda folder, say, **options: made.update(options, folder=folder) or {})

    def run(command, *, env, check):
        request = json.loads(Path(command[-1]).read_text())
        assert (Path(env["PYTHONPATH"]) / "pyproject.toml").exists()
        assert env["OMP_NUM_THREADS"] == "2"
        Path(request["result"]).write_text(json.dumps({"module": command[2], "asked": request["rounds"]}))
        return types.SimpleNamespace(returncode=0)

    monkeypatch.setattr(process.subprocess, "run", run)
    request = {"checkout": str(tmp_path), "rounds": 4}
    result = process.measured("speed", request, env_dir=tmp_path / "env", rebuild=False, threads=2, say=lambda _: None)
    assert result == {"module": "goalward.experiments.bench.vjepa2_ac.speed", "asked": 4}
    assert made["peers"] == process.REQUIREMENTS
    monkeypatch.setattr(process.subprocess, "run", lambda *_, **__: types.SimpleNamespace(returncode=1))
    with pytest.raises(UserError, match="the measurement ended with 1"):
        process.measured("speed", request, env_dir=tmp_path / "env", rebuild=False, threads=2, say=lambda _: None)


EQUAL = {
    "predictions": {"tiny": {"parameters": 20614.0, "largest": 3.0, "window": 1e-6, "rollout": 2e-6}},
    "poses": {"after": 0.0, "difference": 0.0},
    "landscape": {"actions": 125.0, "range": 2e-3, "apart": 2e-7, "heatmap_apart": 2e-7, "same_order": 1.0},
    "presets": {"paper": {"theirs": [0.01] * 7, "ours": [0.01] * 7, "apart": 1e-9}},
}


@pytest.mark.parametrize("apart", [1e-6, 1e-4])
def test_the_comparison_says_whether_numbers_are_equal(tmp_path, monkeypatch, capsys, apart):
    result = EQUAL | {"poses": {"after": apart, "difference": 0.0}}
    monkeypatch.setattr(process, "measured", lambda *_, **__: result)
    out = tmp_path / "figures.json"
    code = vjepa2_ac_equality.run(vjepa2_ac_equality.EqualityCommand(checkout=tmp_path, out=out))
    assert code == (0 if apart < 1e-5 else 1)
    said = capsys.readouterr().out
    assert "| tiny | 20,614 | 3.0 | 1.0e-06 | 2.0e-06 |" in said
    assert "| paper | +0.01000 +0.01000 +0.01000 +0.01000 |" in said
    assert json.loads(out.read_text()) == result


def test_the_tables_of_times(tmp_path, monkeypatch, capsys):
    both = {"float32": 2.5, "bfloat16": 3.5}
    case = {
        "samples": 800, "iterations": 10, "horizon": 1, "gflop": 59.3, "gflop_public": 59.3, "ms": {"public": 4000.0, "float32": 1600.0,
        "bfloat16": 1200.0}, "times_faster": both, "gflops_of_products": both, "share_of_floor": {"float32": 0.5, "bfloat16": 0.1},
        "extra_mib": {"public": 80.0, "float32": 20.0, "bfloat16": None}, "public_parts": {"predictor": 0.7, "of it rotary": 0.2,
        "of it attention": 0.1, "poses": 0.2}, "rank_correlation_of_bfloat16": 0.999,
    }  # fmt: skip
    step = {
        "patches": 256,
        "candidates": 4,
        "context": 3,
        "horizon": 2,
        "parameters": {"a": 1000, "b": 1010},
        "ms": {"public": 9.0, "own": 2.0},
    }
    monkeypatch.setattr(process, "measured", lambda *_, **__: {"cases": {"tiny": case}, "candidate_steps": [step]})
    config = vjepa2_ac_speed.SpeedCommand(checkout=tmp_path, out=tmp_path / "x.json")
    assert vjepa2_ac_speed.run(dataclasses.replace(config, rounds=1)) == 0
    said = capsys.readouterr().out
    assert "| tiny | 800 x 10, 1 | 4000 | 1600 | 1200 | 2.5, 3.5 | 50%, 10% | 80, 20, ? | 70% (20%, 10%), 20% | 0.999 |" in said
    assert "| 256 | 4 | 9.00 | 2.00 |" in said
    assert vjepa2_ac_speed.case_lines({}) == vjepa2_ac_speed.step_lines([]) == []


def test_golden_inputs_are_small():
    assert TINY.num_patches * TINY.dim < 100
