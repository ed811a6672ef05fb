"""What commands that train on cached latents share: the data, its latents, the encoder's files, and the facts that go into checkpoints."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from goalward import UserError, __version__
from goalward.experiments.data_share import nested_share, share_hash
from goalward.experiments.training_bar import TrainingBar

if TYPE_CHECKING:
    from goalward.datasets.store import EpisodeStore
    from goalward.wm.base import Encoder
    from goalward.wm.latents import LatentEpisodes


class TrainingOptions(Protocol):
    """The options by which such commands name their data."""

    @property
    def env(self) -> str:
        """Environment of the episodes."""

    @property
    def data(self) -> Path | None:
        """Episode store; None: data/<env>."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras to use; none: all."""

    @property
    def cache(self) -> Path | None:
        """Folder of encoded frames; None: beside the data."""

    @property
    def fraction(self) -> float:
        """Share of the training episodes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingInputs:
    """Latents to learn from, and what is to be remembered about them."""

    training: LatentEpisodes
    """Not normalised."""
    validation: LatentEpisodes
    """Held out; all of them, whatever the share."""
    identity: dict[str, Any]
    """What a resumed run must share."""
    facts: dict[str, Any]
    """For the checkpoint."""


def open_data(config: TrainingOptions) -> EpisodeStore:
    """Opens the episodes.

    Raises:
        UserError: There are none (names the command that collects them), too few, or they are of another environment.
    """
    from goalward.datasets.store import open_store

    path = config.data or Path("data") / config.env
    if not path.is_dir():
        raise UserError(f"data: {path} does not exist; collect it with: goalward collect --env {config.env} --out {path}")
    store = open_store(path)
    if store.spec.env != config.env:
        raise UserError(f"data: {path} holds episodes of {store.spec.env}, not of {config.env}; use --env {store.spec.env}")
    for split in ("train", "validation"):
        if not store.indices(split):
            raise UserError(
                f"data: {path} has no {split} episode among its {store.num_episodes}; "
                f"collect more: goalward collect --env {config.env} --out {path} --episodes 500"
            )
    return store


def read_latents(config: TrainingOptions, store: EpisodeStore, encoder: Encoder, bar: TrainingBar) -> TrainingInputs:
    """Encodes the episodes, or reads what an earlier run encoded, and keeps the share that is asked for."""
    from goalward.wm.latents import encode_store

    cache = config.cache or store.path.parent / f"{store.path.name}-latents"
    parts = []
    for split in ("train", "validation"):
        bar.encoding(split)
        parts.append(encode_store(store, encoder, split=split, cameras=config.cameras or None, cache=cache, progress=bar.encoded))
    training, validation = parts
    identity: dict[str, Any] = {"data": store.content_hash}
    facts: dict[str, Any] = {}
    if config.fraction < 1:
        numbers = store.indices("train")
        kept = nested_share(numbers, config.fraction)
        training = training.select(kept)
        facts = {"fraction": config.fraction, "share_sha256": share_hash(store, [numbers[at] for at in kept])}
        identity |= facts
    facts |= {"episodes": {"train": training.num_episodes, "validation": validation.num_episodes}}
    return TrainingInputs(training=training, validation=validation, identity=identity, facts=facts)


def is_shipped(encoder: str) -> bool:
    """Whether an encoder is named and comes with the package, rather than lying in a folder."""
    from goalward.wm.encoders import ENCODERS

    return encoder in ENCODERS


def encoder_files(encoder: str, loaded: Encoder) -> dict[str, bytes] | None:
    """The files of an encoder that the package does not ship; of a pretrained one, a reference to where its weights are."""
    from goalward.wm.encoders.pretrained import PretrainedEncoder
    from goalward.wm.encoders.reference import reference_bytes

    if is_shipped(encoder):
        return None
    if isinstance(loaded, PretrainedEncoder):
        return {"encoder.json": reference_bytes(loaded)}
    names = ("encoder.json", "encoder.safetensors", "decoder.json", "decoder.safetensors", "MODEL_CARD.md")
    return {name: (Path(encoder) / name).read_bytes() for name in names if (Path(encoder) / name).is_file()}


def software() -> dict[str, str]:
    """Versions that a checkpoint states."""
    import numpy
    import safetensors
    import torch

    return {
        "goalward": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "safetensors": safetensors.__version__,
    }
