"""Latents of a whole dataset: every frame encoded once, kept on disk, held in memory while training.

Letters in array names: F frames of all episodes one after the other, T frames of a context, H horizon steps, V camera views,
N tokens per frame, D latent width, A action dimensions, P proprioception dimensions, C clips.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from goalward import UserError
from goalward.datasets.durable import explain, replace_file
from goalward.wm.base import Encoder, EnvSignature
from goalward.wm.statistics import LatentStatistics, VectorStatistics

if TYPE_CHECKING:
    from goalward.datasets.store import EpisodeStore

_FORMAT = 1
_EPISODES_PER_FILE = 32
_FRAMES_PER_CALL = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentEpisodes:
    """Episodes as flat tensors; episode e occupies frames `first[e]` to `first[e + 1] - 1`."""

    z_FND: Tensor
    """Latents as the encoder gives them (not normalised), float32."""
    actions_FA: Tensor
    """The action that followed each frame, physical units, float32; zero after an episode's last frame."""
    proprio_FP: Tensor
    """Proprioception, SI units, float32."""
    first: Tensor
    """int64 [episodes + 1]."""

    @property
    def num_episodes(self) -> int:
        """Episodes held."""
        return len(self.first) - 1

    def select(self, episodes: Sequence[int]) -> LatentEpisodes:
        """Keeps some episodes, in the order given."""
        rows = [torch.arange(int(self.first[e]), int(self.first[e + 1])) for e in episodes]
        index = torch.cat(rows) if rows else torch.empty(0, dtype=torch.int64)
        lengths = torch.tensor([0, *(len(row) for row in rows)])
        return LatentEpisodes(
            z_FND=self.z_FND[index], actions_FA=self.actions_FA[index], proprio_FP=self.proprio_FP[index], first=lengths.cumsum(0)
        )

    def to(self, device: torch.device) -> LatentEpisodes:
        """Copies everything to a device."""
        return LatentEpisodes(
            z_FND=self.z_FND.to(device),
            actions_FA=self.actions_FA.to(device),
            proprio_FP=self.proprio_FP.to(device),
            first=self.first.to(device),
        )

    def normalised(self, latent: LatentStatistics, action: VectorStatistics) -> LatentEpisodes:
        """As the predictor sees them; proprioception is left alone."""
        return replace(self, z_FND=latent.normalise(self.z_FND), actions_FA=action.normalise(self.actions_FA))

    def executed_actions(self) -> Tensor:
        """Only the actions that were executed [F - episodes, A]."""
        last = torch.zeros(len(self.actions_FA), dtype=torch.bool)
        last[self.first[1:] - 1] = True
        return self.actions_FA[~last]

    def clips(self, horizon: int) -> Tensor:
        """Frames from which `horizon` actions were executed, int64 [C]: every one is the last observed frame of a clip."""
        first = self.first.tolist()
        starts = [torch.arange(a, max(a, b - horizon)) for a, b in itertools.pairwise(first)]
        return torch.cat(starts) if starts else torch.empty(0, dtype=torch.int64)

    def gather(self, frames: Tensor, *, context: int, horizon: int) -> tuple[Tensor, Tensor, Tensor]:
        """Cuts clips out.

        Before an episode's first frame the arm rests, so an older observation than that repeats it, as a controller does at its start.

        Args:
            frames: Last observed frame of each clip, from `clips(horizon)`.
            context: T.
            horizon: H.

        Returns:
            Observed latents [C, T, N, D], actions [C, H, A] and the latents after each of them [C, H, N, D].
        """
        episode = torch.searchsorted(self.first, frames, right=True) - 1
        past = torch.maximum(frames[:, None] + torch.arange(1 - context, 1, device=frames.device), self.first[episode][:, None])
        ahead = frames[:, None] + torch.arange(horizon, device=frames.device)
        return self.z_FND[past], self.actions_FA[ahead], self.z_FND[ahead + 1]


def encode_store(
    store: EpisodeStore,
    encoder: Encoder,
    *,
    split: str,
    cameras: tuple[str, ...] | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LatentEpisodes:
    """Encodes every frame of a split, each once ever: finished parts are kept in `cache` and survive a kill.

    The memory needed is that of the latents plus one episode's frames.

    Args:
        store: The episodes.
        encoder: Frozen encoder.
        split: Which episodes.
        cameras: Cameras to use, in this order; None: all of the store.
        cache: Folder for finished parts, shared by all encoders and datasets (files are named by hashes); None: nothing is kept.
        progress: Called with (episodes done, episodes in all).

    Raises:
        UserError: Image size or cameras do not suit, or the cache cannot be written.
    """
    signature = EnvSignature.of(store.spec, cameras=cameras)
    if signature.image_size_px != encoder.image_size_px:
        raise UserError(
            f"image_size_px of the dataset is {signature.image_size_px}, encoder {encoder.name} takes {encoder.image_size_px}; "
            f"collect with --image-size-px {encoder.image_size_px}, choose another encoder, or let a pretrained one resize: "
            f"#frame={signature.image_size_px} behind its name"
        )
    views = [list(store.spec.cameras).index(name) for name in signature.cameras]
    episodes = store.indices(split)
    if not episodes:
        return _empty(signature, encoder)
    parts = []
    for start in range(0, len(episodes), _EPISODES_PER_FILE):
        members = episodes[start : start + _EPISODES_PER_FILE]
        path = cache / f"{_key(store, encoder, signature, members)}.safetensors" if cache else None
        part = _read(path, store, members, signature, encoder) if path else None
        if part is None:
            part = _encode(store, encoder, members, views)
            if path:
                _write(path, part)
        parts.append(part)
        if progress:
            progress(min(start + _EPISODES_PER_FILE, len(episodes)), len(episodes))
    lengths = torch.cat([torch.zeros(1, dtype=torch.int64), *(part.first.diff() for part in parts)])
    return LatentEpisodes(
        z_FND=torch.cat([part.z_FND for part in parts]),
        actions_FA=torch.cat([part.actions_FA for part in parts]),
        proprio_FP=torch.cat([part.proprio_FP for part in parts]),
        first=lengths.cumsum(0),
    )


def _empty(signature: EnvSignature, encoder: Encoder) -> LatentEpisodes:
    return LatentEpisodes(
        z_FND=torch.empty(0, encoder.tokens_per_view * len(signature.cameras), encoder.dim),
        actions_FA=torch.empty(0, len(signature.action_names)),
        proprio_FP=torch.empty(0, len(signature.proprio_names)),
        first=torch.zeros(1, dtype=torch.int64),
    )


def _encode(store: EpisodeStore, encoder: Encoder, members: Sequence[int], views: Sequence[int]) -> LatentEpisodes:
    z, actions, proprio = [], [], []
    for index in members:
        episode = store.episode(index)
        frames = np.ascontiguousarray(episode.pixels[:, views])
        flat = frames.reshape(-1, *frames.shape[2:])
        tokens = torch.cat([encoder.encode(flat[i : i + _FRAMES_PER_CALL]).cpu() for i in range(0, len(flat), _FRAMES_PER_CALL)])
        z.append(tokens.reshape(len(frames), -1, encoder.dim))
        actions.append(torch.from_numpy(np.concatenate([episode.actions, np.zeros_like(episode.actions[:1])])))
        proprio.append(torch.from_numpy(np.asarray(episode.proprio)))
    lengths = torch.tensor([0, *(len(part) for part in z)])
    return LatentEpisodes(z_FND=torch.cat(z), actions_FA=torch.cat(actions), proprio_FP=torch.cat(proprio), first=lengths.cumsum(0))


def _key(store: EpisodeStore, encoder: Encoder, signature: EnvSignature, members: Sequence[int]) -> str:
    """Names a part by all that decides its content; more episodes in the store leave the keys of full parts alone."""
    content = [store.entries[index].content_sha256 for index in members]
    text = f"{_FORMAT}|{encoder.fingerprint}|{signature.cameras}|{content}"
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def _read(path: Path, store: EpisodeStore, members: Sequence[int], signature: EnvSignature, encoder: Encoder) -> LatentEpisodes | None:
    """Reads a part; anything wrong with it means None, and it is encoded again."""
    lengths = [store.num_steps(index) + 1 for index in members]
    frames = sum(lengths)
    shapes = {
        "z": (frames, encoder.tokens_per_view * len(signature.cameras), encoder.dim),
        "actions": (frames, len(signature.action_names)),
        "proprio": (frames, len(signature.proprio_names)),
    }
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    # The digest stands at the end: a cache that rots must never train a model.
    if hashlib.sha256(raw[:-32]).digest() != raw[-32:]:
        return None
    try:
        tensors = load(raw[:-32])
    except (SafetensorError, ValueError):
        return None
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != shapes:
        return None
    return LatentEpisodes(
        z_FND=tensors["z"], actions_FA=tensors["actions"], proprio_FP=tensors["proprio"], first=torch.tensor([0, *lengths]).cumsum(0)
    )


def _write(path: Path, part: LatentEpisodes) -> None:
    raw = save({"z": part.z_FND.contiguous(), "actions": part.actions_FA.contiguous(), "proprio": part.proprio_FP.contiguous()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, raw + hashlib.sha256(raw).digest())
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise explain(error, path.parent) from error
