"""Success as the controller sees it, counted against the true state."""

from typing import Any

import pytest

from goalward.experiments.detection import detection_figures
from goalward.experiments.evaluation import Detector
from goalward.experiments.results import EpisodeRecord

DETECTOR = Detector(energy=0.1, steps=3)


def episode(instants: list[tuple[float | None, float | None]], *, index: int = 0, strict: bool = False) -> EpisodeRecord:
    """(energy, distance in centimetres) at every instant."""
    return EpisodeRecord(
        method="cem", index=index, goal_id=f"g{index}", seed=0, energies=tuple(e for e, _ in instants),
        distances_m=tuple(None if cm is None else cm / 100 for _, cm in instants), actions=((0.0,),) * (len(instants) - 1), plan_ms=(),
        strict=strict, moderate=strict, steps=len(instants) - 1, failure=None,
    )  # fmt: skip


def figures(*episodes: EpisodeRecord) -> dict[str, Any]:
    found = detection_figures(episodes, DETECTOR, tolerance_m=0.03, strict_steps=3)
    assert found is not None
    return found


def test_frames_are_counted_by_what_is_detected_and_what_is_near() -> None:
    found = figures(episode([(1.0, 20), (0.05, 2), (0.1, 4), (0.2, 3.0), (None, None), (0.05, 1)]))
    assert (found["frames"]["precision"]["successes"], found["frames"]["precision"]["trials"]) == (2, 3)
    assert (found["frames"]["recall"]["successes"], found["frames"]["recall"]["trials"]) == (2, 3)
    assert 0 < found["frames"]["precision"]["low"] < 2 / 3 < found["frames"]["precision"]["high"] < 1


def test_a_claim_needs_detections_running_and_is_judged_by_the_task_s_rule() -> None:
    true = episode([(1.0, 20), (0.05, 2), (0.05, 2), (0.05, 1)], index=0, strict=True)
    early = episode([(1.0, 20), (0.05, 4), (0.05, 2), (0.05, 2), (1.0, 2)], index=1, strict=True)
    false = episode([(1.0, 20), (0.05, 6), (0.05, 6), (0.05, 5)], index=2)
    silent = episode([(1.0, 20), (0.05, 2), (0.2, 2), (0.05, 2), (0.05, 2)], index=3, strict=True)
    found = figures(true, early, false, silent)
    assert found["claims"] == [
        {"index": 0, "step": 3, "distance_m": 0.01, "near": True, "strict": True},
        {"index": 1, "step": 3, "distance_m": 0.02, "near": True, "strict": False},
        {"index": 2, "step": 3, "distance_m": 0.05, "near": False, "strict": False},
        {"index": 3, "step": None, "distance_m": None, "near": None, "strict": None},
    ]
    rates = {name: (rate["successes"], rate["trials"]) for name, rate in found["episodes"].items()}
    assert rates == {"precision": (2, 3), "precision_strict": (1, 3), "recall": (2, 3)}


def test_the_start_is_no_step_of_the_task() -> None:
    (claim,) = figures(episode([(0.0, 1), (0.0, 1), (0.0, 1), (0.0, 1)], strict=True))["claims"]
    assert (claim["step"], claim["strict"]) == (2, False), "the task counts from the first step"


def test_nothing_detected_has_no_precision() -> None:
    found = figures(episode([(1.0, 20), (1.0, 10)]))
    assert found["frames"] == {"precision": None, "recall": None}
    assert found["episodes"] == {"precision": None, "precision_strict": None, "recall": None}


@pytest.mark.parametrize("missing", ["detector", "tolerance_m", "strict_steps"])
def test_without_a_calibration_or_a_tolerance_there_is_nothing_to_say(missing: str) -> None:
    given: dict[str, Any] = {"detector": DETECTOR, "tolerance_m": 0.03, "strict_steps": 3} | {missing: None}
    assert detection_figures([], given.pop("detector"), **given) is None
