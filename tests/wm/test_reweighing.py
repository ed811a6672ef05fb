"""Reweighing: what proprioception does not explain counts more; the map folds into the encoder and changes nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from goalward import UserError
from goalward.wm.encoders import SmallEncoder, SmallEncoderConfig, SmallEncoderNetwork
from goalward.wm.reweighing import ReweighConfig, find_reweighing, reweighed

FRAMES, TOKENS, DIM = 1200, 2, 6
QUICK = ReweighConfig(steps=400)


def scene(seed: int = 0, object_size: float = 0.2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents in which an arm's position is large and an object's small, each in directions of its own; the arm's sensors; the object."""
    generator = torch.Generator().manual_seed(seed)
    arm_FP, object_F2 = (torch.rand(FRAMES, 2, generator=generator) * 2 - 1 for _ in range(2))
    mixing = torch.linalg.qr(torch.randn(DIM, DIM, generator=generator))[0]
    parts = torch.cat([arm_FP, (3 * arm_FP).sin(), object_size * object_F2], dim=1)
    return (parts @ mixing)[:, None].expand(-1, TOKENS, -1).contiguous(), arm_FP, object_F2


def object_share(z_FND: torch.Tensor, object_F2: torch.Tensor) -> float:
    """Share of the latents' variance that is linear in the object."""
    z = (z_FND - z_FND.mean(0)).flatten(1)
    x = object_F2 - object_F2.mean(0)
    seen = x @ torch.linalg.lstsq(x, z).solution
    return float(seen.square().sum() / z.square().sum())


def test_a_small_object_counts_more() -> None:
    z_FND, arm_FP, object_F2 = scene()
    found = find_reweighing(QUICK, z_FND, arm_FP)
    before, after = object_share(z_FND, object_F2), object_share(z_FND @ found.map_DD.T, object_F2)
    assert before < 0.05
    assert after > 0.5
    assert found.explained > 0.9
    assert found.gain > 5


def test_power_zero_whitens_what_the_arm_explains() -> None:
    z_FND, arm_FP, _ = scene(object_size=0.0)
    z_FND = z_FND + 1e-3 * torch.randn(z_FND.shape, generator=torch.Generator().manual_seed(1))
    found = find_reweighing(ReweighConfig(steps=800, power=0.0, floor=1e-6), z_FND, arm_FP)
    mapped = (z_FND - z_FND.mean(0)) @ found.map_DD.T
    values = torch.linalg.eigvalsh(torch.einsum("fnd,fne->de", mapped, mapped) / FRAMES / TOKENS)
    assert float(values[-4:].max() / values[-4:].min()) < 1.5  # the arm moves in four directions, by very different amounts before
    plain = z_FND - z_FND.mean(0)
    before = torch.linalg.eigvalsh(torch.einsum("fnd,fne->de", plain, plain) / FRAMES / TOKENS)
    assert float(before[-4:].max() / before[-4:].min()) > 1.7


def test_same_seed_same_map_and_nobody_elses_random_numbers() -> None:
    z_FND, arm_FP, _ = scene()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    first, second = (find_reweighing(ReweighConfig(steps=20), z_FND, arm_FP).map_DD for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, second)
    assert not torch.equal(first, find_reweighing(ReweighConfig(steps=20, seed=1), z_FND, arm_FP).map_DD)


def test_constant_sensors_are_left_out() -> None:
    z_FND, arm_FP, _ = scene()
    padded = torch.cat([arm_FP, torch.full((FRAMES, 1), 7.0)], dim=1)
    config = ReweighConfig(steps=20)
    assert torch.equal(find_reweighing(config, z_FND, padded).map_DD, find_reweighing(config, z_FND, arm_FP).map_DD)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), name=st.text("abc-", min_size=1, max_size=9))
def test_folding_is_mapping_the_tokens(seed: int, name: str) -> None:
    shape = SmallEncoderConfig(image_size_px=32, widths=(8, 8, 8), blocks=(0, 0, 0), dim=DIM)
    generator = torch.Generator().manual_seed(seed)
    encoder = SmallEncoder(SmallEncoderNetwork(shape, generator))
    map_DD = torch.randn(DIM, DIM, generator=generator)
    folded = reweighed(encoder, map_DD, name=name)
    frames = np.random.default_rng(seed).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    expected = encoder.encode(frames) @ map_DD.T
    assert torch.allclose(folded.encode(frames), expected, atol=0.02 * float(expected.abs().max()))  # bfloat16 where the machine has it
    assert folded.name == name
    assert folded.fingerprint != encoder.fingerprint


@pytest.mark.parametrize(
    ("field", "value"),
    [("power", -0.1), ("power", 2.1), ("power", float("nan")), ("floor", 0.0), ("floor", 2.0), ("steps", 0), ("learning_rate", 0.0)],
)
def test_a_wrong_setting_is_named(field: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{field} is .*must lie in"):
        ReweighConfig(**{field: value})


def test_too_few_frames_and_nothing_that_moves() -> None:
    z_FND, arm_FP, _ = scene()
    with pytest.raises(UserError, match="1000 frames are too few to reweigh by; 1024 at least"):
        find_reweighing(QUICK, z_FND[:1000], arm_FP[:1000])
    with pytest.raises(UserError, match="neither proprioception nor latents may be constant"):
        find_reweighing(QUICK, z_FND, torch.zeros_like(arm_FP))
    with pytest.raises(UserError, match="neither proprioception nor latents may be constant"):
        find_reweighing(QUICK, torch.zeros_like(z_FND), arm_FP)
