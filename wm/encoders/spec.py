"""How an encoder is written on a command line: `SOURCE[@REVISION][#OPTION=VALUE,...]`.

    models/vjepa2-vitl                          a folder
    models/vjepa2-vitl#tokens=4,fit=whole       the same, read out in another way
    facebook/dinov2-small@<commit>#tokens=16    a hub id, always with the commit that is meant

A folder that exists is taken as a folder, whatever characters are in its name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from goalward import UserError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
ALL = 0
_LONGEST = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOut:
    """What is done before and after a pretrained network; nothing of it is learned. Part of an encoder's fingerprint."""

    tokens: int = 16
    """Tokens of one frame after pooling, a square number; 0 (`all`): every patch is a token. Planning cost is linear in it."""
    frame: int = 0
    """Side of the frames taken, pixels; 0: that of the network's input. Other sizes are resized as the family's preprocessing says."""
    input: int = 0
    """Side of the square that the network sees, pixels, a multiple of its patches; 0: the published one. Cost grows with its square."""
    fit: Literal["published", "whole"] = "published"
    """`published`: resize and crop as the weights' publishers do (V-JEPA 2 and DINOv2 lose the border); `whole`: resize to fit, no crop."""
    norm: Literal["none", "layer"] = "none"
    """`layer`: every patch token to zero mean and unit variance, without parameters, before pooling, as V-JEPA 2-AC does."""

    def __post_init__(self) -> None:
        """Checks every field."""
        if not 0 <= self.tokens <= 65536 or round(self.tokens**0.5) ** 2 != self.tokens:
            raise UserError(f"tokens = {self.tokens}: must be a square number in 1..65536, or all; use 16")
        for name in ("frame", "input"):
            if not 0 <= (value := getattr(self, name)) <= 2048:
                raise UserError(f"{name} = {value}: must be a number of pixels in 1..2048, or 0 for the published one")
        if self.fit not in ("published", "whole"):
            raise UserError(f"fit = {self.fit!r}: must be published or whole")
        if self.norm not in ("none", "layer"):
            raise UserError(f"norm = {self.norm!r}: must be none or layer")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderSpec:
    """An encoder as it was written."""

    source: str
    """Folder, name of a shipped encoder, or hub id."""
    revision: str = ""
    """Commit of a hub id; empty for everything else."""
    options: dict[str, int | str] = field(default_factory=dict)
    """The options that were given; the others keep the source's own."""

    @property
    def is_hub_id(self) -> bool:
        """Whether the source has to come from a hub."""
        return bool(self.revision)

    def __str__(self) -> str:
        """As it is written on a command line."""
        written = ",".join(f"{key}={'all' if key == 'tokens' and value == ALL else value}" for key, value in self.options.items())
        return self.source + (f"@{self.revision}" if self.revision else "") + (f"#{written}" if written else "")


def parse_spec(text: str | Path) -> EncoderSpec:
    """Reads what was written.

    Raises:
        UserError: An unknown option, a value out of range, or a hub id whose revision is not a commit.
    """
    whole = str(text)
    if len(whole) > _LONGEST:
        raise UserError(f"encoder {whole[:60]!r}...: {len(whole)} characters; give a folder or an id of at most {_LONGEST}")
    if isinstance(text, Path) or Path(whole).exists():
        return EncoderSpec(source=whole)
    source, mark, written = whole.rpartition("#")
    options = _options(whole, written) if mark else {}
    source = source if mark else whole
    if Path(source).exists():
        return EncoderSpec(source=source, options=options)
    name, at, revision = source.partition("@")
    if at and _HUB_ID.fullmatch(name):
        if not _COMMIT.fullmatch(revision):
            raise UserError(
                f"encoder {whole!r}: revision {revision!r} is not a commit of 40 hexadecimal digits; branches and tags move, so copy the "
                "commit from the hub page's history"
            )
        return EncoderSpec(source=name, revision=revision, options=options)
    return EncoderSpec(source=source, options=options)


def looks_like_hub_id(source: str) -> bool:
    """Whether a source that is no folder might have been meant as a hub id."""
    return _HUB_ID.fullmatch(source) is not None


def read_out_of(options: dict[str, int | str], base: ReadOut | None = None) -> ReadOut:
    """The read-out with the given options on top of `base`, or of the defaults.

    Raises:
        UserError: A value out of range.
    """
    values = {entry.name: getattr(base or ReadOut(), entry.name) for entry in fields(ReadOut)}
    return ReadOut(**(values | options))


def _options(whole: str, written: str) -> dict[str, int | str]:
    known = [entry.name for entry in fields(ReadOut)]
    found: dict[str, int | str] = {}
    for part in written.split(","):
        key, mark, value = part.partition("=")
        if not mark or key not in known or key in found:
            wrong = "is given twice" if key in found else "is not an option with a value"
            raise UserError(f"encoder {whole!r}: {part!r} {wrong}; write #tokens=16,fit=whole with any of {', '.join(known)}")
        if key in ("fit", "norm"):
            found[key] = value
        elif key == "tokens" and value == "all":
            found[key] = ALL
        elif value.isascii() and value.isdigit() and 0 < int(value) <= 65536:
            found[key] = int(value)
        else:
            kind = "a whole number, or all" if key == "tokens" else "a whole number of pixels"
            raise UserError(f"encoder {whole!r}: {key} is {value!r}; must be {kind}")
    read_out_of(found)
    return found
