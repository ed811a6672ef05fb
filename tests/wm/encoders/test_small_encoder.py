import json

import numpy as np
import pytest
import torch

from goalward import UserError
from goalward.wm.base import Encoder
from goalward.wm.encoders import ENCODERS, SmallEncoder, SmallEncoderConfig, SmallEncoderNetwork, load_encoder, save_small_encoder
from goalward.wm.encoders.small import fingerprint_of

TINY = SmallEncoderConfig(image_size_px=32, widths=(8, 16, 24), blocks=(1, 0, 1), dim=6)


def network(config: SmallEncoderConfig = TINY, seed: int = 0) -> SmallEncoderNetwork:
    made = SmallEncoderNetwork(config, torch.Generator().manual_seed(seed))
    with torch.no_grad():  # residual branches and offsets start at zero; make every tensor matter
        for value in made.parameters():
            value.add_(0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(seed + 1)))
    return made


def frames(count: int, size: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_it_satisfies_the_encoder_protocol() -> None:
    encoder = SmallEncoder(network())
    assert isinstance(encoder, Encoder)
    assert (encoder.image_size_px, encoder.tokens_per_view, encoder.dim) == (32, 4, 6)
    assert encoder.licence == "Apache-2.0"


@pytest.mark.parametrize("size", [32, 64, 96, 128])
def test_every_allowed_size_gives_four_tokens(size: int) -> None:
    config = SmallEncoderConfig(image_size_px=size, widths=(8, 8, 8), blocks=(0, 0, 1), dim=5)
    z = SmallEncoder(network(config)).encode(frames(3, size))
    assert z.shape == (3, 4, 5)
    assert z.dtype == torch.float32
    assert not z.requires_grad
    assert torch.isfinite(z).all()


@pytest.mark.parametrize("config", [TINY, SmallEncoderConfig()])
def test_a_frame_has_the_same_latents_in_any_batch_bit_for_bit(config: SmallEncoderConfig) -> None:
    encoder, x = SmallEncoder(network(config)), frames(7, config.image_size_px)
    together = encoder.encode(x)
    for index in range(7):
        assert torch.equal(encoder.encode(x[index : index + 1])[0], together[index])
    assert torch.equal(encoder.encode(x[::-1].copy()).flip(0), together)
    assert torch.equal(encoder.encode(x), together)


def test_numpy_and_torch_frames_agree_whatever_their_memory_layout() -> None:
    encoder, x = SmallEncoder(network()), frames(4)
    z = encoder.encode(x)
    assert torch.equal(encoder.encode(torch.from_numpy(x)), z)
    assert torch.equal(encoder.encode(np.asfortranarray(x)), z)
    x.flags.writeable = False
    assert torch.equal(encoder.encode(x), z)
    assert torch.equal(encoder.encode(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).permute(0, 2, 3, 1)), z)


def test_no_frames_give_no_latents() -> None:
    assert SmallEncoder(network()).encode(frames(0)).shape == (0, 4, 6)


def test_tokens_are_the_quadrants_row_by_row() -> None:
    # Without residual blocks no kernel reaches across quadrants, except through the per-frame normalisation, which blocks hold.
    encoder = SmallEncoder(network(SmallEncoderConfig(image_size_px=32, widths=(8, 8, 8), blocks=(0, 0, 0), dim=5)))
    x = frames(1)
    for token, (row, column) in enumerate([(0, 0), (0, 16), (16, 0), (16, 16)]):
        changed = x.copy()
        changed[0, row : row + 16, column : column + 16] ^= 0x55
        moved = (encoder.encode(changed) != encoder.encode(x))[0].any(-1)
        assert moved.tolist() == [index == token for index in range(4)]


def test_training_the_source_network_leaves_the_encoder_unchanged() -> None:
    source = network()
    encoder, x = SmallEncoder(source), frames(2)
    before, print_before = encoder.encode(x), encoder.fingerprint
    optimizer = torch.optim.SGD(source.parameters(), lr=1.0)
    source(torch.from_numpy(x)).square().mean().backward()
    optimizer.step()
    assert torch.equal(encoder.encode(x), before)
    assert fingerprint_of(encoder.network()) == print_before
    assert fingerprint_of(source) != print_before


def test_copies_that_leave_the_encoder_cannot_change_it() -> None:
    encoder = SmallEncoder(network())
    for value in [*encoder.state_dict().values(), *encoder.network().state_dict().values()]:
        value.zero_()
    assert fingerprint_of(encoder.network()) == encoder.fingerprint


def test_making_a_network_leaves_the_global_generator_alone_and_is_reproducible() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again = network(seed=3), network(seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert fingerprint_of(first) == fingerprint_of(again)
    assert fingerprint_of(first) != fingerprint_of(network(seed=4))


def test_the_fingerprint_covers_every_weight() -> None:
    base = fingerprint_of(network())

    def base_rank(name: str) -> int:
        return network().get_parameter(name).ndim

    for name in network().state_dict():
        changed = network()
        with torch.no_grad():
            changed.get_parameter(name)[(0,) * base_rank(name)] += 1e-3
        assert fingerprint_of(changed) != base, name


def test_blocks_are_the_identity_at_first() -> None:
    plain = SmallEncoderNetwork(TINY)
    x = torch.randn(2, 8, 8, 8)
    assert torch.equal(plain.stage1(x), x)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((2, 32, 32, 3), np.float32), ["dtype float32", "uint8"]),
        (np.zeros((2, 64, 64, 3), np.uint8), ["(2, 64, 64, 3)", "[M, 32, 32, 3]", "image_size_px=32"]),
        (np.zeros((32, 32, 3), np.uint8), ["(32, 32, 3)"]),
        (np.zeros((2, 3, 32, 32), np.uint8), ["(2, 3, 32, 32)"]),
        (np.zeros((1, 2, 32, 32, 3), np.uint8), ["(1, 2, 32, 32, 3)"]),
        (np.zeros((2, 32, 32, 4), np.uint8), ["(2, 32, 32, 4)"]),
    ],
)
def test_other_frames_are_refused_in_one_line(x: np.ndarray, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        SmallEncoder(network()).encode(x)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_size_px", 0),
        ("image_size_px", 100),
        ("image_size_px", 4096),
        ("widths", (8, 16)),
        ("widths", (8, 16, 20)),
        ("blocks", (1, 1)),
        ("blocks", (1, -1, 1)),
        ("dim", 0),
    ],
)
def test_bad_configurations_name_the_field(field: str, value: object) -> None:
    with pytest.raises(UserError, match=field):
        SmallEncoderConfig(**{field: value})  # type: ignore[arg-type]


def test_the_registry_finds_names_and_folders(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = SmallEncoder(network())
    save_small_encoder(tmp_path / "mine", encoder)
    assert load_encoder(tmp_path / "mine").fingerprint == encoder.fingerprint
    assert load_encoder(str(tmp_path / "mine")).fingerprint == encoder.fingerprint
    with pytest.raises(UserError, match=r"goalward-smal'.*did you mean goalward-small"):
        load_encoder("goalward-smal")
    with pytest.raises(UserError, match="choose one of"):
        load_encoder(tmp_path / "missing")
    with pytest.raises(UserError, match=r"not an encoder folder.*encoder\.json"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("name", sorted(name for name, entry in ENCODERS.items() if entry.folder is not None))
def test_shipped_encoders_load_and_say_what_they_are(name: str) -> None:
    entry = ENCODERS[name]
    assert entry.folder is not None
    if not entry.folder.exists():
        pytest.skip("weights are not built yet")
    encoder = load_encoder(name)
    assert encoder.name == name
    described = json.loads((entry.folder / "encoder.json").read_text())
    assert described["licence"] == "Apache-2.0"
    assert {"objective", "command", "data", "figures"} <= described["provenance"].keys()
    assert (entry.folder / "encoder.safetensors").stat().st_size <= 20 * 2**20
    assert (entry.folder / "MODEL_CARD.md").is_file()
    z = encoder.encode(frames(2, encoder.image_size_px))
    assert z.shape == (2, encoder.tokens_per_view, encoder.dim)
