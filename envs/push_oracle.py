"""How a round post pushes a round puck to a place: go round it, get behind it, push through its middle, and ease off.

Pushing one round thing with another is unstable: beside the middle by an angle a, the puck leaves along the line of centres and a grows by
da/ds = sin(a) / R per metre pushed, R the distance of the axes. So the post is steered back to the line behind the puck at every step.

Everything is a function of the present positions, [2] in metres, in the table's plane.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from goalward import UserError

Plane = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class PushConfig:
    """How the post is steered."""

    contact_m: float = 0.06
    """R, distance of the two axes when they touch."""
    detour_m: float = 0.03
    """Distance kept from touching while going round the puck."""
    gap_m: float = 0.008
    """Distance from touching at which a push begins."""
    max_step_m: float = 0.05
    """Longest displacement per step and axis."""
    max_push_m: float = 0.035
    """Longest displacement per step while pushing."""
    gain: float = 0.6
    """Share of the remaining way that is pushed per step: the arm is sluggish and swings past its target."""
    steer: float = 1.2
    """Share of the sideways offset that is steered back per step."""
    near_m: float = 0.008
    """Nothing is done when the puck is so near to its place."""

    def __post_init__(self) -> None:
        for name in ("contact_m", "detour_m", "gap_m", "max_step_m", "max_push_m", "gain", "steer", "near_m"):
            if not 0 < getattr(self, name) < 10:
                raise UserError(f"{name}={getattr(self, name)} is out of range 0..10; leave it at its default")


def push_displacement(hand_m: Plane, puck_m: Plane, place_m: Plane, config: PushConfig) -> Plane:
    """The next displacement of the hand.

    Args:
        hand_m: [2], axis of the post.
        puck_m: [2], axis of the puck.
        place_m: [2], where the puck shall go.
        config: gains and distances.

    Returns:
        Displacement [2], every entry within `max_step_m`; zero when the puck is at its place.
    """
    way = place_m - puck_m
    distance = float(np.linalg.norm(way))
    if distance < config.near_m:
        return np.zeros(2)
    ahead = way / distance
    from_puck = hand_m - puck_m
    behind = -float(from_puck @ ahead)
    sideways = from_puck + behind * ahead
    offset = float(np.linalg.norm(sideways))
    if behind > 0.5 * config.contact_m and offset < 0.35 * behind and behind < config.contact_m + 2 * config.detour_m:
        forth = max(0.0, behind - config.contact_m) + min(config.max_push_m, config.gain * distance)
        # Far beside the line the push waits for the steering.
        forth *= max(0.0, 1.0 - offset / (0.5 * config.contact_m))
        return _bounded(forth * ahead - config.steer * sideways, config.max_step_m)
    station = puck_m - (config.contact_m + config.gap_m) * ahead
    return _bounded(go_round(hand_m, puck_m, station, config) - hand_m, config.max_step_m)


def go_round(hand_m: Plane, puck_m: Plane, station_m: Plane, config: PushConfig) -> Plane:
    """The next place [2] on the way to `station_m` that does not touch the puck."""
    along = station_m - hand_m
    length = max(float(np.linalg.norm(along)), 1e-9)
    share = np.clip(float((puck_m - hand_m) @ along) / length**2, 0.0, 1.0)
    passes_at_m = float(np.linalg.norm(hand_m + share * along - puck_m))
    if share >= 1.0 or passes_at_m > config.contact_m + 0.5 * config.gap_m:
        return station_m
    now, then = (np.arctan2(*(p - puck_m)[::-1]) for p in (hand_m, station_m))
    turn = (then - now + np.pi) % (2 * np.pi) - np.pi
    angle = now + np.clip(turn, -0.9, 0.9)
    return np.asarray(puck_m + (config.contact_m + config.detour_m) * np.array([np.cos(angle), np.sin(angle)]))


def _bounded(displacement_m: Plane, limit_m: float) -> Plane:
    """The same direction, every entry within the limit."""
    return displacement_m / max(1.0, float(np.max(np.abs(displacement_m))) / limit_m)
