"""Every encoder by name: one line each. A path to an encoder folder works wherever a name does."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from goalward import UserError
from goalward.wm.base import Encoder
from goalward.wm.encoders.folder import JSON_NAME, load_small_encoder, read_description
from goalward.wm.encoders.pixels import PixelEncoder
from goalward.wm.encoders.pretrained_folder import CONFIG, load_pretrained_encoder
from goalward.wm.encoders.reference import KIND, load_reference, missing_encoder
from goalward.wm.encoders.spec import parse_spec

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


def load_encoder(
    name_or_path: str | Path = "goalward-small",
    *,
    device: str | torch.device = "cpu",
    at: str | Path | None = None,
    dtype: torch.dtype | None = None,
    compiled: bool = False,
) -> Encoder:
    """Loads a frozen encoder.

    Args:
        name_or_path: A name from `ENCODERS`; the path of an encoder folder, of a model folder in `transformers` format, or a hub id with
            its commit (`owner/name@commit`); behind the last two, options such as `#tokens=16` (see `spec.py`).
        device: Where it computes.
        at: Where the weights of a pretrained encoder are now, for a folder that only refers to them.
        dtype: Precision of a pretrained encoder's weights; None picks bfloat16 where the hardware is fast at it.
        compiled: Compile a pretrained encoder's network; the small ones are left as they are.

    Raises:
        UserError: Unknown name, no such folder, or a folder that is damaged.
    """
    if (entry := ENCODERS.get(str(name_or_path))) is not None:
        return entry.make(device)
    spec = parse_spec(name_or_path)
    path = Path(spec.source)
    if spec.is_hub_id:
        return load_pretrained_encoder(spec, device=device, dtype=dtype, compiled=compiled)
    if (path / JSON_NAME).exists():
        described = read_description(path, kinds=("small", KIND))
        if described["kind"] == KIND:
            return load_reference(path, described, options=spec.options, at=at, device=device, dtype=dtype, compiled=compiled)
    elif (path / CONFIG).exists() and at is None:
        return load_pretrained_encoder(spec, device=device, dtype=dtype, compiled=compiled)
    if at is not None:
        raise UserError(f"encoder {str(at)!r}: {path} holds its weights itself, nothing is to be looked for; leave --encoder out")
    if spec.options and path.is_dir():
        raise UserError(f"encoder {str(name_or_path)!r}: options belong to encoders in transformers format; leave {spec.options} out")
    if path.is_dir():
        return load_small_encoder(path, device=device)
    near = difflib.get_close_matches(str(name_or_path), ENCODERS, n=3, cutoff=0.4)
    raise missing_encoder(str(name_or_path), f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(ENCODERS)}")
