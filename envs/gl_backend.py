"""Which OpenGL back end draws frames here, and what to install where none can; imports no OpenGL and no MuJoCo.

Checked before MuJoCo is imported, because with `MUJOCO_GL=egl` and no EGL library that import itself fails, with an error that helps
nobody.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import platform
from functools import cache

from goalward import UserError

BACKENDS = ("egl", "osmesa", "glfw", "cgl", "glx", "wgl")

INSTALL_HINT = (
    "no OpenGL library for offscreen rendering was found. Debian/Ubuntu: `sudo apt-get install -y --no-install-recommends libegl1 libgl1` "
    "(or libosmesa6, then MUJOCO_GL=osmesa). macOS: nothing to install, unset MUJOCO_GL. No GPU is needed"
)


@cache
def _library_opens(name: str) -> bool:
    found = ctypes.util.find_library(name)
    if found is None:
        return False
    try:
        ctypes.CDLL(found)
    except OSError:
        return False
    return True


def prefer_offscreen() -> None:
    """Sets `MUJOCO_GL`, unless the user has, before MuJoCo or dm_control is imported: else they try a window system first, and complain."""
    if "MUJOCO_GL" not in os.environ and (available := available_backends()):
        os.environ["MUJOCO_GL"] = available[0]


def available_backends() -> tuple[str, ...]:
    """The back ends whose system libraries can be opened here, best first."""
    if platform.system() == "Darwin":
        return ("cgl",)
    if platform.system() == "Windows":
        return ("wgl",)
    backends = []
    # EGL alone loads but has no GL entry points: PyOpenGL also needs libGL (or libOpenGL).
    if _library_opens("EGL") and (_library_opens("GL") or _library_opens("OpenGL")):
        backends.append("egl")
    if _library_opens("OSMesa"):
        backends.append("osmesa")
    return tuple(backends)


def choose_backend() -> str:
    """Chooses the OpenGL back end: the user's `MUJOCO_GL` if set, else the first whose libraries can be opened.

    Returns:
        One of `BACKENDS`.

    Raises:
        UserError: no back end works here, or `MUJOCO_GL` names one that does not; says what to install.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    if chosen and chosen not in BACKENDS:
        raise UserError(f"MUJOCO_GL={chosen!r} is not a rendering back end; choose one of {', '.join(BACKENDS)}, or unset it")
    available = available_backends()
    if chosen in ("egl", "osmesa") and chosen not in available:
        raise UserError(f"MUJOCO_GL={chosen!r} was asked for, but {INSTALL_HINT}")
    if not chosen and not available:
        raise UserError(INSTALL_HINT)
    return chosen or available[0]
