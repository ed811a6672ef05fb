"""What `push` adds to the Jaco scene: a puck on a tray, and a round post in the hand that pushes it.

    side view      | |   hand holds the post at a fixed height
                   |_|  ___
      rim _________________|___|________ rim      post clears the table by 12 mm and the rim by 6 mm

Contacts are few and smooth on purpose, so that 2 ms steps are stable and quick:

* the puck stands on a plane (cylinder on plane, the table's top);
* the post and the tray's rim meet a sphere of the puck's radius at half the puck's height: as its round wall would, but with an analytic
  normal that is always horizontal, so that nothing ever tips the puck;
* the arm touches nothing: fingers and hand stay above the puck (`tests/envs/test_push.py` measures it).

The rim is drawn 6 mm high and the post passes over it: the hand can get behind a puck that lies at the rim.
"""

from __future__ import annotations

from typing import Any

import mujoco

from goalward.envs.jaco_scene import build_model

PUCK = "puck"
PUCK_RADIUS_M = 0.04
PUCK_HEIGHT_M = 0.05
PUCK_MASS_KG = 0.2
PUCK_RGBA = (1.0, 0.50, 0.05, 1.0)
POST_RADIUS_M = 0.018
POST_CLEARANCE_M = 0.012
POST_GRIPPED_M = 0.045
"""Length of the post above where it is held."""
POST_SITE = "jaco_arm/jaco_hand/post"
"""Where the fingers hold the post, on its axis: this is the hand's position in the task."""
FINGER_QPOS = 1.1
HAND_HEIGHT_M = 0.10
CONTACT_M = PUCK_RADIUS_M + POST_RADIUS_M
"""Distance of the two axes while post and puck touch."""
# Closer and lower than the cameras of `reach`: a linear probe of the shipped encoder finds the puck to 0.9 cm here, to 1.2 cm there.
CAMERA_POSES_M = {
    "front": ((0.0, -1.35, 0.62), (0.0, -0.45, 0.10)),
    "side": ((0.95, -0.46, 0.60), (0.0, -0.45, 0.10)),
}
TRAY_LOW_M = (-0.20, -0.56)
TRAY_HIGH_M = (0.20, -0.36)
"""Where the puck's axis may be."""
OUTER_TRAY_LOW_M = (-0.28, -0.56)
OUTER_TRAY_HIGH_M = (0.28, -0.36)
"""The same on the wider tray of the variation `region`."""

# Friction coefficients (sliding): wood on laminate, and a smooth post, which a puck rolls off if it is pushed beside its middle.
TABLE_FRICTION = 0.4
POST_FRICTION = 0.15

_RIM_M = (0.004, 0.006)  # half width, height
_HARD = {"solref": (0.01, 1.0), "solimp": (0.99, 0.999, 0.001)}  # as the arm's own geoms: a squeezed puck is not driven through the rim
_HIDDEN = {"group": 4, "rgba": (1, 1, 1, 0.2)}
_STANDS, _IS_PUSHED = 4, 8  # contact bits; the arm and the table use 1 and 2
_HELD_AT_M = -0.193  # along the hand's axis, as high as its pinch point; three fingers closed to 1.1 rad touch a post of this radius there


def build_push_model(*, outer: bool = False) -> mujoco.MjModel:
    """Compiles the scene; the puck's free joint comes after the arm's and the fingers' joints.

    Args:
        outer: with the wider tray.
    """
    corners = (OUTER_TRAY_LOW_M, OUTER_TRAY_HIGH_M) if outer else (TRAY_LOW_M, TRAY_HIGH_M)

    def furnish(root: Any, hand: Any) -> None:
        root.option.cone = "elliptic"
        _add_tray(root, *corners)
        _add_puck(root.worldbody)
        _add_post(hand)

    return build_model(name="push", furnish=furnish, cameras=CAMERA_POSES_M)


def _add_tray(root: Any, low_m: tuple[float, float], high_m: tuple[float, float]) -> None:
    """A mat with a rim around it, the plane that the puck stands on, and the four planes that keep it inside."""
    world = root.worldbody
    half, height = _RIM_M
    low, high = ([v + sign * PUCK_RADIUS_M for v in corner] for sign, corner in ((-1, low_m), (1, high_m)))
    middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
    size = [(b - a) / 2 for a, b in zip(low, high, strict=True)]
    root.find("geom", "mat").set_attributes(size=(*size, 0.001), pos=(*middle, 0.0005))
    world.add("geom", name="ground", type="plane", size=(1, 1, 1), contype=_STANDS, conaffinity=0, friction=(TABLE_FRICTION, 0.005, 1e-4),
              **_HARD, **_HIDDEN)
    for axis in (0, 1):
        for side, edge in ((1, low[axis]), (-1, high[axis])):
            name = f"rim_{'xy'[axis]}_{'low' if side > 0 else 'high'}"
            inward, pos, extent = [0.0, 0.0, 0.0], [*middle, height / 2], [size[0] + 2 * half, size[1] + 2 * half, height / 2]
            inward[axis], pos[axis], extent[axis] = side, edge, half
            world.add("geom", name=f"{name}_wall", type="plane", size=(1, 1, 1), pos=pos, zaxis=inward, contype=_IS_PUSHED, conaffinity=0,
                      friction=(POST_FRICTION, 0.005, 1e-4), **_HARD, **_HIDDEN)
            pos[axis] -= side * half
            world.add("geom", name=name, type="box", size=extent, pos=pos, rgba=(0.86, 0.87, 0.88, 1), contype=0, conaffinity=0)


def _add_puck(world: Any) -> None:
    body = world.add("body", name=PUCK, pos=(0, (TRAY_LOW_M[1] + TRAY_HIGH_M[1]) / 2, PUCK_HEIGHT_M / 2))
    body.add("freejoint", name=PUCK)
    body.add("geom", name=PUCK, type="cylinder", size=(PUCK_RADIUS_M, PUCK_HEIGHT_M / 2), mass=PUCK_MASS_KG, rgba=PUCK_RGBA,
             contype=_STANDS, conaffinity=_STANDS, friction=(TABLE_FRICTION, 0.005, 1e-4), **_HARD)
    body.add("geom", name="puck_wall", type="sphere", size=(PUCK_RADIUS_M,), mass=0, contype=_IS_PUSHED, conaffinity=_IS_PUSHED,
             friction=(POST_FRICTION, 0.005, 1e-4), **_HARD, **_HIDDEN)


def _add_post(hand: Any) -> None:
    """A post between the fingers; the hand's frame is parallel to the world's while the hand points down."""
    body = hand.mjcf_model.find("body", "hand")
    below_m = HAND_HEIGHT_M - POST_CLEARANCE_M
    half = (below_m + POST_GRIPPED_M) / 2
    body.add("site", name="post", pos=(0, 0, _HELD_AT_M), quat=hand.pinch_site.quat)
    body.add("geom", name="post", type="cylinder", size=(POST_RADIUS_M, half), pos=(0, 0, _HELD_AT_M - below_m + half), mass=0.05,
             rgba=(0.93, 0.94, 0.96, 1), contype=_IS_PUSHED, conaffinity=0, friction=(POST_FRICTION, 0.005, 1e-4), **_HARD)
