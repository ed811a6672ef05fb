"""What is predicted for a problem must not depend on the batch it came in, to the bit, on a CPU; checked with one, two and three threads.

Three, because ranges shared out among three threads end in the middle of a vector, where elementwise functions round differently.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goalward.wm import rollout as rollout_module
from goalward.wm.invariance import parts_of_batch
from goalward.wm.model import WorldModel, load_model
from goalward.wm.predictor import LatentPredictor, PredictorConfig, PredictorContext

CPU = torch.device("cpu")
DTYPES = [torch.bfloat16, torch.float32]


@pytest.fixture(scope="module", params=DTYPES, ids=["bfloat16", "float32"])
def shipped(request: pytest.FixtureRequest) -> WorldModel:
    return load_model("reach", dtype=request.param)


@pytest.fixture(params=[1, 2, 3], ids=lambda count: f"threads{count}", autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def latents(model: WorldModel, problems: int) -> torch.Tensor:
    d = model.description
    return draw(problems, model.context_frames, d.num_tokens, d.dim)


def equal(a: PredictorContext, b: PredictorContext) -> bool:
    pairs = zip((*a.keys, *a.values, a.z_BND), (*b.keys, *b.values, b.z_BND), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("problems", [2, 3, 9])
def test_priming_the_shipped_model(shipped: WorldModel, problems: int) -> None:
    z = latents(shipped, problems)
    context = shipped.prime(z)
    assert context.num_problems == problems
    for b in range(problems):
        assert equal(context.take([b]), shipped.prime(z[b : b + 1]))


@pytest.mark.parametrize("candidates", [1, 3, 7, 64, pytest.param(256, marks=pytest.mark.slow)])
def test_rollouts_of_the_shipped_model(shipped: WorldModel, candidates: int) -> None:
    z, actions = latents(shipped, 5), 0.03 * draw(5, candidates, 2, 3, seed=1)
    order = torch.randperm(candidates, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        alone = torch.cat([shipped.rollout(shipped.prime(z[b : b + 1]), actions[b : b + 1]) for b in range(5)])
        for problems in (1, 2, 5):
            context = shipped.prime(z[:problems])
            rolled = shipped.rollout(context, actions[:problems])
            assert torch.equal(rolled, alone[:problems]), f"{problems} problems"
            if shipped.dtype is torch.bfloat16 or candidates >= 64:  # MKL's small float32 products round by the place of a row
                assert torch.equal(shipped.rollout(context, actions[:problems, order]), rolled[:, order]), f"{problems} problems, permuted"


@pytest.mark.parametrize("candidates", [1, 4, 16])
def test_gradients_of_the_shipped_model(shipped: WorldModel, candidates: int) -> None:
    z, actions = latents(shipped, 3), 0.03 * draw(3, candidates, 2, 3, seed=1)

    def gradient(chosen: slice) -> torch.Tensor:
        leaf = actions[chosen].clone().requires_grad_()
        shipped.rollout(shipped.prime(z[chosen]), leaf).square().mean((2, 3, 4)).sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    alone = torch.cat([gradient(slice(b, b + 1)) for b in range(3)])
    for problems in (2, 3):
        assert torch.equal(gradient(slice(0, problems)), alone[:problems])


@pytest.mark.parametrize("problems", [1, 2, 3])
def test_encoding_with_the_shipped_model(shipped: WorldModel, problems: int) -> None:
    size = shipped.image_size_px
    pixels = torch.randint(0, 256, (3, 2, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    together = shipped.encode(pixels[:problems])
    for b in range(problems):
        assert torch.equal(shipped.encode(pixels[b : b + 1])[0], together[b])


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    problems=st.integers(1, 5),
    candidates=st.integers(1, 12),
    horizon=st.integers(1, 3),
    tokens=st.sampled_from([1, 2, 3, 4, 7, 8]),
    width=st.sampled_from([8, 24, 32, 64]),
    dim=st.sampled_from([5, 8, 32]),
    grad=st.booleans(),
    copied_keys=st.sampled_from([0, 1000]),
    seed=st.integers(0, 99),
)
def test_any_predictor(
    dtype: torch.dtype,
    problems: int,
    candidates: int,
    horizon: int,
    tokens: int,
    width: int,
    dim: int,
    grad: bool,
    copied_keys: int,
    seed: int,
) -> None:
    """The rule of the model, applied to predictors of any size."""
    generator = torch.Generator().manual_seed(seed)
    config = PredictorConfig(width=width, depth=2, heads=2, horizon=2)
    predictor = LatentPredictor(config, num_tokens=tokens, dim=dim, action_dim=2, generator=generator)
    with torch.no_grad():
        predictor.head.normal_(std=0.3, generator=generator)
    predictor.to(dtype).requires_grad_(False)
    z, actions = draw(problems, 2, tokens, dim, seed=seed), draw(problems, candidates, horizon, 2, seed=seed + 1)

    def parts(count: int, rows: int) -> list[list[int]]:
        return parts_of_batch(count, rows, predictor.widths, device=CPU, dtype=dtype) or [list(range(count))]

    def predicted(chosen: slice) -> torch.Tensor:
        some_z, leaf = z[chosen], actions[chosen].clone().requires_grad_(grad)
        count = len(some_z)
        with torch.set_grad_enabled(grad):
            context = PredictorContext.join([predictor.prime(some_z[part]) for part in parts(count, 2 * tokens)])
            rolled = torch.cat([predictor.rollout(context.take(p), leaf[p]) for p in parts(count, candidates * tokens)])[:count]
            return torch.autograd.grad(rolled.square().sum(), leaf)[0] if grad else rolled

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollout_module, "COPIED_KEYS", copied_keys)
        together = predicted(slice(None))
        for b in range(problems):
            assert torch.equal(predicted(slice(b, b + 1))[0], together[b])


@pytest.mark.parametrize(("problems", "rows"), [*itertools.product([1, 2, 5, 40], [0, 1, 8, 48, 63, 64, 500])])
def test_parts_hold_every_problem_once_and_are_small(problems: int, rows: int) -> None:
    for dtype in (*DTYPES, torch.float64):
        parts = parts_of_batch(problems, rows, (64, 256), device=CPU, dtype=dtype) or [list(range(problems))]
        assert list(itertools.chain(*parts))[:problems] == list(range(problems))
        for part in parts:
            assert len(part) == 1 or rows < 64
            assert len(part) == 1 or len(part) * rows * 256 <= 32768, "no elementwise function is shared out among threads"
            assert dtype is torch.bfloat16 or len(part) == 1 or len(part) * rows == 64, "one size in float32"


def test_odd_widths_are_not_trusted() -> None:
    assert parts_of_batch(3, 8, (64, 5), device=CPU, dtype=torch.bfloat16) == [[0], [1], [2]]


def test_other_devices_and_no_problems_are_left_alone() -> None:
    assert parts_of_batch(5, 8, (256,), device=torch.device("cuda"), dtype=torch.float32) is None
    assert parts_of_batch(0, 8, (256,), device=CPU, dtype=torch.float32) is None
