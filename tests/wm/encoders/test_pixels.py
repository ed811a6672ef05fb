"""Pixels as latents: area averages, computed by hand; the same in any batch; an encoder like every other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from goalward import UserError
from goalward.wm.base import Encoder
from goalward.wm.encoders import PixelEncoder, PixelEncoderConfig, load_encoder


def frames(count: int, size: int = 128, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def by_hand(picture: np.ndarray, *, side: int, grid: int) -> np.ndarray:
    """Tokens [N, D] of one frame, entry by entry."""
    block, inside = len(picture) // side, side // grid
    tokens = np.empty((grid * grid, 3 * inside * inside))
    for row in range(side):
        for column in range(side):
            for colour in range(3):
                mean = picture[block * row : block * (row + 1), block * column : block * (column + 1), colour].mean()
                token = grid * (row // inside) + column // inside
                tokens[token, 3 * (inside * (row % inside) + column % inside) + colour] = mean / 127.5 - 1
    return tokens


@settings(max_examples=30, deadline=None)
@given(
    shape=st.sampled_from([(8, 4, 2), (8, 8, 2), (8, 2, 1), (12, 6, 3), (6, 6, 6), (128, 16, 2)]),
    seed=st.integers(0, 2**31),
)
def test_tokens_are_the_area_averages_of_their_square(shape: tuple[int, int, int], seed: int) -> None:
    size, side, grid = shape
    encoder = PixelEncoder(PixelEncoderConfig(image_size_px=size, side_px=side, grid=grid))
    pictures = frames(2, size, seed)
    z = encoder.encode(pictures)
    assert z.shape == (2, encoder.tokens_per_view, encoder.dim)
    assert z.dtype == torch.float32
    for picture, tokens in zip(pictures, z, strict=True):
        np.testing.assert_allclose(tokens.numpy(), by_hand(picture, side=side, grid=grid), atol=1e-6)


def test_black_and_white_are_the_ends() -> None:
    encoder = PixelEncoder()
    pictures = np.stack([np.zeros((128, 128, 3), np.uint8), np.full((128, 128, 3), 255, np.uint8)])
    assert encoder.encode(pictures).unique().tolist() == [-1.0, 1.0]


def test_a_frame_does_not_depend_on_the_batch() -> None:
    encoder, pictures = PixelEncoder(), frames(70)
    together = encoder.encode(torch.from_numpy(pictures))
    for index in (0, 63, 64, 69):
        assert torch.equal(encoder.encode(pictures[index : index + 1])[0], together[index])
    assert encoder.encode(pictures[:0]).shape == (0, 4, 192)


def test_it_is_found_by_name_and_has_as_many_tokens_as_the_embedded_encoder() -> None:
    encoder, embedded = load_encoder("pixels"), load_encoder("goalward-small")
    assert isinstance(encoder, Encoder)
    assert (encoder.name, encoder.licence) == ("pixels", "Apache-2.0")
    assert (encoder.tokens_per_view, encoder.image_size_px) == (embedded.tokens_per_view, embedded.image_size_px)


def test_fingerprints_tell_other_averages_apart() -> None:
    configs = [PixelEncoderConfig(), PixelEncoderConfig(side_px=8), PixelEncoderConfig(grid=4), PixelEncoderConfig(image_size_px=64)]
    assert len({PixelEncoder(config).fingerprint for config in configs}) == 4
    assert PixelEncoder().fingerprint == load_encoder("pixels").fingerprint


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"image_size_px": 0}, "image_size_px"),
        ({"side_px": 3}, "side_px"),
        ({"side_px": 0}, "side_px"),
        ({"side_px": 256}, "side_px"),
        ({"grid": 3}, "grid"),
        ({"grid": 0}, "grid"),
        ({"grid": 32}, "grid"),
    ],
)
def test_bad_configurations_name_the_field(changes: dict[str, int], field: str) -> None:
    with pytest.raises(UserError, match=field):
        PixelEncoderConfig(**changes)


def test_frames_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="float32: must be uint8"):
        PixelEncoder().encode(torch.zeros(1, 128, 128, 3))
    with pytest.raises(UserError, match=r"takes \[M, 128, 128, 3\]"):
        PixelEncoder().encode(frames(1, 64))
    with pytest.raises(UserError, match="shape"):
        PixelEncoder().encode(frames(1)[0])
