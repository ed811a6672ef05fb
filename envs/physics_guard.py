"""Notices what MuJoCo does silently: on a bad state it warns in a counter, zeroes controls or resets itself, and carries on."""

from __future__ import annotations

import mujoco
import numpy as np


def disable_autoreset(model: mujoco.MjModel) -> None:
    """Keeps a diverged state visible, instead of MuJoCo's silent reset to the start pose."""
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)


def warning_counts(data: mujoco.MjData) -> np.ndarray:
    """How often each of MuJoCo's warnings was raised so far, int [number of warnings]."""
    return np.array([w.number for w in data.warning])


def physics_fault(data: mujoco.MjData, counts_before: np.ndarray) -> str | None:
    """What went wrong since `counts_before` was taken.

    Returns:
        A sentence naming the warning or the bad quantity, or None if all is well.
    """
    raised = np.nonzero(warning_counts(data) > counts_before)[0]
    if raised.size:
        names = ", ".join(mujoco.mjtWarning(int(i)).name.removeprefix("mjWARN_") for i in raised)
        return f"MuJoCo warning {names}"
    for name in ("qpos", "qvel"):
        if not np.isfinite(getattr(data, name)).all():
            return f"{name} is not finite"
    return None
