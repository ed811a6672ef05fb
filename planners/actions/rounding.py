"""Bounds of float64 as bounds of float32, without letting anything past them."""

from __future__ import annotations

import struct


def float32_at_most(bound: float) -> float:
    """The largest float32 that is at most a bound, for bounds above 0: a float32 exceeds one exactly where it exceeds the other."""
    return _neighbour(bound, -1) if _rounded(bound) > bound else _rounded(bound)


def float32_at_least(bound: float) -> float:
    """The smallest float32 that is at least a bound of 0 or above."""
    return _neighbour(bound, 1) if _rounded(bound) < bound else _rounded(bound)


def _rounded(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _neighbour(value: float, steps: int) -> float:
    # The bits of positive floats, read as whole numbers, are in the order of the floats.
    bits = struct.unpack("<i", struct.pack("<f", value))[0] + steps
    return float(struct.unpack("<f", struct.pack("<i", bits))[0])
