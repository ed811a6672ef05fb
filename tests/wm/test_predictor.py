"""The predictor: the cached, shared rollout must equal a naive one, and information must flow only where the design says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from goalward import UserError
from goalward.wm import rollout as rollout_module
from goalward.wm.attention import attention, attention_with_shared_context
from goalward.wm.model import load_model
from goalward.wm.predictor import LatentPredictor, PersistencePredictor, PredictorConfig, PredictorContext

N, D, A, T = 3, 5, 2, 2


def make(dtype: torch.dtype = torch.float32, **sizes: object) -> LatentPredictor:
    """A predictor with random weights everywhere, the head included (zero weights hide faults)."""
    config = PredictorConfig(**{"width": 16, "depth": 3, "heads": 4, "context_frames": T, "horizon": 4, **sizes})
    generator = torch.Generator().manual_seed(7)
    predictor = LatentPredictor(config, num_tokens=N, dim=D, action_dim=A, generator=generator)
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return predictor.to(dtype).requires_grad_(False)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def naive_rollout(p: LatentPredictor, z_TND: torch.Tensor, actions_HA: torch.Tensor) -> torch.Tensor:
    """One candidate, nothing cached, nothing shared: the whole sequence anew for every step, under an explicit mask."""
    c = p.config
    width, head = c.width, c.width // c.heads
    frames = [z_TND[t] for t in range(len(z_TND))]
    inputs: list[torch.Tensor] = []
    predicted: list[torch.Tensor] = []
    for _ in actions_HA:
        inputs.append(predicted[-1] if predicted else frames[-1])
        x, scale, shift, gate = [], [], [], []
        for t, z in enumerate(frames):
            x.append(z @ p.project.T + p.token + p.age[c.context_frames - len(frames) + t])
            for part, k in ((scale, 0), (shift, 1), (gate, 2)):
                part.append(p.observed[:, k][:, None].expand(-1, p.num_tokens, -1))
        for s, z in enumerate(inputs):
            x.append(z @ p.project.T + p.token + p.step[min(s, c.horizon - 1)])
            hidden = F.silu(p.action_in @ actions_HA[s] + p.action_in_bias)
            modulation = (p.modulate @ hidden + p.modulate_bias).reshape(c.depth, 3, width)
            for part, k in ((scale, 0), (shift, 1), (gate, 2)):
                part.append(modulation[:, k][:, None].expand(-1, p.num_tokens, -1))
        tokens = torch.cat(x)
        count = len(frames) + len(inputs)
        frame = torch.arange(count).repeat_interleave(p.num_tokens)
        allowed = frame[None, :] <= frame[:, None]
        for index, block in enumerate(p.blocks):
            moved = torch.cat(scale, 1)[index] * F.layer_norm(tokens, (width,)) + torch.cat(shift, 1)[index]
            k, v, q, m = (moved @ block.widen.T).split(list(block.split), dim=-1)
            outputs = []
            for j in range(c.heads):
                shared = j // (c.heads // c.key_heads)
                own_q = q[:, j * head : (j + 1) * head]
                own_k, own_v = (y[:, shared * head : (shared + 1) * head] for y in (k, v))
                scores = (own_q @ own_k.T / head**0.5).masked_fill(~allowed, -torch.inf)
                outputs.append(scores.softmax(-1) @ own_v)
            tokens = tokens + torch.cat(gate, 1)[index] * (torch.cat([*outputs, F.gelu(m)], -1) @ block.mix.T)
        last = F.layer_norm(tokens[-p.num_tokens :], (width,)) @ p.head.T
        predicted.append(inputs[-1] + last)
    return torch.stack(predicted)


@pytest.fixture(params=["copied", "shared"])
def context_keys(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of using a context, whatever its size."""
    monkeypatch.setattr(rollout_module, "COPIED_KEYS", {"copied": 10**6, "shared": 0}[request.param])
    return str(request.param)


@pytest.mark.usefixtures("context_keys")
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("frames", [1, 2])
def test_the_cached_rollout_equals_the_naive_one(key_heads: int, frames: int, grad: bool) -> None:
    predictor = make(key_heads=key_heads)
    z, actions = draw(2, frames, N, D), draw(2, 3, 6, A, seed=1)
    with torch.set_grad_enabled(grad):
        rolled = predictor.rollout(predictor.prime(z), actions)
    assert rolled.dtype == torch.float32
    assert rolled.shape == (2, 3, 6, N, D)
    for b in range(2):
        for s in range(3):
            torch.testing.assert_close(rolled[b, s], naive_rollout(predictor, z[b], actions[b, s]), rtol=1e-5, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(
    problems=st.integers(1, 3),
    candidates=st.integers(1, 4),
    horizon=st.integers(1, 3),
    depth=st.integers(1, 3),
    frames=st.integers(1, 3),
    heads=st.sampled_from([(1, 1), (2, 1), (4, 2)]),
    copied_keys=st.sampled_from([0, 2 * N, 1000]),
)
def test_any_shape_equals_the_naive_rollout_in_float64(
    problems: int, candidates: int, horizon: int, depth: int, frames: int, heads: tuple[int, int], copied_keys: int
) -> None:
    predictor = make(torch.float64, depth=depth, heads=heads[0], key_heads=heads[1], context_frames=3, horizon=2)
    z = draw(problems, frames, N, D, dtype=torch.float64)
    actions = draw(problems, candidates, horizon, A, seed=3, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(rollout_module, "COPIED_KEYS", copied_keys)
        rolled = predictor.rollout(predictor.prime(z), actions)
    naive = torch.stack([torch.stack([naive_rollout(predictor, z[b], a) for a in actions[b]]) for b in range(problems)])
    torch.testing.assert_close(rolled, naive, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("context_keys")
def test_the_shipped_model_equals_the_naive_rollout() -> None:
    model = load_model("reach", dtype=torch.float32)
    z, actions = draw(1, 2, 8, 64), draw(1, 3, 4, 3, seed=1)
    with torch.no_grad():
        rolled = model._predictor.rollout(model.prime(z), actions)
        for s in range(3):
            torch.testing.assert_close(rolled[0, s], naive_rollout(model._predictor, z[0], actions[0, s]), rtol=1e-5, atol=1e-5)


def test_attention_over_shared_and_own_keys_is_one_softmax() -> None:
    q, ck, cv, ok, ov = (
        draw(6, 2, 4, 8),
        draw(3, 2, 5, 8, seed=1),
        draw(3, 2, 5, 8, seed=2),
        draw(6, 2, 7, 8, seed=3),
        draw(6, 2, 7, 8, seed=4),
    )
    k = torch.cat([ck.repeat_interleave(2, 0), ok], dim=2)
    v = torch.cat([cv.repeat_interleave(2, 0), ov], dim=2)
    expected = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    torch.testing.assert_close(attention_with_shared_context(q, ck, cv, ok, ov), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(attention(q, k, v), expected, rtol=1e-5, atol=1e-5)


def test_attention_survives_huge_scores() -> None:
    q, keys, values = draw(2, 1, 4, 8) * 1e4, draw(1, 1, 5, 8), draw(1, 1, 5, 8)
    own = draw(2, 1, 3, 8) * 1e4
    assert torch.isfinite(attention_with_shared_context(q, keys, values, own, own)).all()
    assert torch.isfinite(attention(q, own, own)).all()


@pytest.mark.usefixtures("context_keys")
def test_priming_takes_no_actions_and_is_not_written_to() -> None:
    predictor = make()
    context = predictor.prime(draw(2, T, N, D))
    before = [key.clone() for key in context.keys]
    predictor.rollout(context, draw(2, 5, 3, A))
    for key, old in zip(context.keys, before, strict=True):
        assert key.shape == (2, 1, T * N, 4), "keys are stored once per problem, not per candidate"
        assert torch.equal(key, old), "a rollout must not write into the context"


def test_observed_frames_do_not_see_later_ones() -> None:
    predictor = make()
    z = draw(1, T, N, D)
    changed = z.clone()
    changed[:, -1] += 1
    first, second = predictor.prime(z), predictor.prime(changed)
    for a, b in zip(first.keys, second.keys, strict=True):
        torch.testing.assert_close(a[:, :, :N], b[:, :, :N])
    assert not torch.allclose(first.keys[-1][:, :, N:], second.keys[-1][:, :, N:])


def test_the_older_frame_matters() -> None:
    predictor = make()
    z, actions = draw(1, T, N, D), draw(1, 1, 2, A)
    changed = z.clone()
    changed[:, 0] += 1
    assert not torch.allclose(predictor.rollout(predictor.prime(z), actions), predictor.rollout(predictor.prime(changed), actions))


def test_candidates_do_not_influence_one_another() -> None:
    predictor = make()
    context, actions = predictor.prime(draw(2, T, N, D)), draw(2, 4, 3, A)
    together = predictor.rollout(context, actions)
    changed = actions.clone()
    changed[:, 1] *= -3
    torch.testing.assert_close(predictor.rollout(context, changed)[:, [0, 2, 3]], together[:, [0, 2, 3]], rtol=1e-6, atol=1e-6)
    for s in range(4):
        torch.testing.assert_close(predictor.rollout(context, actions[:, s : s + 1])[:, 0], together[:, s], rtol=1e-5, atol=1e-5)


def test_problems_do_not_influence_one_another() -> None:
    predictor = make()
    z, actions = draw(3, T, N, D), draw(3, 4, 3, A)
    together = predictor.rollout(predictor.prime(z), actions)
    for b in range(3):
        alone = predictor.rollout(predictor.prime(z[b : b + 1]), actions[b : b + 1])
        torch.testing.assert_close(alone[0], together[b], rtol=1e-5, atol=1e-5)


def test_an_action_changes_its_own_step_and_later_ones_only() -> None:
    predictor = make()
    context, actions = predictor.prime(draw(1, T, N, D)), draw(1, 1, 4, A)
    base = predictor.rollout(context, actions)
    for h in range(4):
        changed = actions.clone()
        changed[:, :, h] += 0.5
        difference = (predictor.rollout(context, changed) - base).abs().amax((0, 1, 3, 4))
        assert torch.all(difference[:h] == 0)
        assert torch.all(difference[h:] > 0)


def test_a_longer_rollout_begins_like_a_shorter_one() -> None:
    predictor = make()
    context, actions = predictor.prime(draw(1, T, N, D)), draw(1, 2, 7, A)
    torch.testing.assert_close(predictor.rollout(context, actions)[:, :, :3], predictor.rollout(context, actions[:, :, :3]))


def test_stepping_by_hand_with_own_predictions_is_the_rollout() -> None:
    predictor = make()
    context, actions = predictor.prime(draw(2, T, N, D)), draw(2, 3, 4, A)
    rollout = predictor.start(context, actions)
    z = context.z_BND[:, None].expand(-1, 3, -1, -1)
    for h in range(4):
        z = rollout.step(z)
        assert torch.equal(z, predictor.rollout(context, actions)[:, :, h])


@pytest.mark.usefixtures("context_keys")
def test_the_gradient_with_respect_to_actions_equals_finite_differences() -> None:
    predictor = make(torch.float64)
    context = predictor.prime(draw(1, T, N, D, dtype=torch.float64))
    actions = draw(1, 2, 3, A, seed=5, dtype=torch.float64).requires_grad_()
    goal = draw(N, D, seed=6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a: (predictor.rollout(context, a)[:, :, -1] - goal).square().sum((2, 3)), (actions,), rtol=1e-6)


def test_large_contexts_are_shared_and_never_copied() -> None:
    cache = rollout_module.KeyValueCache(keys := draw(2, 1, rollout_module.COPIED_KEYS + 1, 4), draw(*keys.shape, seed=1), 3)
    q, k, v = draw(6, 1, 8, 4), draw(6, 1, N, 4, seed=2), draw(6, 1, N, 4, seed=3)
    cache.attend(q, k, v)
    cache.attend(q, k, v)
    assert [tuple(part.shape) for part in cache._own] == [(6, 1, 2 * N, 4)] * 2


def test_what_leaves_a_rollout_without_gradients_can_be_used_with_gradients() -> None:
    predictor = make()
    with torch.no_grad():
        context = predictor.prime(draw(1, T, N, D))
        rolled = predictor.rollout(context, draw(1, 2, 3, A))
    assert not rolled.is_inference()
    actions = draw(1, 2, 3, A).requires_grad_()
    (predictor.rollout(context, actions) * rolled).sum().backward()
    assert actions.grad is not None
    torch.testing.assert_close(predictor.rollout(context, actions).detach(), rolled)


def naive_coarse(p: LatentPredictor, z_TND: torch.Tensor, actions_HA: torch.Tensor, tokens: list[int], layers: int) -> torch.Tensor:
    """The naive rollout of a smaller predictor whose missing tokens were never there to be seen; observed frames are whole."""
    c = p.config
    head, group = c.width // c.heads, c.heads // c.key_heads
    context, z, predicted = p.prime(z_TND[None]), z_TND[-1, tokens], []
    keys, values = ([part[0] for part in parts] for parts in (context.keys, context.values))
    for s, action in enumerate(actions_HA):
        x = z @ p.project.T + p.token[tokens] + p.step[min(s, c.horizon - 1)]
        modulation = (p.modulate @ F.silu(p.action_in @ action + p.action_in_bias) + p.modulate_bias).reshape(c.depth, 3, c.width)
        for index in range(layers):
            block, (scale, shift, gate) = p.blocks[index], modulation[index]
            k, v, q, m = ((scale * F.layer_norm(x, (c.width,)) + shift) @ block.widen.T).split(list(block.split), dim=-1)
            k, v = (part.reshape(len(tokens), c.key_heads, head).transpose(0, 1) for part in (k / head**0.5, v))
            keys[index], values[index] = torch.cat([keys[index], k], 1), torch.cat([values[index], v], 1)
            heads = []
            for j in range(c.heads):
                scores = q[:, j * head : (j + 1) * head] @ keys[index][j // group].T
                heads.append(scores.softmax(-1) @ values[index][j // group])
            x = x + gate * (torch.cat([*heads, F.gelu(m)], -1) @ block.mix.T)
        z = z + F.layer_norm(x, (c.width,)) @ p.head.T
        predicted.append(z)
    return torch.stack(predicted)


@pytest.mark.usefixtures("context_keys")
@pytest.mark.parametrize("tokens", [[0, 1, 2], [0, 2], [1]])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_coarse_rollout_is_that_of_a_smaller_predictor(tokens: list[int], layers: int) -> None:
    predictor = make(key_heads=2)
    z, actions = draw(2, T, N, D), draw(2, 3, 4, A)
    with torch.no_grad():
        coarse = predictor.rollout(predictor.prime(z), actions, tokens=torch.tensor(tokens), layers=layers)
    assert coarse.shape == (2, 3, 4, len(tokens), D)
    for b in range(2):
        for s in range(3):
            torch.testing.assert_close(coarse[b, s], naive_coarse(predictor, z[b], actions[b, s], tokens, layers), rtol=1e-5, atol=1e-5)


def test_all_tokens_and_all_layers_are_the_full_rollout() -> None:
    predictor = make()
    context, actions = predictor.prime(draw(1, T, N, D)), draw(1, 2, 3, A)
    every = predictor.rollout(context, actions, tokens=torch.arange(N), layers=3)
    torch.testing.assert_close(every, predictor.rollout(context, actions), rtol=1e-6, atol=1e-6)


def test_contexts_are_taken_apart_and_put_together() -> None:
    context = make().prime(draw(3, T, N, D))
    again = PredictorContext.join([context.take([b]) for b in range(3)])
    for a, b in zip((*again.keys, *again.values, again.z_BND), (*context.keys, *context.values, context.z_BND), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(context.take([2, 0, 0]).z_BND, context.z_BND[[2, 0, 0]])


def test_bfloat16_stays_close_and_returns_float32() -> None:
    exact, rough = make(), make(torch.bfloat16)
    z, actions = draw(1, T, N, D), draw(1, 64, 4, A)
    a, b = exact.rollout(exact.prime(z), actions), rough.rollout(rough.prime(z), actions)
    assert b.dtype == torch.float32
    moved = (a - z[:, -1, None, None]).square().mean().sqrt()
    assert (a - b).square().mean().sqrt() < 0.03 * moved


def test_an_untrained_predictor_predicts_persistence() -> None:
    predictor = LatentPredictor(
        PredictorConfig(width=16, heads=2), num_tokens=N, dim=D, action_dim=A, generator=torch.Generator().manual_seed(0)
    )
    z = draw(1, T, N, D)
    assert torch.equal(predictor.rollout(predictor.prime(z), draw(1, 2, 3, A)), z[:, -1, None, None].expand(1, 2, 3, N, D))


def test_weights_come_from_the_generator_alone() -> None:
    def build(seed: int) -> LatentPredictor:
        return LatentPredictor(PredictorConfig(), num_tokens=N, dim=D, action_dim=A, generator=torch.Generator().manual_seed(seed))

    state = torch.get_rng_state()
    first, again, other = build(3), build(3), build(4)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is not ours to move"
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.project, other.project)


def test_persistence_repeats_the_last_frame() -> None:
    z = draw(2, T, N, D)
    control = PersistencePredictor()
    rolled = control.rollout(control.prime(z), draw(2, 3, 4, A))
    assert torch.equal(rolled, z[:, -1, None, None].expand(2, 3, 4, N, D))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 0),
        ("depth", 0),
        ("heads", 3),
        ("key_heads", 3),
        ("mlp_ratio", 0.0),
        ("mlp_ratio", float("nan")),
        ("horizon", 0),
        ("width", 10**6),
    ],
)
def test_bad_sizes_are_named(field: str, value: float) -> None:
    with pytest.raises(UserError, match=field) as caught:
        PredictorConfig(**{field: value})
    assert str(value) in str(caught.value)
