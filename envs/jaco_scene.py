"""The scene of the Jaco tasks: an arm with hand on a table, two fixed cameras, three lights; built from dm_control's own entities.

The base of the arm is the origin of the world and of every position in the task; the table top is the plane z = 0; the arm works
over the half of the table with negative y.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mujoco
from dm_control import mjcf
from dm_control.entities.manipulators import kinova

ARM_JOINTS = tuple(f"jaco_arm/joint_{i}" for i in range(1, 7))
FINGER_JOINTS = tuple(f"jaco_arm/jaco_hand/finger_{i}" for i in range(1, 4))
PINCH_SITE = "jaco_arm/jaco_hand/pinchsite"
TABLE_TEXTURE = "table"
TABLE_GEOM = "table"
TABLE_TEXTURE_SIZE_PX = 128
TABLE_MARGINS_M = (
    ((-0.57, -0.48), (-0.40, -0.12)), ((-0.57, -0.12), (-0.40, 0.24)), ((-0.40, 0.11), (-0.12, 0.25)),
    ((0.12, 0.11), (0.40, 0.25)), ((0.40, -0.15), (0.57, 0.24)),
)  # fmt: skip
"""Parts of the table, lower and upper corner (x, y), that a camera sees and over which the arm's hand never comes."""

Pose = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Position of a camera's eye and the point it looks at, metres."""
# Vertical field of view in degrees.
CAMERA_POSES_M: dict[str, Pose] = {
    "front": ((0.0, -1.45, 0.50), (0.0, -0.40, 0.26)),
    "side": ((1.05, -0.44, 0.54), (0.0, -0.40, 0.26)),
}
CAMERA_FOVY_DEG = 38.0


def _look_at(eye: tuple[float, float, float], target: tuple[float, float, float]) -> str:
    """MuJoCo's `xyaxes` of a camera at `eye` that looks at `target` with the world's z axis up."""
    import numpy as np

    back = np.subtract(eye, target)
    right = np.cross((0.0, 0.0, 1.0), back)
    right /= np.linalg.norm(right)
    up = np.cross(back, right)
    up /= np.linalg.norm(up)
    return " ".join(f"{v:.9f}" for v in (*right, *up))


def _add_room(root: Any) -> None:
    """Floor, table, sky and lights."""
    asset, world = root.asset, root.worldbody
    asset.add("texture", name="sky", type="skybox", builtin="gradient", rgb1=(0.78, 0.84, 0.90), rgb2=(0.42, 0.50, 0.60),
              width=64, height=64)
    asset.add("texture", name="floor", type="2d", builtin="checker", rgb1=(0.60, 0.63, 0.66), rgb2=(0.54, 0.57, 0.60),
              width=128, height=128)
    asset.add("material", name="floor", texture="floor", texrepeat=(6, 6), texuniform=True, specular=0.1)
    asset.add("texture", name=TABLE_TEXTURE, type="2d", builtin="flat", rgb1=(0.80, 0.66, 0.48), mark="random",
              markrgb=(0.72, 0.57, 0.40), random=0.04, width=TABLE_TEXTURE_SIZE_PX, height=TABLE_TEXTURE_SIZE_PX)
    asset.add("material", name="table", texture=TABLE_TEXTURE, texrepeat=(1, 1), specular=0.2, shininess=0.3)
    asset.add("material", name="frame", rgba=(0.30, 0.32, 0.35, 1))
    asset.add("material", name="mat", rgba=(0.16, 0.33, 0.42, 1), specular=0.1)
    world.add("geom", name="floor", type="plane", size=(4, 4, 0.1), pos=(0, 0, -0.75), material="floor")
    world.add("geom", name=TABLE_GEOM, type="box", size=(0.62, 0.60, 0.02), pos=(0, -0.33, -0.02), material="table")
    world.add("geom", name="mat", type="box", size=(0.34, 0.26, 0.001), pos=(0, -0.42, 0.0005), material="mat",
              contype=0, conaffinity=0)
    for i, (x, y) in enumerate(((-0.56, -0.87), (0.56, -0.87), (-0.56, 0.21), (0.56, 0.21))):
        world.add("geom", name=f"leg_{i}", type="box", size=(0.03, 0.03, 0.355), pos=(x, y, -0.395), material="frame")
    world.add("light", name="key", pos=(0.8, -1.2, 1.8), dir=(-0.45, 0.50, -0.95), diffuse=(0.55, 0.53, 0.50),
              specular=(0.25, 0.25, 0.25), castshadow=True)
    world.add("light", name="fill", pos=(-1.2, -0.8, 1.5), dir=(0.7, 0.3, -0.8), diffuse=(0.28, 0.30, 0.34),
              specular=(0.05, 0.05, 0.05), castshadow=False)
    world.add("light", name="top", directional=True, pos=(0, 0, 2.5), dir=(0, 0.1, -1), diffuse=(0.22, 0.22, 0.22),
              specular=(0, 0, 0), castshadow=False)


def build_model(
    *, name: str = "reach", furnish: Callable[[Any, Any], None] | None = None, cameras: Mapping[str, Pose] = CAMERA_POSES_M
) -> mujoco.MjModel:
    """Compiles the scene.

    Args:
        name: name of the model.
        furnish: adds what a task needs; called with the finished scene's root (`mjcf.RootElement`) and the hand (`kinova.JacoHand`).
        cameras: name -> (position of the eye, point looked at) of the observed cameras.

    Returns:
        The compiled model: 9 joints (6 of the arm, 3 fingers) driven by velocity actuators with Kinova's torque and speed limits, 2 ms
        physics step, gravity compensated on the arm (as the real arm's firmware does).
    """
    root = mjcf.RootElement(model=name)
    root.option.timestep = 0.002
    root.option.integrator = "implicitfast"
    root.visual.headlight.set_attributes(ambient=(0.32, 0.32, 0.32), diffuse=(0.12, 0.12, 0.12), specular=(0, 0, 0))
    root.visual.map.set_attributes(znear=0.01, zfar=20)
    _add_room(root)
    arm, hand = kinova.JacoArm(), kinova.JacoHand(use_pinch_site_as_tcp=True)
    arm.attach(hand)
    root.worldbody.attach(arm.mjcf_model)
    for camera, (eye, target) in cameras.items():
        root.worldbody.add("camera", name=camera, pos=eye, xyaxes=_look_at(eye, target), fovy=CAMERA_FOVY_DEG)
    root.worldbody.add("camera", name="report", pos=(0.88, -1.38, 0.80), xyaxes=_look_at((0.88, -1.38, 0.80), (0, -0.30, 0.22)),
                       fovy=36)
    if furnish is not None:
        furnish(root, hand)
    spec = mujoco.MjSpec.from_string(root.to_xml_string(), root.get_assets())
    for body in spec.bodies:  # dm_control's MJCF schema does not know this attribute
        if body.name.startswith("jaco_arm/"):
            body.gravcomp = 1.0
    spec.assets = root.get_assets()
    return spec.compile()
