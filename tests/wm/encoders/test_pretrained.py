"""The conformance suite of pretrained encoders: every family, from a checkpoint in the true format, keeps the contract of `Encoder`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from goalward import UserError
from goalward.wm.base import Encoder
from goalward.wm.encoders import load_encoder

NAMES = ("vjepa2", "dinov2", "dinov2-registers", "dinov3", "siglip2", "siglip2-naflex")
Checkpoint = Callable[..., Path]


@pytest.fixture(params=NAMES)
def kind(request: pytest.FixtureRequest) -> str:
    """Every family in turn."""
    return str(request.param)


def load(folder: Path, options: str = "tokens=4", **others: Any) -> Any:
    return load_encoder(f"{folder}#{options}", **others)


def test_it_keeps_the_contract(kind: str, checkpoint: Checkpoint, facts: Any, pictures: Any) -> None:
    encoder = load(checkpoint(kind))
    assert isinstance(encoder, Encoder)
    assert (encoder.image_size_px, encoder.tokens_per_view, encoder.dim) == (facts[kind]["input"], 4, 48)
    assert (encoder.licence, encoder.name, encoder.family.name) == (facts[kind]["licence"], "model#tokens=4", kind)
    z = encoder.encode(pictures(3, encoder.image_size_px))
    assert (z.shape, z.dtype) == ((3, 4, 48), torch.float32)
    assert bool(torch.isfinite(z).all())
    assert float(z.std(0).mean()) > 1e-3  # other pictures, other tokens
    assert encoder.encode(pictures(0, encoder.image_size_px)).shape == (0, 4, 48)


def test_it_is_deterministic_and_nothing_moves_the_caller_s_random_numbers(kind: str, checkpoint: Checkpoint, pictures: Any) -> None:
    folder = checkpoint(kind)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, two = load(folder), load(folder)
    x = pictures(2, one.image_size_px)
    assert torch.equal(one.encode(x), two.encode(torch.from_numpy(x)))
    assert torch.equal(one.encode(x), one.encode(x))
    assert one.fingerprint == two.fingerprint
    assert torch.equal(torch.get_rng_state(), before)


def test_it_is_frozen(kind: str, checkpoint: Checkpoint, pictures: Any) -> None:
    encoder = load(checkpoint(kind))
    before = encoder.state_dict()
    assert not encoder.encode(pictures(2, encoder.image_size_px)).requires_grad
    after = encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    before[next(iter(before))].zero_()  # a copy
    assert any(bool(value.any()) for value in encoder.state_dict().values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_frame_has_the_same_bits_in_any_batch(kind: str, checkpoint: Checkpoint, pictures: Any, dtype: torch.dtype) -> None:
    encoder = load(checkpoint(kind), dtype=dtype)
    x = pictures(5, encoder.image_size_px)
    together = encoder.encode(x)
    for index in (0, 2, 4):
        assert torch.equal(encoder.encode(x[index : index + 1])[0], together[index])
    assert torch.equal(encoder.encode(x[3:1:-1]), together[[3, 2]])


def test_bfloat16_is_close_to_float32(kind: str, checkpoint: Checkpoint, pictures: Any) -> None:
    folder = checkpoint(kind)
    exact, quick = load(folder, dtype=torch.float32), load(folder, dtype=torch.bfloat16)
    x = pictures(2, exact.image_size_px)
    z, rough = exact.encode(x), quick.encode(x)
    assert float((z - rough).norm() / z.norm()) < 0.05
    assert exact.fingerprint == quick.fingerprint


def test_tokens_are_chosen(kind: str, checkpoint: Checkpoint, pictures: Any) -> None:
    folder = checkpoint(kind)
    whole = load(folder, "tokens=all", dtype=torch.float32)
    x = pictures(2, whole.image_size_px)
    z_MGD = whole.encode(x)
    assert z_MGD.shape == (2, 16, 48) == (2, whole.tokens_per_view, 48)
    assert torch.equal(load_encoder(folder, dtype=torch.float32).encode(x), z_MGD)  # sixteen is the default
    blocks = z_MGD.reshape(2, 2, 2, 2, 2, 48).mean((2, 4)).reshape(2, 4, 48)
    assert torch.allclose(load(folder, "tokens=4", dtype=torch.float32).encode(x), blocks, atol=1e-6)
    assert torch.allclose(load(folder, "tokens=1", dtype=torch.float32).encode(x)[:, 0], z_MGD.mean(1), atol=1e-6)
    with pytest.raises(UserError, match=r"tokens = 25: the network has 4 x 4 patches; must be a square number up to 16"):
        load(folder, "tokens=25")


def test_layer_norm_is_that_of_v_jepa_2_ac(kind: str, checkpoint: Checkpoint, pictures: Any) -> None:
    folder = checkpoint(kind)
    plain, normed = load(folder, "tokens=all", dtype=torch.float32), load(folder, "tokens=all,norm=layer", dtype=torch.float32)
    x = pictures(2, plain.image_size_px)
    assert torch.allclose(normed.encode(x), torch.nn.functional.layer_norm(plain.encode(x), (48,)), atol=1e-6)
    assert plain.fingerprint != normed.fingerprint


def test_frames_of_another_size_are_refused_or_resized(kind: str, checkpoint: Checkpoint, pictures: Any) -> None:
    folder = checkpoint(kind)
    encoder = load(folder)
    size = encoder.image_size_px
    with pytest.raises(UserError, match=rf"takes \[M, {size}, {size}, 3\].*#frame="):
        encoder.encode(pictures(1, size + 8))
    with pytest.raises(UserError, match="float32: must be uint8"):
        encoder.encode(torch.zeros(1, size, size, 3))
    with pytest.raises(UserError, match="shape"):
        encoder.encode(pictures(1, size)[0])
    other = load(folder, "tokens=4,frame=96")
    assert other.image_size_px == 96
    assert other.encode(pictures(1, 96)).shape == (1, 4, 48)
    assert other.fingerprint != encoder.fingerprint


def test_the_network_may_see_a_smaller_picture(kind: str, checkpoint: Checkpoint, facts: Any, pictures: Any) -> None:
    folder, patch = checkpoint(kind), facts[kind]["input"] // facts[kind]["grid"]
    half = load(folder, f"tokens=all,input={2 * patch}")
    assert (half.grid, half.image_size_px, half.tokens_per_view) == (2, 2 * patch, 4)
    assert half.encode(pictures(1, 2 * patch)).shape == (1, 4, 48)
    with pytest.raises(UserError, match=rf"input = {2 * patch + 1}: must be a multiple of the network's patches of {patch} px"):
        load(folder, f"input={2 * patch + 1}")


def test_the_fingerprint_tells_everything_apart_that_changes_latents(kind: str, checkpoint: Checkpoint, facts: Any) -> None:
    folder, patch = checkpoint(kind), facts[kind]["input"] // facts[kind]["grid"]
    options = ("tokens=4", "tokens=1", "tokens=all", "tokens=4,norm=layer", "tokens=4,frame=96", f"tokens=4,input={2 * patch}")
    prints = [load(folder, option).fingerprint for option in options]
    assert len(set(prints)) == len(prints)
    assert all(len(value) == 64 and set(value) <= set("0123456789abcdef") for value in prints)
    whole = load(folder, "tokens=4,fit=whole").fingerprint
    assert (whole == prints[0]) == (facts[kind]["input"] == load(folder).preprocessing.resize_px)


def test_compiled_it_says_the_same(checkpoint: Checkpoint, pictures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: made.append(options) or function)
    folder = checkpoint("dinov2")
    compiled, plain = load(folder, compiled=True), load(folder)
    assert made == [{"dynamic": False}]
    x = pictures(2, plain.image_size_px)
    assert torch.equal(compiled.encode(x), plain.encode(x))


def test_read_only_frames_are_taken(checkpoint: Checkpoint, pictures: Any) -> None:
    encoder = load(checkpoint("dinov3"))
    x = pictures(2, encoder.image_size_px)
    x.flags.writeable = False
    assert torch.equal(encoder.encode(x), encoder.encode(np.array(x)))
