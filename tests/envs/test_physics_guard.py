"""MuJoCo's silent recoveries become named failures."""

import mujoco
import numpy as np
import pytest

from goalward.envs.physics_guard import disable_autoreset, physics_fault, warning_counts

PENDULUM = """
<mujoco><worldbody><body><joint name="hinge" type="hinge" axis="0 1 0"/><geom size="0.1" pos="0 0 -0.5"/></body></worldbody>
<actuator><motor joint="hinge"/></actuator></mujoco>
"""


@pytest.fixture
def physics() -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = mujoco.MjModel.from_xml_string(PENDULUM)
    disable_autoreset(model)
    return model, mujoco.MjData(model)


def test_healthy_physics_has_no_fault(physics: tuple[mujoco.MjModel, mujoco.MjData]) -> None:
    model, data = physics
    counts = warning_counts(data)
    mujoco.mj_step(model, data, nstep=100)
    assert physics_fault(data, counts) is None


@pytest.mark.parametrize(("quantity", "name"), [("ctrl", "BADCTRL"), ("qvel", "BADQVEL"), ("qpos", "BADQPOS")])
def test_a_bad_number_is_named(physics: tuple[mujoco.MjModel, mujoco.MjData], quantity: str, name: str) -> None:
    model, data = physics
    counts = warning_counts(data)
    getattr(data, quantity)[0] = np.nan
    mujoco.mj_step(model, data)
    fault = physics_fault(data, counts)
    assert fault is not None
    assert name in fault


def test_the_simulation_is_not_silently_reset(physics: tuple[mujoco.MjModel, mujoco.MjData]) -> None:
    model, data = physics
    mujoco.mj_step(model, data, nstep=50)
    data.qvel[0] = np.inf
    mujoco.mj_step(model, data)
    assert data.time > 50 * model.opt.timestep


def test_old_warnings_are_not_blamed_on_the_present(physics: tuple[mujoco.MjModel, mujoco.MjData]) -> None:
    model, data = physics
    data.ctrl[0] = np.nan
    mujoco.mj_step(model, data)
    data.ctrl[0] = 0.0
    counts = warning_counts(data)
    mujoco.mj_step(model, data)
    assert physics_fault(data, counts) is None
