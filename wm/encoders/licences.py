"""Licences of pretrained weights: read from the model card where there is one, and said once where they are not permissive."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from goalward.wm.encoders.families import Family

CARD = "README.md"
PERMISSIVE = frozenset({"mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc0-1.0"})
_MAX_CARD_CHARACTERS = 65536
_announced: set[str] = set()


def licence_of(folder: Path, family: Family) -> str:
    """What the front matter of the folder's model card says, or else the family's licence."""
    try:
        with (folder / CARD).open(encoding="utf-8") as file:
            card = file.read(_MAX_CARD_CHARACTERS)
    except (OSError, UnicodeDecodeError):
        return family.licence
    front = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
    if front is None:
        return family.licence
    found = dict(re.findall(r"^(license|license_name):[ \t]*[\"']?([\w.+-]+)[\"']?[ \t]*$", front.group(1), re.MULTILINE))
    licence = found.get("license", "")
    if licence == "other":
        return found.get("license_name") or family.licence
    # "mit" of a card and "MIT" of SPDX are the same.
    return family.licence if not licence or licence.lower() == family.licence.lower() else licence


def is_permissive(licence: str) -> bool:
    """Whether a licence asks for no more than its text to be passed on."""
    return licence.lower() in PERMISSIVE


def announce(family: Family, licence: str, name: str) -> None:
    """Says on standard error what a licence that is not permissive asks for, once in a process for each licence."""
    if is_permissive(licence) or licence in _announced:
        return
    _announced.add(licence)
    says = family.notice or "not a permissive licence; read it before you use or pass on what you make with these weights"
    print(f"licence of {name}: {licence}. {says}", file=sys.stderr)
