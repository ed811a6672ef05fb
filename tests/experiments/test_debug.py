"""The end-to-end test: collect, pretrain, train, plan-eval, all real, in miniature."""

import json
from pathlib import Path

import pytest

from goalward import UserError
from goalward.experiments.debug import DebugCommand, run


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("debug") / "run"
    assert run(DebugCommand(out=out, collect_episodes=40, eval_episodes=2, workers=2)) == 0
    return out


def test_every_link_leaves_its_product(chain: Path) -> None:
    assert (chain / "data" / "manifest.json").exists()
    assert (chain / "encoder" / "encoder.safetensors").exists()
    assert (chain / "model" / "model.json").exists()
    assert (chain / "report" / "report.html").stat().st_size > 50_000


def test_results_name_every_hash_and_method(chain: Path) -> None:
    results = json.loads((chain / "report" / "results.json").read_text())
    assert [m["name"] for m in results["methods"]] == ["cem", "hold", "random", "oracle"]
    oracle = results["methods"][-1]
    assert oracle["strict"]["rate"] == 1.0
    planner = results["methods"][0]
    assert planner["plan_ms"]["p50"] > 0
    assert 0 <= planner["strict"]["low"] <= planner["strict"]["rate"] <= planner["strict"]["high"] <= 1


def test_model_carries_its_own_encoder(chain: Path) -> None:
    import goalward

    model = goalward.load_model(str(chain / "model"))
    assert model.image_size_px == 64
    assert (chain / "model" / "encoder" / "encoder.safetensors").read_bytes() == (chain / "encoder" / "encoder.safetensors").read_bytes()


def test_a_used_folder_is_refused(chain: Path) -> None:
    with pytest.raises(UserError, match="not empty"):
        run(DebugCommand(out=chain))


def test_too_few_episodes_are_refused() -> None:
    with pytest.raises(UserError, match="at least 40"):
        DebugCommand(collect_episodes=10)
