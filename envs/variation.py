"""Variations: how a task may differ from what its models were trained on, one thing at a time.

A variation is drawn anew in every episode, from the episode's seed, and shows in the goal image too: a goal is always a picture of the
world that the robot finds. `docs/tasks/variations.md` is their page, `splits.py` makes benchmarks of them.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

from goalward import UserError
from goalward.envs.appearance_config import AppearanceConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Variation:
    """What differs from the plain task."""

    name: str
    """Short name, as in `VARIATIONS`."""
    region: bool = False
    """Goals lie where no training episode ever was."""
    look: AppearanceConfig | None = None
    """How far lights, colours and textures are redrawn; None leaves them."""
    camera_shift_m: float = 0.0
    """Every observed camera is moved so far, in a random direction, ..."""
    camera_turn_rad: float = 0.0
    """... and turned so far, about a random axis."""
    num_distractors: int = 0
    """Objects that stand about, where the robot does not come; they are only seen."""
    action_noise: float = 0.0
    """Standard deviation of what is added to every action that is executed, as a share of the action's limit."""
    action_delay_steps: int = 0
    """An action is executed so many steps later; until then the robot holds."""

    @property
    def moves_cameras(self) -> bool:
        """Whether cameras stand elsewhere than in the plain task."""
        return self.camera_shift_m > 0 or self.camera_turn_rad > 0

    def __post_init__(self) -> None:
        """Checks every number."""
        ranges = (("camera_shift_m", 0.0, 0.3), ("camera_turn_rad", 0.0, 0.5), ("num_distractors", 0, 16), ("action_noise", 0.0, 1.0),
                  ("action_delay_steps", 0, 10))  # fmt: skip
        for field, low, high in ranges:
            if not low <= getattr(self, field) <= high:
                raise UserError(f"variation {self.name!r}: {field}={getattr(self, field)} is out of range {low}..{high}")


_LOOK = AppearanceConfig(keep_materials=True, camera_position_m=0.0, camera_angle_rad=0.0, texture_probability=1.0)

VARIATIONS: dict[str, Variation] = {
    variation.name: variation
    for variation in (
        Variation(name="none"),
        Variation(name="region", region=True),
        Variation(name="look", look=_LOOK),
        Variation(name="camera", camera_shift_m=0.03, camera_turn_rad=math.radians(2.0)),
        Variation(name="distractors", num_distractors=3),
        Variation(name="noise", action_noise=0.2),
        Variation(name="delay", action_delay_steps=1),
    )
}


def find_variation(name: str | Variation) -> Variation:
    """Looks a variation up; one of your own making is handed back as it is.

    Raises:
        UserError: unknown; names the nearest ones.
    """
    if isinstance(name, Variation):
        return name
    if name in VARIATIONS:
        return VARIATIONS[name]
    near = difflib.get_close_matches(str(name), VARIATIONS, n=2, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(VARIATIONS)}"
    raise UserError(f"variation={name!r} is unknown; {hint}")
