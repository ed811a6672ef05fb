"""The scene of `wall`: two rooms, a wall between them with one door, and a round agent on two slides; built as one MJCF text.

Lengths are those of the TwoRoom environment of stable-worldmodel (`envs/two_room/env.py`), whose frame of 224 pixels shows 1.12 m here, so
that **one of its pixels is 5 mm**:

    frame 224 px = 1.12 m, border 14 px = 7 cm, wall 10 px = 5 cm, door 28 px = 14 cm with its centre 63 px = 31.5 cm off the middle,
    agent 7 px = 3.5 cm in radius

      y                          The origin is the middle of the wall; the wall stands on the plane x = 0. The agent's centre can be
      |  #########|#########     anywhere within `REACH_M` of the origin along each axis, but for the wall.
      |  #        :        #
      |  #   o    |        #     Contacts are smooth on purpose: a sphere meets boxes without friction, so it slides along a wall it is
      |  #        |   x    #     pushed against, and rounds the corners of the door.
      |  #########|#########
      +------------------------ x
"""

from __future__ import annotations

import math

import mujoco

PIXEL_M = 0.005
"""A pixel of the peers' frames, which are 224 pixels wide, in metres."""
FRAME_M = 224 * PIXEL_M
BORDER_M = 14 * PIXEL_M
AGENT_RADIUS_M = 7 * PIXEL_M
WALL_HALF_M = 5 * PIXEL_M
DOOR_HALF_M = 14 * PIXEL_M
DOOR_Y_M = (112 - 49) * PIXEL_M
ROOM_HALF_M = FRAME_M / 2 - BORDER_M
REACH_M = ROOM_HALF_M - AGENT_RADIUS_M
"""How far the agent's centre gets from the origin, along each axis."""
FACE_M = WALL_HALF_M + AGENT_RADIUS_M
"""Distance of the agent's centre from the plane x = 0 while it touches the wall."""

CAMERA = "top"
AGENT = "agent"
TIMESTEP_S = 0.002
LAG_S = 0.01
"""Time constant of the drives: how fast the agent takes up a speed."""

WALL_HEIGHT_M = 0.05
_MIDDLE_M = ROOM_HALF_M + 0.02  # of the strip of border that the camera sees whole
BORDER_RECTANGLES = tuple(
    ((x - 0.005 - w, y - 0.005 - h), (x + 0.005 + w, y + 0.005 + h))
    for x, y, w, h in ((-_MIDDLE_M, 0, 0, 0.5), (_MIDDLE_M, 0, 0, 0.5), (0, -_MIDDLE_M, 0.5, 0), (0, _MIDDLE_M, 0.5, 0))
)
"""Where things may stand on the border: four strips, lower and upper corner (x, y) each."""
_EYE_M = 2.2  # height of the camera above the floor
_MAX_FORCE_N = 100.0


def build_wall_model() -> mujoco.MjModel:
    """Compiles the scene: two joints (`agent_x`, `agent_y`), moved by velocity drives; the weight of the agent (1 kg) is borne."""
    fovy = math.degrees(2 * math.atan(FRAME_M / 2 / _EYE_M))
    low, high = -ROOM_HALF_M, ROOM_HALF_M
    walls = {
        "wall_below": (-WALL_HALF_M, WALL_HALF_M, low, DOOR_Y_M - DOOR_HALF_M, "wall"),
        "wall_above": (-WALL_HALF_M, WALL_HALF_M, DOOR_Y_M + DOOR_HALF_M, high, "wall"),
        "border_left": (low - 0.3, low, low - 0.3, high + 0.3, "border"),
        "border_right": (high, high + 0.3, low - 0.3, high + 0.3, "border"),
        "border_below": (low, high, low - 0.3, low, "border"),
        "border_above": (low, high, high, high + 0.3, "border"),
    }
    boxes = "\n".join(_box(name, *sides) for name, sides in walls.items())
    return mujoco.MjModel.from_xml_string(f"""
<mujoco model="wall">
  <option timestep="{TIMESTEP_S}" integrator="implicitfast" gravity="0 0 0"/>
  <visual>
    <headlight ambient="0.42 0.42 0.42" diffuse="0.20 0.20 0.20" specular="0 0 0"/>
    <map znear="0.01" zfar="20"/>
  </visual>
  <asset>
    <texture name="sky" type="skybox" builtin="gradient" rgb1="0.78 0.84 0.90" rgb2="0.42 0.50 0.60" width="64" height="64"/>
    <texture name="floor" type="2d" builtin="checker" rgb1="0.90 0.88 0.83" rgb2="0.85 0.83 0.78" width="128" height="128"/>
    <material name="floor" texture="floor" texrepeat="5 5" texuniform="true" specular="0.05"/>
    <material name="border" rgba="0.20 0.26 0.34 1" specular="0.1"/>
    <material name="wall" rgba="0.16 0.36 0.52 1" specular="0.1"/>
    <material name="agent" rgba="0.86 0.16 0.10 1" specular="0.3" shininess="0.4"/>
    <material name="cap" rgba="0.45 0.04 0.05 1" specular="0.1"/>
  </asset>
  <default>
    <geom condim="1" solref="0.004 1" solimp="0.99 0.999 0.001"/>
    <default class="seen"><geom contype="0" conaffinity="0" mass="0"/></default>
  </default>
  <worldbody>
    <light name="key" pos="-0.9 -1.1 1.8" dir="0.40 0.50 -0.95" diffuse="0.50 0.49 0.47" specular="0.2 0.2 0.2" castshadow="true"/>
    <light name="fill" pos="1.0 0.9 1.6" dir="-0.5 -0.4 -0.9" diffuse="0.24 0.25 0.28" specular="0 0 0" castshadow="false"/>
    <camera name="{CAMERA}" pos="0 0 {_EYE_M}" fovy="{fovy:.6f}"/>
    <camera name="report" pos="0 -1.35 1.45" xyaxes="1 0 0 0 0.7318 0.6816" fovy="38"/>
    <geom name="floor" type="plane" size="2 2 0.1" class="seen" material="floor"/>
{boxes}
    <body name="{AGENT}" pos="0 0 {AGENT_RADIUS_M}">
      <joint name="agent_x" type="slide" axis="1 0 0"/>
      <joint name="agent_y" type="slide" axis="0 1 0"/>
      <geom name="{AGENT}" type="sphere" size="{AGENT_RADIUS_M}" mass="1" group="4"/>
      <geom name="disc" type="cylinder" size="{AGENT_RADIUS_M} {WALL_HEIGHT_M / 2 - 0.002}" pos="0 0 {WALL_HEIGHT_M / 2 - AGENT_RADIUS_M}"
            class="seen" material="agent"/>
      <geom name="cap" type="cylinder" size="{0.4 * AGENT_RADIUS_M} 0.001" pos="0 0 {WALL_HEIGHT_M - AGENT_RADIUS_M}" class="seen"
            material="cap"/>
    </body>
  </worldbody>
  <actuator>
    <velocity name="drive_x" joint="agent_x" kv="{1 / LAG_S}" forcerange="-{_MAX_FORCE_N} {_MAX_FORCE_N}"/>
    <velocity name="drive_y" joint="agent_y" kv="{1 / LAG_S}" forcerange="-{_MAX_FORCE_N} {_MAX_FORCE_N}"/>
  </actuator>
</mujoco>""")


def _box(name: str, x_low: float, x_high: float, y_low: float, y_high: float, material: str) -> str:
    """A wall that stands on the floor."""
    pos = f"{(x_low + x_high) / 2} {(y_low + y_high) / 2} {WALL_HEIGHT_M / 2}"
    size = f"{(x_high - x_low) / 2} {(y_high - y_low) / 2} {WALL_HEIGHT_M / 2}"
    return f'    <geom name="{name}" type="box" pos="{pos}" size="{size}" material="{material}"/>'
