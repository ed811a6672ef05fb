"""Every encoder by name: one line each. A path to an encoder folder works wherever a name does."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from goalward import UserError
from goalward.wm.base import Encoder
from goalward.wm.encoders.folder import JSON_NAME, load_small_encoder
from goalward.wm.encoders.pixels import PixelEncoder

_WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderEntry:
    """Where a named encoder comes from."""

    make: Callable[[str | torch.device], Encoder]
    """Loads it onto a device."""
    about: str
    """One line for lists of encoders."""
    folder: Path | None = None
    """Folder with `encoder.json` and `encoder.safetensors`; None for an encoder without weights."""


def _shipped(folder: Path, about: str) -> EncoderEntry:
    return EncoderEntry(make=lambda device: load_small_encoder(folder, device=device), about=about, folder=folder)


ENCODERS: dict[str, EncoderEntry] = {
    "goalward-small": _shipped(
        _WEIGHTS / "encoder", "embedded default: 128 px, 4 tokens of width 64 per view, pretrained on simulated video"
    ),
    "goalward-small-push": _shipped(
        _WEIGHTS / "encoder-small-push", "the same, reweighed for push, so that the puck counts beside the arm (`goalward reweigh`)"
    ),
    "goalward-small-reacher": _shipped(
        _WEIGHTS / "encoder-small-reacher", "the same, its directions evened out for reacher (`goalward reweigh --power 0`)"
    ),
    "goalward-plane": _shipped(_WEIGHTS / "encoder-plane", "the same network, pretrained on video of wall and reacher, seen from above"),
    "pixels": EncoderEntry(
        make=lambda device: PixelEncoder(device=device),
        about="no weights, a reference: 128 px averaged down to 16 px, in 4 tokens of width 192 per view",
    ),
}


def load_encoder(name_or_path: str | Path = "goalward-small", *, device: str | torch.device = "cpu") -> Encoder:
    """Loads a frozen encoder.

    Args:
        name_or_path: A name from `ENCODERS`, or the path of an encoder folder.
        device: Where it computes.

    Raises:
        UserError: Unknown name, no such folder, or a folder that is damaged.
    """
    if (entry := ENCODERS.get(str(name_or_path))) is not None:
        return entry.make(device)
    path = Path(name_or_path)
    if path.is_dir() or (path / JSON_NAME).exists():
        return load_small_encoder(path, device=device)
    near = difflib.get_close_matches(str(name_or_path), ENCODERS, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(ENCODERS)}"
    raise UserError(
        f"encoder {str(name_or_path)!r}: neither a known name nor a folder; {hint}, or give the folder that `goalward pretrain` wrote"
    )
