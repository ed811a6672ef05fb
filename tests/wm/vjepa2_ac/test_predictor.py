"""The predictor: information flows only where block causality lets it, and the cached rollout equals the naive one."""

from __future__ import annotations

import pytest
import torch

from goalward.wm.vjepa2_ac import attention as attention_module
from goalward.wm.vjepa2_ac import rollout as rollout_module
from goalward.wm.vjepa2_ac.attention import summed_attention, with_one_more


def test_a_later_frame_changes_no_earlier_prediction(ac):
    predictor, window = ac.make(), ac.inputs(ac.TINY, problems=1, frames=4)
    before = predictor(window.z_BTND, window.actions_BTA, window.states_BTP)
    for name in ("z_BTND", "actions_BTA", "states_BTP"):
        changed = {n: getattr(window, n).clone() for n in ("z_BTND", "actions_BTA", "states_BTP")}
        changed[name][:, 2] += 0.3
        after = predictor(*changed.values())
        assert torch.equal(after[:, :2], before[:, :2]), name
        assert not torch.allclose(after[:, 2], before[:, 2], atol=1e-4), name
        assert not torch.allclose(after[:, 3], before[:, 3], atol=1e-5), name


def test_a_shorter_window_gives_the_same(ac):
    predictor, window = ac.make(), ac.inputs(ac.TINY, problems=2, frames=3)
    whole = predictor(window.z_BTND, window.actions_BTA, window.states_BTP)
    part = predictor(window.z_BTND[:, :2], window.actions_BTA[:, :2], window.states_BTP[:, :2])
    torch.testing.assert_close(part, whole[:, :2], rtol=0, atol=2e-6)


@pytest.mark.parametrize("changes", [{}, {"extrinsics": True}, {"depth": 1}, {"rows": 1, "columns": 3}, {"duplicated_frequencies": False}])
@pytest.mark.parametrize("frames", [1, 3])
def test_cached_equals_naive(ac, naive, frames, changes):
    predictor = ac.make(**changes)
    window = ac.inputs(predictor.config, problems=2, frames=frames)
    extrinsics = window.extrinsics_BTE if predictor.config.extrinsics else None
    past = window.actions_BTA[:, : frames - 1]
    actions = ac.uniform(2, 5, 3, 7, seed=9) * 0.1
    context = predictor.prime(window.z_BTND, window.states_BTP, past, extrinsics)
    assert context.num_problems == 2
    with torch.no_grad():
        cached = predictor.rollout(context, actions)
    for s in range(5):
        expected = naive(predictor, window.z_BTND, window.states_BTP, past, actions[:, s], extrinsics)
        torch.testing.assert_close(cached[:, s], expected, rtol=0, atol=1e-5)


def test_candidates_and_problems_are_independent(ac):
    predictor, window = ac.make(), ac.inputs(ac.TINY, problems=2, frames=2)
    actions = ac.uniform(2, 6, 2, 7, seed=4) * 0.1
    with torch.no_grad():
        context = predictor.prime(window.z_BTND, window.states_BTP, window.actions_BTA[:, :1])
        whole = predictor.rollout(context, actions)
        changed = actions.clone()
        changed[:, 3] += 0.2
        other = predictor.rollout(context, changed)
        alone = predictor.prime(window.z_BTND[1:], window.states_BTP[1:], window.actions_BTA[1:, :1])
        assert torch.equal(predictor.rollout(alone, actions[1:]), whole[1:])  # to the last bit
    rest = [0, 1, 2, 4, 5]
    torch.testing.assert_close(other[:, rest], whole[:, rest], rtol=0, atol=2e-6)
    assert not torch.allclose(other[:, 3], whole[:, 3], atol=1e-4)


def test_parts_of_any_size_give_the_same(ac, monkeypatch):
    predictor, window = ac.make(), ac.inputs(ac.TINY, problems=1, frames=1)
    actions = ac.uniform(1, 7, 2, 7, seed=4) * 0.1
    context = predictor.prime(window.z_BTND, window.states_BTP, window.actions_BTA[:, :0])
    with torch.no_grad():
        whole = predictor.rollout(context, actions)
        monkeypatch.setattr(rollout_module, "_CPU_ELEMENTS", 3 * ac.TINY.num_tokens * ac.TINY.hidden)
        assert rollout_module.part_size(predictor, 7, torch.device("cpu")) == 3
        torch.testing.assert_close(predictor.rollout(context, actions), whole, rtol=0, atol=2e-6)


def test_gradients_reach_the_actions(ac):
    predictor, window = ac.make(), ac.inputs(ac.TINY, problems=1, frames=2)
    context = predictor.prime(window.z_BTND, window.states_BTP, window.actions_BTA[:, :1])
    actions = (ac.uniform(1, 2, 2, 7, seed=4) * 0.1).requires_grad_()
    with torch.no_grad():
        plain = predictor.rollout(context, actions)  # first: what it keeps must serve gradients too
    z = predictor.rollout(context, actions)
    torch.testing.assert_close(z, plain, rtol=0, atol=2e-6)
    (gradient,) = torch.autograd.grad((z * ac.uniform(*z.shape, seed=1)).sum(), actions)
    step = torch.zeros_like(actions)
    step[0, 1, 0, 2] = 1e-2
    with torch.no_grad():
        ahead, behind = (float((predictor.rollout(context, actions + way * step) * ac.uniform(*z.shape, seed=1)).sum()) for way in (1, -1))
    assert float(gradient[0, 1, 0, 2]) == pytest.approx((ahead - behind) / 2e-2, rel=0.05, abs=0.02)


def test_bfloat16_is_near_float32(ac):
    window = ac.inputs(ac.TINY, problems=1, frames=2)
    actions = ac.uniform(1, 4, 2, 7, seed=4) * 0.1
    rolled = []
    for dtype in (torch.float32, torch.bfloat16):
        predictor = ac.make().to(dtype)
        context = predictor.prime(window.z_BTND, window.states_BTP, window.actions_BTA[:, :1])
        with torch.no_grad():
            rolled.append(predictor.rollout(context, actions))
    assert rolled[1].dtype == torch.float32
    assert float((rolled[0] - rolled[1]).abs().mean()) < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_few_keys_and_many_are_attended_to_alike(monkeypatch, dtype):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, n, 2, 8, generator=generator).to(dtype) for n in (4, 7, 7))
    few = attention_module.attention(q, k, v)
    monkeypatch.setattr(attention_module, "_FEW_KEYS", {})
    many = attention_module.attention(q, k, v)
    assert few.shape == many.shape == (3, 4, 2, 8)
    torch.testing.assert_close(few, many, rtol=0, atol=1e-6 if dtype is torch.float32 else 2e-2)


def test_an_attention_can_be_continued():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, n, 2, 8, generator=generator) * 2 for n in (3, 5, 5))
    old, log_sum = summed_attention(q, k[:, :4], v[:, :4])
    scores = torch.einsum("mjke,mke->mjk", q, k[:, 4])
    whole, total = summed_attention(q, k, v)
    torch.testing.assert_close(with_one_more(old, log_sum, scores, v[:, 4:]), whole)
    torch.testing.assert_close(torch.logaddexp(log_sum, scores), total)
