"""Options from frozen dataclasses by tyro; a wrong option is one line, like every other mistake."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from typing import Any

from goalward import UserError


def parse(command: Any, *, prog: str, args: Sequence[str]) -> Any:
    """Reads a command line.

    Args:
        command: dataclass, or a union of dataclasses for sub-commands; field docstrings are the help.
        prog: name of the command, for messages.
        args: what follows it.

    Raises:
        UserError: unknown option, or a value that does not fit.
        SystemExit: after `--help`.
    """
    import tyro

    if {"-h", "--help"} & set(args):
        return tyro.cli(command, prog=prog, args=list(args))
    said = io.StringIO()
    try:
        with _wide(), contextlib.redirect_stderr(said):
            return tyro.cli(command, prog=prog, args=list(args))
    except SystemExit as stop:
        if stop.code in (None, 0):
            raise
    raise UserError(f"{_first_sentences(said.getvalue())}; see {prog} --help")


@contextlib.contextmanager
def _wide() -> Iterator[None]:
    """Lets tyro draw its box without breaking lines."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "4000"
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _first_sentences(box: str) -> str:
    """What tyro's box says before its first rule, and the options it suggests; drawn with lines or, where they cannot be, without."""
    sections: list[list[str]] = [[]]
    for line in box.splitlines()[1:]:  # the first is the title
        content = line.strip(" │|\t")
        if content and set(content) <= set("─-╰╯+"):
            sections.append([])
        elif content:
            sections[-1].append(content)
    sections = [section for section in sections if section] or [["the options cannot be read"]]
    message = " ".join(sections[0])
    if message.startswith("Error parsing ") and "--" not in message.split(":")[0]:
        message = message.partition(": ")[2]
    message = message.replace("Unrecognized options:", "unknown option").removesuffix(".")
    if near := [line.split()[0] for section in sections[1:] for line in section if line.startswith("--")][:3]:
        message += f"; did you mean {' or '.join(near)}?"
    return message[:1].lower() + message[1:] if message[:2].istitle() else message
