"""How far lights, colours, textures and cameras may vary: plain numbers, apart from `appearance.py` so that they load without MuJoCo."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class AppearanceConfig:
    """How far appearance may vary."""

    light_position_m: float = 0.5
    """Standard deviation of the lights' displacement."""
    light_gain: tuple[float, float] = (0.6, 1.35)
    """Range of the factor on each light's colour."""
    colour: float = 0.15
    """Largest change of a material's colour channel."""
    keep_materials: bool = False
    """Leave the colour of what is painted by a material to the material; False paints it grey before it is changed."""
    camera_position_m: float = 0.03
    """Standard deviation of a camera's displacement."""
    camera_angle_rad: float = 0.025
    """Standard deviation of a camera's rotation about each axis."""
    texture_probability: float = 0.7
    """Share of episodes in which 2-D textures are drawn anew."""
