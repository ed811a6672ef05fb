"""Cached latents: right frames, right actions, each frame encoded once, and a damaged cache never trains a model."""

from __future__ import annotations

import dataclasses
import errno

import numpy as np
import pytest
import torch

from goalward import UserError
from goalward.datasets import durable
from goalward.wm.latents import LatentEpisodes, encode_store
from goalward.wm.statistics import latent_statistics, vector_statistics


def test_latents_are_the_encoders_in_camera_order(small_store, encoder) -> None:
    store = small_store()
    part = encode_store(store, encoder, split="train")
    assert part.num_episodes == len(store.indices("train"))
    for e, index in enumerate(store.indices("train")):
        episode = store.episode(index)
        rows = slice(int(part.first[e]), int(part.first[e + 1]))
        for view in range(2):
            expected = encoder.encode(np.ascontiguousarray(episode.pixels[:, view]))
            torch.testing.assert_close(part.z_FND[rows, 4 * view : 4 * view + 4], expected)
        assert np.array_equal(part.actions_FA[rows][:-1], episode.actions)
        assert torch.all(part.actions_FA[rows][-1] == 0)
        assert np.array_equal(part.proprio_FP[rows], episode.proprio)


def test_cameras_can_be_chosen_and_ordered(small_store, encoder) -> None:
    store = small_store()
    both = encode_store(store, encoder, split="train").z_FND
    assert torch.equal(encode_store(store, encoder, split="train", cameras=("side",)).z_FND, both[:, 4:])
    swapped = encode_store(store, encoder, split="train", cameras=("side", "front")).z_FND
    assert torch.equal(swapped, torch.cat([both[:, 4:], both[:, :4]], dim=1))
    with pytest.raises(UserError, match=r"top.*front, side"):
        encode_store(store, encoder, split="train", cameras=("top",))


def test_a_second_run_encodes_nothing(small_store, encoder, tmp_path) -> None:
    store, seen = small_store(), []
    first = encode_store(store, encoder, split="train", cache=tmp_path / "cache", progress=lambda done, total: seen.append((done, total)))
    calls = encoder.calls
    second = encode_store(store, encoder, split="train", cache=tmp_path / "cache")
    assert encoder.calls == calls
    for field in dataclasses.fields(LatentEpisodes):
        assert torch.equal(getattr(first, field.name), getattr(second, field.name))
    assert seen[-1] == (len(store.indices("train")),) * 2


def test_another_encoder_other_cameras_or_other_data_are_not_mixed_up(small_store, encoder, tmp_path) -> None:
    cache, store = tmp_path / "cache", small_store()
    one = encode_store(store, encoder, split="train", cache=cache)
    front = encode_store(store, encoder, split="train", cache=cache, cameras=("front",))
    other_data = encode_store(small_store(tmp_path / "other", seed=5), encoder, split="train", cache=cache)
    encoder.weights = encoder.weights * 2
    other_encoder = encode_store(store, encoder, split="train", cache=cache)
    assert front.z_FND.shape[1] == 4
    assert not torch.equal(one.z_FND, other_data.z_FND)
    torch.testing.assert_close(other_encoder.z_FND, 2 * one.z_FND)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_cache_is_encoded_again(small_store, encoder, tmp_path, damage: str) -> None:
    store, cache = small_store(), tmp_path / "cache"
    intact = encode_store(store, encoder, split="train", cache=cache).z_FND
    (file,) = cache.iterdir()
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes({"flip": bytes(raw), "truncate": bytes(raw[:-100]), "empty": b""}[damage])
    assert torch.equal(encode_store(store, encoder, split="train", cache=cache).z_FND, intact)


def test_a_full_disk_is_one_line(small_store, encoder, tmp_path, monkeypatch) -> None:
    store = small_store()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable.os, "write", full)
    with pytest.raises(UserError, match="disk is full"):
        encode_store(store, encoder, split="train", cache=tmp_path / "cache")


def test_the_wrong_image_size_is_refused(small_store, encoder) -> None:
    encoder.image_size_px = 16
    with pytest.raises(UserError, match=r"image_size_px.*8.*16"):
        encode_store(small_store(), encoder, split="train")


def test_an_empty_split_gives_no_episodes(small_store, encoder) -> None:
    part = encode_store(small_store(episodes=2), encoder, split="test")
    assert part.num_episodes == 0
    assert part.z_FND.shape == (0, 8, 5)
    assert len(part.clips(2)) == 0


def test_clips_never_cross_an_episode(point_world) -> None:
    part = point_world(3, steps=6)
    frames = part.clips(4)
    assert frames.tolist() == [0, 1, 2, 7, 8, 9, 14, 15, 16]
    assert len(part.clips(6)) == 3
    assert len(part.clips(7)) == 0


def test_gathered_clips_are_the_right_frames(point_world) -> None:
    part = point_world(2, steps=6)
    z, actions, targets = part.gather(torch.tensor([7, 9]), context=2, horizon=3)
    assert torch.equal(z[0], part.z_FND[[7, 7]]), "before its first frame an episode rests"
    assert torch.equal(z[1], part.z_FND[[8, 9]])
    assert torch.equal(actions[1], part.actions_FA[[9, 10, 11]])
    assert torch.equal(targets[1], part.z_FND[[10, 11, 12]])


def test_executed_actions_leave_out_the_padding(point_world) -> None:
    part = point_world(3, steps=5)
    executed = part.executed_actions()
    assert len(executed) == 15
    assert torch.all(executed.abs().sum(1) > 0)


def test_selection_keeps_whole_episodes(point_world) -> None:
    part = point_world(4, steps=5)
    chosen = part.select([2, 0])
    assert chosen.num_episodes == 2
    assert torch.equal(chosen.z_FND, torch.cat([part.z_FND[12:18], part.z_FND[:6]]))
    assert chosen.first.tolist() == [0, 6, 12]


def test_normalising_touches_latents_and_actions_only(point_world) -> None:
    part = point_world(4)
    latent, action = latent_statistics(part.z_FND), vector_statistics(part.executed_actions(), "actions")
    normal = part.normalised(latent, action)
    torch.testing.assert_close(latent.denormalise(normal.z_FND), part.z_FND)
    torch.testing.assert_close(action.denormalise(normal.actions_FA), part.actions_FA)
    assert torch.equal(normal.proprio_FP, part.proprio_FP)
