"""The decoder: pictures from tokens, the same in any batch, with gradients; its folder is written whole and believed in nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from goalward import UserError
from goalward.wm.checkpoint import json_checksum
from goalward.wm.decoder import Decoder, DecoderConfig, DecoderNetwork
from goalward.wm.decoder_folder import DECODER_JSON, DECODER_TENSORS, forget_decoder, read_decoder, save_decoder
from goalward.wm.encoders import SmallEncoderConfig, SmallEncoderNetwork

TINY = DecoderConfig(image_size_px=32, dim=6, widths=(16, 8, 8), blocks=(1, 0, 1))
OWNER = "ab" * 32


def network(config: DecoderConfig = TINY, seed: int = 0) -> DecoderNetwork:
    return DecoderNetwork(config, torch.Generator().manual_seed(seed))


def tokens(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def decoder() -> Decoder:
    return Decoder(network(), encoder=OWNER, dtype=torch.float32)


def test_two_frames_are_learnt_by_heart_through_encoder_and_decoder() -> None:
    generator = torch.Generator().manual_seed(0)
    encoder = SmallEncoderNetwork(SmallEncoderConfig(image_size_px=32, widths=(8, 16, 32), blocks=(0, 0, 1), dim=16), generator)
    decode = DecoderNetwork(DecoderConfig(image_size_px=32, dim=16, widths=(32, 16, 8), blocks=(0, 0, 0)), generator)
    frames = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    frames[0, 4:14, 6:20] = torch.tensor([220, 40, 90], dtype=torch.uint8)
    frames[1, 18:30, 10:16] = torch.tensor([30, 200, 250], dtype=torch.uint8)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decode.parameters()], lr=1e-2)
    for _ in range(200):
        loss = (decode(encoder(frames)) - frames / 255).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seen = Decoder(decode, encoder=OWNER, dtype=torch.float32).decode(encoder(frames).detach())[:, 0]
    assert float((seen - frames / 255).square().mean()) < 3e-3
    # Where each square was, nowhere else: the other frame's picture is far.
    assert float((seen - frames.flip(0) / 255).square().mean()) > 20 * float((seen - frames / 255).square().mean())


def test_views_become_pictures_of_the_encoder_s_size(decoder: Decoder) -> None:
    z = tokens(3, 2, 8, 6)
    pictures = decoder.decode(z)
    assert pictures.shape == (3, 2, 2, 32, 32, 3)
    assert pictures.dtype == torch.float32
    alone = decoder.decode(z[1, 0, 4:])
    assert torch.equal(alone[0], pictures[1, 0, 1])  # tokens 4 to 7 are the second view


def test_tokens_lie_where_the_encoder_cuts_them(decoder: Decoder) -> None:
    """Token 1 is the upper right quadrant: without blocks that look around, it changes nothing else."""
    plain = Decoder(network(DecoderConfig(image_size_px=32, dim=6, widths=(8, 8, 8), blocks=(0, 0, 0))), encoder=OWNER, dtype=torch.float32)
    z = tokens(4, 6)
    changed = z.clone()
    changed[1] += 1
    difference = (plain.decode(changed) - plain.decode(z))[0].abs().sum(-1)
    assert bool((difference[:16, 16:] > 0).any())
    difference[:16, 16:] = 0
    assert float(difference.max()) == 0


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [TINY, DecoderConfig()])
def test_a_picture_does_not_depend_on_the_batch_to_the_last_bit(config: DecoderConfig, dtype: torch.dtype, threads: int) -> None:
    decoder = Decoder(network(config), encoder=OWNER, dtype=dtype)
    z = tokens(7, 4, config.dim)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = decoder.decode(z)
        for index in range(7):
            assert torch.equal(decoder.decode(z[index].clone()), together[index])
        assert torch.equal(decoder.decode(z.flip(0)), together.flip(0))
    finally:
        torch.set_num_threads(before)
    assert decoder.decode(z[:0]).shape == (0, 1, config.image_size_px, config.image_size_px, 3)


def test_gradients_reach_the_tokens_and_are_those_of_the_network(decoder: Decoder) -> None:
    z, direction = tokens(5, 4, 6).requires_grad_(), tokens(5, 4, 6, seed=2)
    decoder.decode(z).square().mean().backward()
    assert z.grad is not None
    step = 1e-2
    with torch.no_grad():
        ahead, behind = (float(decoder.decode(z + sign * step * direction).square().double().mean()) for sign in (1, -1))
    assert float((z.grad * direction).sum()) == pytest.approx((ahead - behind) / (2 * step), rel=0.02)
    assert all(not value.requires_grad for value in decoder._network.parameters())


def test_equal_seeds_give_equal_decoders_and_leave_global_randomness_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = (Decoder(network(seed=seed), encoder=OWNER) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert Decoder(network(seed=1), encoder="cd" * 32).fingerprint != first.fingerprint
    assert first.num_parameters == sum(value.numel() for value in first.state_dict().values())


@pytest.mark.parametrize("shape", [(3, 6), (4, 5), (0, 6), (6,)])
def test_tokens_that_do_not_fit_are_refused(decoder: Decoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"takes \[..., views x 4, 6\]"):
        decoder.decode(torch.zeros(shape))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"image_size_px": 48}, "image_size_px"),
        ({"dim": 0}, "dim"),
        ({"widths": (16, 8)}, "widths"),
        ({"widths": (16, 8, 12)}, "widths"),
        ({"blocks": (1, 1)}, "blocks"),
        ({"blocks": (1, -1, 1)}, "blocks"),
    ],
)
def test_bad_configurations_name_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(UserError, match=field):
        DecoderConfig(**changes)


def test_round_trip(decoder: Decoder, tmp_path: Path) -> None:
    assert read_decoder(tmp_path, encoder=OWNER) is None
    save_decoder(tmp_path, decoder)
    loaded = read_decoder(tmp_path, encoder=OWNER, dtype=torch.float32)
    assert loaded is not None
    assert (loaded.config, loaded.fingerprint) == (TINY, decoder.fingerprint)
    z = tokens(2, 4, 6)
    assert torch.equal(loaded.decode(z), decoder.decode(z))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    save_decoder(tmp_path, decoder)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    forget_decoder(tmp_path)
    forget_decoder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def edit(folder: Path, *, sign: bool = False, **changes: Any) -> None:
    body = json.loads((folder / DECODER_JSON).read_text()) | changes
    if sign:
        body["checksum"] = json_checksum(body)
    (folder / DECODER_JSON).write_text(json.dumps(body))


@pytest.mark.parametrize("at", [0, 9, 200, -1])
def test_a_flipped_bit_of_the_weights_is_noticed(decoder: Decoder, tmp_path: Path, at: int) -> None:
    save_decoder(tmp_path, decoder)
    damaged = bytearray((tmp_path / DECODER_TENSORS).read_bytes())
    damaged[at] ^= 4
    (tmp_path / DECODER_TENSORS).write_bytes(bytes(damaged))
    with pytest.raises(UserError, match=r"damaged decoder: .*SHA-256"):
        read_decoder(tmp_path, encoder=OWNER)


def test_every_fault_is_reported_at_once_in_one_line(decoder: Decoder, tmp_path: Path) -> None:
    save_decoder(tmp_path, decoder)
    tensors = load_file(tmp_path / DECODER_TENSORS)
    tensors["split.bias"] = tensors["split.bias"][:-1].clone()
    tensors["head.bias"][0] = float("nan")
    tensors["spare"] = torch.zeros(1)
    del tensors["position"]
    save_file(tensors, tmp_path / DECODER_TENSORS)
    with pytest.raises(UserError) as caught:
        read_decoder(tmp_path, encoder="ef" * 32)
    message = str(caught.value)
    for part in ("SHA-256", "trained with encoder", "position is missing", "spare is unknown", "split.bias is", "head.bias contains"):
        assert part in message
    assert "\n" not in message
    assert "goalward pretrain" in message


@pytest.mark.parametrize(
    ("changes", "sign", "said"),
    [
        ({"encoder": "ef" * 32}, False, "checksum"),
        ({"encoder": "ef" * 32}, True, "trained with encoder efef"),
        ({"schema": 2}, True, "schema 1"),
        ({"format": "other"}, True, "not the description of a decoder"),
        ({"config": {"dim": 6}}, True, "config.widths is missing"),
        ({"config": {"image_size_px": 33, "dim": 6, "widths": [16, 8, 8], "blocks": [1, 0, 1]}}, True, "image_size_px = 33"),
        ({"config": {"image_size_px": 32, "dim": 6, "widths": [16, 8, 8], "blocks": [1, 0, "1"]}}, True, "blocks"),
        ({"spare": 1}, True, "spare is unknown"),
    ],
)
def test_a_changed_description_is_noticed(decoder: Decoder, tmp_path: Path, changes: dict[str, Any], sign: bool, said: str) -> None:
    save_decoder(tmp_path, decoder)
    edit(tmp_path, sign=sign, **changes)
    with pytest.raises(UserError, match=said):
        read_decoder(tmp_path, encoder=OWNER)


def test_missing_or_broken_files_are_one_line(decoder: Decoder, tmp_path: Path) -> None:
    save_decoder(tmp_path, decoder)
    (tmp_path / DECODER_TENSORS).unlink()
    with pytest.raises(UserError, match=r"decoder\.safetensors is missing"):
        read_decoder(tmp_path, encoder=OWNER)
    (tmp_path / DECODER_JSON).write_text("{")
    with pytest.raises(UserError, match=DECODER_JSON):
        read_decoder(tmp_path, encoder=OWNER)
