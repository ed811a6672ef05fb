"""Poses: differences and their application are inverse to one another, and form a group."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from goalward import UserError
from goalward.wm.vjepa2_ac.poses import euler_of, pose_after, pose_difference, rotation_of

angle = st.floats(-math.pi, math.pi)
pitch = st.floats(-1.5, 1.5)
metre = st.floats(-2, 2)
states = st.tuples(metre, metre, metre, angle, pitch, angle, st.floats(0, 1)).map(lambda s: torch.tensor(s, dtype=torch.float64))


def same_pose(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-6) -> bool:
    """Euler angles are unique but for full turns: rotations are compared."""
    apart = (rotation_of(a[..., 3:6]) - rotation_of(b[..., 3:6])).abs().max()
    return bool(apart < tolerance) and bool((a[..., [0, 1, 2, 6]] - b[..., [0, 1, 2, 6]]).abs().max() < tolerance)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(states, states)
def test_a_difference_leads_from_start_to_end(start, end):
    assert same_pose(pose_after(start, pose_difference(start, end)), end)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(states)
def test_no_action_changes_nothing(state):
    assert same_pose(pose_after(state, torch.zeros(7, dtype=torch.float64)), state)
    assert torch.allclose(pose_difference(state, state), torch.zeros(7, dtype=torch.float64), atol=1e-9)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(states, states, states)
def test_differences_compose(a, b, c):
    first, second = pose_difference(a, b), pose_difference(b, c)
    assert same_pose(pose_after(pose_after(a, first), second), c)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(states)
def test_euler_angles_give_rotations_and_come_back(state):
    rotation = rotation_of(state[3:6])
    assert torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-12)
    assert float(torch.linalg.det(rotation)) == pytest.approx(1.0)
    assert torch.allclose(rotation_of(euler_of(rotation)), rotation, atol=1e-6)


def test_axes_and_order():
    quarter = math.pi / 2
    x, y, z = torch.eye(3, dtype=torch.float64)
    assert torch.allclose(rotation_of(torch.tensor([quarter, 0, 0], dtype=torch.float64)) @ y, z)
    assert torch.allclose(rotation_of(torch.tensor([0, quarter, 0], dtype=torch.float64)) @ z, x)
    assert torch.allclose(rotation_of(torch.tensor([0, 0, quarter], dtype=torch.float64)) @ x, y)
    # About fixed axes: first x, last z.
    assert torch.allclose(rotation_of(torch.tensor([quarter, 0, quarter], dtype=torch.float64)) @ y, z)


def test_rotations_are_applied_in_the_base_frame():
    state = torch.tensor([0, 0, 0, math.pi / 2, 0, 0, 0.5], dtype=torch.float64)
    action = torch.tensor([0, 0, 0, 0, 0, math.pi / 2, 0], dtype=torch.float64)
    expected = rotation_of(action[3:6]) @ rotation_of(state[3:6])
    assert torch.allclose(rotation_of(pose_after(state, action)[3:6]), expected)


def test_the_gripper_stays_between_open_and_closed():
    state = torch.zeros(3, 7)
    state[:, 6] = torch.tensor([0.1, 0.5, 0.9])
    action = torch.zeros(3, 7)
    action[:, 6] = torch.tensor([-0.5, 0.25, 0.5])
    assert torch.equal(pose_after(state, action)[:, 6], torch.tensor([0.0, 0.75, 1.0]))


@pytest.mark.parametrize("pitch", [math.pi / 2, -math.pi / 2])
def test_at_ninety_degrees_of_pitch_yaw_is_zero_and_the_rotation_right(pitch):
    rotation = rotation_of(torch.tensor([0.3, pitch, -0.4], dtype=torch.float64))
    angles = euler_of(rotation)
    assert float(angles[2]) == 0.0
    assert torch.allclose(rotation_of(angles), rotation, atol=1e-6)


def test_shapes_broadcast_and_dtypes_stay():
    after = pose_after(torch.zeros(4, 1, 7), torch.full((4, 3, 7), 0.1))
    assert after.shape == (4, 3, 7)
    assert after.dtype == torch.float32


def test_equal_to_scipy():
    transform = pytest.importorskip("scipy.spatial.transform")
    rng = np.random.default_rng(0)
    state, action = (rng.uniform(-3, 3, (200, 7)) for _ in range(2))
    turn, before = (transform.Rotation.from_euler("xyz", values[:, 3:6]) for values in (action, state))
    after = pose_after(torch.from_numpy(state), torch.from_numpy(action)).numpy()
    np.testing.assert_allclose(after[:, 3:6], (turn * before).as_euler("xyz"), atol=1e-9)
    back = pose_difference(torch.from_numpy(state), torch.from_numpy(action)).numpy()
    np.testing.assert_allclose(back[:, 3:6], (turn * before.inv()).as_euler("xyz"), atol=1e-9)


@pytest.mark.parametrize("wrong", [torch.zeros(6), torch.zeros(2, 7, dtype=torch.int64), torch.tensor(1.0)])
def test_other_shapes_are_refused(wrong):
    with pytest.raises(UserError, match=r"must be floats \[\.\.\., 7\]"):
        pose_after(wrong, torch.zeros(7))
    with pytest.raises(UserError, match="end: "):
        pose_difference(torch.zeros(7), wrong)
