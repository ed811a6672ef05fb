"""The scene of `reacher`: the two-link planar arm of the dm_control suite, from the suite's own model file, seen from above.

Bodies, joints, masses, damping, motors and the physics step (20 ms) are the suite's. Changed for the task: the target is taken out, since
the goal is an image of the arm; the camera stands so that the arm's circle fills the frame; the floor does not mirror (in software
rendering that would draw everything twice); arm and finger tip stand out from the floor and from each other.
"""

from __future__ import annotations

import math

import mujoco
from dm_control.suite import reacher

CAMERA = "top"
JOINTS = ("shoulder", "wrist")
TIP = "finger"
GEAR_NM = 0.05
"""Torque of a motor at the suite's largest control, which is 1."""
LINK_M = 0.12
"""Length of either link, from axis to axis or tip."""

TIMESTEP_S = 0.02

_VIEW_M = 0.53  # side of what a frame shows of the plane in which the arm moves: twice two links, and a rim
CORNERS = tuple(((x - 0.02, y - 0.02), (x + 0.02, y + 0.02)) for x in (-0.225, 0.225) for y in (-0.225, 0.225))
"""Squares in the corners of the frame, which no arm reaches: lower and upper corner (x, y) each."""
_EYE_M = 0.9  # height of the camera above that plane
_ARM_HEIGHT_M = 0.01
_MATERIALS = {"self": (0.93, 0.74, 0.28), "effector": (0.95, 0.22, 0.16), "decoration": (0.33, 0.47, 0.62)}
_FLOOR = ((0.16, 0.20, 0.27), (0.20, 0.245, 0.32))


def build_reacher_model() -> mujoco.MjModel:
    """Compiles the scene: joints `shoulder` (endless) and `wrist` (up to 160 degrees either way), motors of the same names."""
    xml, assets = reacher.get_model_and_assets()
    spec = mujoco.MjSpec.from_string(xml.decode(), include=assets)
    spec.delete(spec.geom("target"))
    for name, colour in _MATERIALS.items():
        spec.material(name).rgba = (*colour, 1.0)
    grid = spec.texture("grid")
    grid.rgb1, grid.rgb2 = _FLOOR
    grid.markrgb = _FLOOR[1]
    spec.material("grid").reflectance = 0.0
    fovy = math.degrees(2 * math.atan(_VIEW_M / 2 / _EYE_M))
    spec.worldbody.add_camera(name=CAMERA, pos=[0.0, 0.0, _ARM_HEIGHT_M + _EYE_M], fovy=fovy)
    tilt = math.radians(40) / 2  # the camera for people looks down from the front
    spec.worldbody.add_camera(name="report", pos=[0.0, -0.58, 0.68], quat=[math.cos(tilt), math.sin(tilt), 0.0, 0.0], fovy=40.0)
    return spec.compile()
