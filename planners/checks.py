"""Checks of configuration fields: an error names the field, the value and what is allowed."""

from __future__ import annotations

import math

from goalward import UserError


def require_count(field: str, value: int, *, low: int = 1, high: int | None = None, why: str = "") -> None:
    """Demands a whole number in low..high."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        allowed = f"at least {low}" if high is None else f"{low} to {high}"
        raise UserError(f"{field}: {value!r} is not allowed; give a whole number, {allowed}{why and f' ({why})'}")


def require_number(
    field: str, value: float, *, low: float, high: float = math.inf, open_low: bool = False, open_high: bool = False
) -> None:
    """Demands a finite number from low to high; an open end excludes the limit itself."""
    below = value <= low if open_low else value < low
    above = value >= high if open_high else value > high
    if not math.isfinite(value) or below or above:
        lower = f"{'above' if open_low else 'at least'} {low:g}"
        upper = "" if math.isinf(high) else f" and {'below' if open_high else 'at most'} {high:g}"
        raise UserError(f"{field}: {value!r} is not allowed; give a finite number {lower}{upper}")
