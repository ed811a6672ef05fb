"""Every encoder by name: one line each. A path to an encoder folder works wherever a name does."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import torch

from goalward import UserError
from goalward.wm.base import Encoder
from goalward.wm.encoders.folder import JSON_NAME, load_small_encoder

_WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderEntry:
    """Where a named encoder lives."""

    folder: Path
    """Folder with `encoder.json` and `encoder.safetensors`."""
    about: str
    """One line for lists of encoders."""


ENCODERS: dict[str, EncoderEntry] = {
    "goalward-small": EncoderEntry(
        folder=_WEIGHTS / "encoder",
        about="embedded default: 128 px, 4 tokens of width 64 per view, pretrained on simulated video",
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
        return load_small_encoder(entry.folder, device=device)
    path = Path(name_or_path)
    if path.is_dir() or (path / JSON_NAME).exists():
        return load_small_encoder(path, device=device)
    near = difflib.get_close_matches(str(name_or_path), ENCODERS, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(ENCODERS)}"
    raise UserError(
        f"encoder {str(name_or_path)!r}: neither a known name nor a folder; {hint}, or give the folder that `goalward pretrain` wrote"
    )
