"""Episodes and stores for tests; makes `tiny_env` importable here and in worker processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from goalward.datasets.store import Episode, EpisodeWriter, StoreSpec


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def spec() -> StoreSpec:
    return StoreSpec(
        env="tiny", env_id="Goalward/Tiny-v0", cameras=("front", "side"), image_size_px=8, dt_s=0.2, action_names=("dx_m", "dy_m"),
        action_low=(-0.05, -0.05), action_high=(0.05, 0.05), proprio_names=("x_m", "y_m", "z_m"), software={"mujoco": "3.17.0"},
        config={"seed": 3},
    )  # fmt: skip


@pytest.fixture(scope="session")
def make_episode() -> Callable[..., Episode]:
    def make(seed: int, steps: int = 6, size_px: int = 8, behaviour: str = "explore") -> Episode:
        rng = np.random.default_rng(seed)
        return Episode(
            pixels=rng.integers(1, 255, (steps + 1, 2, size_px, size_px, 3), dtype=np.uint8),
            proprio=rng.normal(size=(steps + 1, 3)).astype(np.float32),
            actions=rng.uniform(-0.05, 0.05, (steps, 2)).astype(np.float32),
            seed=seed,
            behaviour=behaviour,
        )

    return make


@pytest.fixture
def store_path(tmp_path: Path, spec: StoreSpec, make_episode: Callable[..., Episode]) -> Path:
    """A store of three episodes: 4, 6 and 11 steps."""
    path = tmp_path / "store"
    with EpisodeWriter(path, spec) as writer:
        for seed, steps in enumerate((4, 6, 11)):
            writer.append(make_episode(seed, steps))
    return path


def assert_same(a: Episode, b: Episode) -> None:
    for name in ("pixels", "proprio", "actions"):
        left, right = getattr(a, name), getattr(b, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    assert (a.seed, a.behaviour) == (b.seed, b.behaviour)


@pytest.fixture(scope="session")
def same() -> Callable[[Episode, Episode], None]:
    return assert_same
