"""The geometry of pushing one round thing with another, without physics."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from goalward import UserError
from goalward.envs.push_oracle import PushConfig, go_round, push_displacement

CONFIG = PushConfig()
coordinate = st.floats(-0.3, 0.3)
point = st.tuples(coordinate, coordinate).map(np.array)


def _slide(hand_m: np.ndarray, puck_m: np.ndarray) -> np.ndarray:
    """A frictionless puck that is overlapped by the post gives way along the line of centres."""
    line = puck_m - hand_m
    distance = max(float(np.linalg.norm(line)), 1e-9)
    return puck_m if distance >= CONFIG.contact_m else hand_m + line / distance * CONFIG.contact_m


@given(point, point, point)
def test_displacement_is_finite_and_in_limits(hand_m: np.ndarray, puck_m: np.ndarray, place_m: np.ndarray) -> None:
    step = push_displacement(hand_m, puck_m, place_m, CONFIG)
    assert np.isfinite(step).all()
    assert (np.abs(step) <= CONFIG.max_step_m + 1e-12).all()


@given(point, st.floats(0, 2 * np.pi), st.floats(0, 0.99))
def test_at_its_place_the_puck_is_left_alone(puck_m: np.ndarray, angle: float, share: float) -> None:
    place_m = puck_m + share * CONFIG.near_m * np.array([np.cos(angle), np.sin(angle)])
    np.testing.assert_array_equal(push_displacement(puck_m + 0.06, puck_m, place_m, CONFIG), 0.0)


@given(point, st.floats(0, 2 * np.pi), st.floats(0.02, 0.3))
def test_right_behind_the_puck_the_push_goes_straight_to_the_place(puck_m: np.ndarray, angle: float, way_m: float) -> None:
    ahead = np.array([np.cos(angle), np.sin(angle)])
    step = push_displacement(puck_m - CONFIG.contact_m * ahead, puck_m, puck_m + way_m * ahead, CONFIG)
    np.testing.assert_allclose(step, min(CONFIG.max_push_m, CONFIG.gain * way_m) * ahead, atol=1e-9)


@given(point, point, point)
def test_going_round_never_crosses_the_puck(hand_m: np.ndarray, puck_m: np.ndarray, place_m: np.ndarray) -> None:
    assume(np.linalg.norm(hand_m - puck_m) > CONFIG.contact_m + 0.02)
    assume(np.linalg.norm(place_m - puck_m) > CONFIG.near_m)
    ahead = (place_m - puck_m) / np.linalg.norm(place_m - puck_m)
    station_m = puck_m - (CONFIG.contact_m + CONFIG.gap_m) * ahead
    to_m = go_round(hand_m, puck_m, station_m, CONFIG)
    along = to_m - hand_m
    share = np.clip((puck_m - hand_m) @ along / max(float(along @ along), 1e-12), 0, 1)
    assert np.linalg.norm(hand_m + share * along - puck_m) >= CONFIG.contact_m


@given(point, point, point)
def test_a_frictionless_puck_gets_to_its_place(hand_m: np.ndarray, puck_m: np.ndarray, place_m: np.ndarray) -> None:
    assume(np.linalg.norm(hand_m - puck_m) > CONFIG.contact_m + 0.02)
    for _ in range(80):
        step = push_displacement(hand_m, puck_m, place_m, CONFIG)
        for _ in range(20):
            hand_m = hand_m + step / 20
            puck_m = _slide(hand_m, puck_m)
    assert np.linalg.norm(place_m - puck_m) < 0.01


@pytest.mark.parametrize("field", ["gain", "contact_m", "near_m"])
def test_bad_settings_name_the_field(field: str) -> None:
    with pytest.raises(UserError, match=field):
        PushConfig(**{field: -1.0})
