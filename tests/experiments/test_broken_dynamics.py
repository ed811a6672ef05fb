"""Models that are broken on purpose know nothing, not even in imagination."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from goalward.experiments.broken_dynamics import Persistence, ShuffledActions


def sums(context: torch.Tensor, actions_BSHA: torch.Tensor) -> torch.Tensor:
    """A world in which every entry of a latent moves by the first action."""
    return context[:, -1, None, None] + actions_BSHA[..., :1].cumsum(2)[..., None]


def forbidden(*_: Any) -> Any:
    raise AssertionError("the learned model was asked")


MODEL = SimpleNamespace(prime=lambda z: z, rollout=sums, imagine=forbidden, cameras=("top",), calibration="some")
PAST = torch.arange(8.0).reshape(1, 2, 2, 2)


def away(frames: list[torch.Tensor]) -> torch.Tensor:
    """Three candidates; each goes on as it began, further for each frame it sees."""
    return torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]) * (1 + len(frames))


def test_nothing_ever_changes() -> None:
    model = Persistence(MODEL)
    context = model.prime(PAST)
    assert torch.equal(model.rollout(context, torch.rand(1, 3, 4, 2)), PAST[:, -1, None, None].expand(1, 3, 4, 2, 2))
    actions, z = model.imagine(context, away, 4)
    assert torch.equal(z, PAST[:, -1, None, None].expand(1, 3, 4, 2, 2))
    assert actions[0, 1, :, 0].tolist() == [2.0, 4.0, 6.0, 8.0]


def test_predictions_are_another_candidates() -> None:
    model = ShuffledActions(MODEL)
    actions, z = model.imagine(model.prime(PAST), away, 2)
    torch.testing.assert_close(z, sums(PAST, actions.roll(1, dims=1)))


@pytest.mark.parametrize("broken", [Persistence, ShuffledActions])
def test_everything_else_is_the_learned_models(broken: Any) -> None:
    model = broken(MODEL)
    assert model.cameras == ("top",)
    assert model.calibration is None, "what surprises the learned model says nothing of this one"


def test_a_single_candidate_is_predicted_wrongly_too() -> None:
    actions, z = ShuffledActions(MODEL).imagine(PAST, lambda frames: torch.tensor([[1.0, 0.0]]), 2)
    torch.testing.assert_close(z, sums(PAST, -actions))


def test_proposals_that_a_benchmark_names_are_imagined_in_the_broken_world(monkeypatch: pytest.MonkeyPatch) -> None:
    from goalward.experiments.benchmark import methods
    from goalward.experiments.benchmark.spec import MethodSpec

    asked: list[Any] = []
    monkeypatch.setattr(methods, "_present", lambda name: name)
    monkeypatch.setattr("goalward.policies.load_policy", lambda name: "policy")
    monkeypatch.setattr("goalward.policies.proposals.policy_proposer", lambda policy, model, **_: asked.append(model))
    monkeypatch.setattr("goalward.experiments.planning.planner_method", lambda model, *_, **__: asked.append(model))
    spec = MethodSpec(kind="planner", weights="reach", dynamics="persistence", planner="cem", proposals="here", closed_loop=True)
    methods._planner(spec, MODEL, None)
    assert len(asked) == 2
    assert asked[0] is asked[1]
    assert isinstance(asked[0], Persistence)
