"""JSON of files that nobody vouches for: bounded in size, no surprises from the parser, one canonical form for hashes."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any, NoReturn

from goalward import UserError
from goalward.datasets.durable import explain


def canonical(value: Any) -> bytes:
    """The one JSON encoding of a value that hashes are taken over.

    Raises:
        UserError: the value is not plain JSON (a number that is not finite, another type).
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"not plain JSON: {error}") from None


def read_regular(path: Path, limit_bytes: int) -> bytes:
    """Reads a regular file of bounded size.

    Raises:
        UserError: missing, not a regular file (a pipe would block for ever), or larger than the limit.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path}: not a regular file")
        if status.st_size > limit_bytes:
            raise UserError(f"{path}: {status.st_size} bytes; at most {limit_bytes} are allowed")
        with path.open("rb") as file:
            return file.read(status.st_size)
    except OSError as error:
        raise explain(error, path) from None


def parse(raw: bytes, source: Path | str) -> Any:
    """Parses JSON.

    Raises:
        UserError: not JSON, or JSON that only a careless parser accepts (NaN, endless nesting, endless digits).
    """
    try:
        return json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: not valid JSON ({type(error).__name__}); copy the file again or make it again") from None


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
