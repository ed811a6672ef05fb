"""V-JEPA 2-AC's states and actions, on the device and batched: an end-effector pose, and the difference of two.

A state is (x, y, z, roll, pitch, yaw, closedness): metres in the robot's base frame, Euler angles about fixed axes x, y, z in radians
(SciPy's "xyz", as DROID records them), and how far the gripper is closed, 0 to 1. An action is the difference of two *achieved* states a
quarter of a second apart (`notebooks/utils/mpc_utils.py`, `app/vjepa_droid/droid.py` of the public repository):

    position' = position + dx        rotation' = R(d angles) R(angles)        closedness' = clip(closedness + dg, 0, 1)
    R(roll, pitch, yaw) = Rz(yaw) Ry(pitch) Rx(roll)

Angles are computed in float64 where the device has it: a gripper that points down has a roll near pi, where the last bit decides the sign.
At a pitch of 90 degrees roll and yaw are not unique; yaw is 0 then, as SciPy has it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from goalward import UserError
from goalward.wm.vjepa2_ac.config import STATE_DIM

_GIMBAL = 1e-7
"""Cosine of the pitch below which roll and yaw are taken for one."""


def pose_after(state: Tensor, action: Tensor) -> Tensor:
    """Moves states by actions.

    Args:
        state: [..., 7].
        action: [..., 7]; broadcast against the states.

    Returns:
        [..., 7], of the states' dtype; differentiable except at a pitch of 90 degrees.

    Raises:
        UserError: Another number of entries.
    """
    _check(state, "state")
    _check(action, "action")
    wide, turn = _wide(state), _wide(action)
    rotation = rotation_of(turn[..., 3:6]) @ rotation_of(wide[..., 3:6])
    position, closedness = wide[..., :3] + turn[..., :3], (wide[..., 6:] + turn[..., 6:]).clamp(0.0, 1.0)
    return torch.cat([position, euler_of(rotation), closedness], dim=-1).to(state.dtype)


def pose_difference(start: Tensor, end: Tensor) -> Tensor:
    """The action that leads from one state to another, [..., 7]; undone by `pose_after`.

    Raises:
        UserError: Another number of entries.
    """
    _check(start, "start")
    _check(end, "end")
    before, after = _wide(start), _wide(end)
    rotation = rotation_of(after[..., 3:6]) @ rotation_of(before[..., 3:6]).transpose(-1, -2)
    return torch.cat([after[..., :3] - before[..., :3], euler_of(rotation), after[..., 6:] - before[..., 6:]], dim=-1).to(start.dtype)


def rotation_of(angles: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of Euler angles [..., 3] about the fixed axes x, y, z, radians."""
    (sx, sy, sz), (cx, cy, cz) = angles.sin().unbind(-1), angles.cos().unbind(-1)
    rows = [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx, sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx]
    return torch.stack([*rows, -sy, cy * sx, cy * cx], dim=-1).reshape(*angles.shape[:-1], 3, 3)


def euler_of(rotation: Tensor) -> Tensor:
    """Euler angles [..., 3] about the fixed axes x, y, z, radians, of rotation matrices [..., 3, 3]: in (-pi, pi], pitch in +-pi/2."""
    r = rotation
    cosine_pitch = torch.hypot(r[..., 0, 0], r[..., 1, 0])
    locked = cosine_pitch < _GIMBAL
    pitch = torch.atan2(-r[..., 2, 0], cosine_pitch)
    roll = torch.where(locked, torch.atan2(-r[..., 1, 2], r[..., 1, 1]), torch.atan2(r[..., 2, 1], r[..., 2, 2]))
    yaw = torch.where(locked, 0.0, torch.atan2(r[..., 1, 0], r[..., 0, 0]))
    return torch.stack([roll, pitch, yaw], dim=-1)


def _wide(values: Tensor) -> Tensor:
    # Apple's GPUs have no float64.
    return values if values.device.type == "mps" else values.to(torch.float64)


def _check(values: Tensor, name: str) -> None:
    if values.ndim < 1 or values.shape[-1] != STATE_DIM or not values.dtype.is_floating_point:
        raise UserError(
            f"{name}: {str(values.dtype).removeprefix('torch.')} of shape {list(values.shape)}; must be floats [..., {STATE_DIM}]: "
            "x, y, z in metres, roll, pitch, yaw in radians, gripper closedness"
        )
