"""Objects that only stand about: drawn into the picture, unknown to the physics, so that the task itself stays what it is."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

Rectangle = tuple[tuple[float, float], tuple[float, float]]
"""Lower and upper corner (x, y), metres."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DistractorArea:
    """Where distractors of a task may stand, and how large they are."""

    rectangles: tuple[Rectangle, ...]
    """Places in view of the cameras that the robot never sweeps; they do not overlap, and objects share one only if they must."""
    floor_m: float
    """Height of what they stand on."""
    half_size_m: tuple[float, float]
    """Least and largest half width; they are half to twice as high as wide."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Distractor:
    """One object."""

    shape: int
    """`mujoco.mjtGeom`."""
    size_m: NDArray[np.float64]
    """Half extents [3], as MuJoCo takes them for the shape."""
    pos_m: NDArray[np.float64]
    """Centre [3]."""
    mat_9: NDArray[np.float64]
    """Rotation matrix, row by row."""
    rgba: NDArray[np.float32]
    """Colour [4]."""

    def add_to(self, scene: mujoco.MjvScene) -> None:
        """Puts the object into a scene that is about to be drawn."""
        mujoco.mjv_initGeom(scene.geoms[scene.ngeom], self.shape, self.size_m, self.pos_m, self.mat_9, self.rgba)
        scene.ngeom += 1


def draw_distractors(rng: np.random.Generator, area: DistractorArea, num: int) -> tuple[Distractor, ...]:
    """Draws objects: box, cylinder or ellipsoid, upright, of any colour, anywhere in the area but nowhere over its edge.

    Args:
        rng: generator of this draw.
        area: where.
        num: how many.
    """
    shapes = (mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_ELLIPSOID)
    order = rng.permutation(len(area.rectangles))
    found = []
    for number in range(num):
        shape = shapes[rng.integers(len(shapes))]
        low, high = (np.array(corner) for corner in area.rectangles[order[number % len(order)]])
        half = rng.uniform(*area.half_size_m, size=2)
        reach_m = float(np.hypot(*half))  # of a corner, however it is turned
        x, y = rng.uniform(np.minimum(low + reach_m, (low + high) / 2), np.maximum(high - reach_m, (low + high) / 2))
        height = rng.uniform(0.5, 2.0) * half.mean()
        size = np.array([half[0], height, 0.0] if shape == mujoco.mjtGeom.mjGEOM_CYLINDER else [half[0], half[1], height])
        turn = rng.uniform(-np.pi, np.pi)
        mat_9 = np.array([np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1])
        rgba = np.append(rng.uniform(0.05, 0.95, size=3), 1.0).astype(np.float32)
        found.append(Distractor(shape=int(shape), size_m=size, pos_m=np.array([x, y, area.floor_m + height]), mat_9=mat_9, rgba=rgba))
    return tuple(found)
