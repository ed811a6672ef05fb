"""How many floating-point operations the matrix products of V-JEPA 2-AC are; operations of all else count nothing.

Letters: S candidates, H horizon steps, T context frames, L tokens of a frame, W width.
"""

from __future__ import annotations

from goalward.wm.vjepa2_ac.config import VJepa2ACConfig


def frame_flop(config: VJepa2ACConfig, *, frames: int = 1, seen: int = 1) -> int:
    """Operations of some frames that attend to so many frames each, themselves included."""
    c = config
    rows = frames * c.num_tokens
    linear = rows * c.depth * (4 * c.width**2 + 2 * c.width * c.hidden) + 2 * frames * c.num_patches * c.dim * c.width
    attention = 2 * rows * seen * c.num_tokens * c.width * c.depth
    return 2 * (linear + attention)


def cached_flop(config: VJepa2ACConfig, *, candidates: int, horizon: int, context: int = 1) -> int:
    """Operations that a rollout needs at least with a key/value cache: one frame per step; what is done once per plan is left out."""
    return candidates * sum(frame_flop(config, seen=context + step) for step in range(horizon))


def naive_flop(config: VJepa2ACConfig, *, candidates: int, horizon: int, context: int = 1) -> int:
    """Operations of a rollout that computes the whole window at every step, under a mask."""
    return candidates * sum(frame_flop(config, frames=context + step, seen=context + step) for step in range(horizon))
