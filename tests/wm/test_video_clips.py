import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goalward import UserError
from goalward.wm.video_clips import ClipSampler, load_pool, pool_of


def run(identity: int, length: int, size: int = 2) -> np.ndarray:
    """Frames that say which run and which moment they are: red is the run, green the moment."""
    frames = np.zeros((length, size, size, 3), np.uint8)
    frames[..., 0], frames[..., 1] = identity, np.arange(length)[:, None, None]
    return frames


class FakeStore:
    content_hash = "fake"

    def __init__(self, lengths: list[int], views: int = 2, size: int = 2) -> None:
        self.episodes = [
            np.stack([run(views * number + view, length, size) for view in range(views)], 1) for number, length in enumerate(lengths)
        ]
        self.read: list[int] = []

    def indices(self, split: str) -> list[int]:
        return list(range(len(self.episodes))) if split == "train" else []

    def pixels(self, index: int) -> np.ndarray:
        self.read.append(index)
        return self.episodes[index]


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), length=st.integers(1, 5), seed=st.integers(0, 1000))
def test_clips_are_consecutive_frames_of_one_run(lengths: list[int], length: int, seed: int) -> None:
    pool = pool_of([run(number, count) for number, count in enumerate(lengths)])
    starts = pool.starts(length)
    assert len(starts) == sum(max(0, count - length + 1) for count in lengths)
    if not len(starts):
        with pytest.raises(UserError, match="clip_frames"):
            ClipSampler([pool], clip_frames=length)
        return
    clips = ClipSampler([pool], clip_frames=length).sample(16, np.random.default_rng(seed))
    assert clips.shape == (16, length, 2, 2, 3)
    assert (clips[..., 0] == clips[:, :1, :, :, 0]).all()
    assert (np.diff(clips[..., 1].astype(int), axis=1) == 1).all()


def test_every_start_is_drawn_and_weights_decide_between_stores() -> None:
    pools = [pool_of([run(0, 5)], weight=3.0), pool_of([run(1, 50), run(2, 50)], weight=1.0)]
    clips = ClipSampler(pools, clip_frames=3).sample(4_000, np.random.default_rng(0))
    identity, moment = clips[:, 0, 0, 0, 0], clips[:, 0, 0, 0, 1]
    assert np.mean(identity == 0) == pytest.approx(0.75, abs=0.03)
    assert set(moment[identity == 0]) == {0, 1, 2}
    assert set(moment[identity == 2]) == set(range(48))


def test_pairs_are_two_moments_of_one_run() -> None:
    pools = [pool_of([run(0, 5), run(1, 2), run(2, 20)]), pool_of([run(3, 8), run(4, 9)])]
    sampler = ClipSampler(pools, clip_frames=3)
    clips = sampler.sample(4_000, np.random.default_rng(0), pairs=True)
    identity, moment = clips[:, 0, 0, 0, 0], clips[:, 0, 0, 0, 1].astype(int)
    assert np.array_equal(identity[0::2], identity[1::2])
    assert (clips[..., 0] == clips[:, :1, :, :, 0]).all()
    assert (np.diff(clips[..., 1].astype(int), axis=1) == 1).all()
    for number, starts in ((0, 3), (2, 18), (3, 6), (4, 7)):
        for side in (0, 1):
            assert set(moment[side::2][identity[0::2] == number]) == set(range(starts))
    assert 1 not in identity
    with pytest.raises(UserError, match="batch_clips = 5: must be even"):
        sampler.sample(5, np.random.default_rng(0), pairs=True)


def test_sampling_is_reproducible() -> None:
    sampler = ClipSampler([pool_of([run(0, 20)])], clip_frames=3)
    draws = [sampler.sample(8, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_each_camera_is_a_run_of_its_own() -> None:
    pool = load_pool(FakeStore([4, 6]), split="train", image_size_px=2)
    assert sorted(pool.run_lengths) == [4, 4, 6, 6]
    assert len(pool.frames_Fhw3) == 20
    clips = ClipSampler([pool], clip_frames=4).sample(200, np.random.default_rng(0))
    assert set(clips[:, 0, 0, 0, 0]) == {0, 1, 2, 3}
    assert (clips[..., 0] == clips[:, :1, :, :, 0]).all()


def test_the_bound_on_frames_holds_and_stops_reading() -> None:
    store = FakeStore([5] * 10)
    pool = load_pool(store, split="train", image_size_px=2, max_frames=35)
    assert len(pool.frames_Fhw3) == 30
    assert len(store.read) == 4
    other = load_pool(FakeStore([5] * 10), split="train", image_size_px=2, max_frames=35, seed=1)
    assert not np.array_equal(pool.frames_Fhw3, other.frames_Fhw3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "test"}, "test split"),
        ({"image_size_px": 4}, r"\[T\+1, V, 4, 4, 3\]"),
        ({"max_frames": 3}, "max_frames = 3"),
        ({"weight": 0.0}, "weight = 0"),
        ({"weight": float("nan")}, "weight = nan"),
    ],
)
def test_bad_data_or_options_are_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_pool(FakeStore([5]), **({"split": "train", "image_size_px": 2} | options))  # type: ignore[arg-type]


def test_no_pool_is_an_error() -> None:
    with pytest.raises(UserError, match="data is empty"):
        ClipSampler([], clip_frames=3)
