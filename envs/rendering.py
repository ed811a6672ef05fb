"""Offscreen rendering: which OpenGL back end, and one safe owner for each context.

Two traps are handled here, once, for every environment:

* MuJoCo chooses its OpenGL back end when it is first imported. `configure_backend` must therefore run before that import: it takes
  the user's `MUJOCO_GL` if set, else the first library that can be opened (EGL, then OSMesa), and says what to install if none can.
* Freeing a renderer deletes OpenGL objects *of whichever context is current*. `mujoco.Renderer` does not make its own context
  current first, so closing one renderer silently corrupts the frames of another. `SceneRenderer` always does.
"""

from __future__ import annotations

import ctypes.util
import os
import platform
import sys
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from goalward import UserError

if TYPE_CHECKING:
    import mujoco
    from numpy.typing import NDArray

BACKENDS = ("egl", "osmesa", "glfw", "cgl", "glx", "wgl")

INSTALL_HINT = (
    "no OpenGL library for offscreen rendering was found. Debian/Ubuntu: `sudo apt-get install -y --no-install-recommends libegl1 libgl1` "
    "(or libosmesa6, then MUJOCO_GL=osmesa). macOS: nothing to install, unset MUJOCO_GL. No GPU is needed"
)


def _library_opens(name: str) -> bool:
    found = ctypes.util.find_library(name)
    if found is None:
        return False
    try:
        ctypes.CDLL(found)
    except OSError:
        return False
    return True


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


def configure_backend() -> str:
    """Chooses the OpenGL back end and records it in `MUJOCO_GL`; call before anything imports mujoco.

    Returns:
        The name of the back end.

    Raises:
        UserError: no back end works here, or `MUJOCO_GL` names one that does not; says what to install.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    available = available_backends()
    if chosen and chosen not in BACKENDS:
        raise UserError(f"MUJOCO_GL={chosen!r} is not a rendering back end; choose one of {', '.join(BACKENDS)}, or unset it")
    if chosen in ("egl", "osmesa") and chosen not in available:
        raise UserError(f"MUJOCO_GL={chosen!r} was asked for, but {INSTALL_HINT}")
    if not chosen:
        if not available:
            raise UserError(INSTALL_HINT)
        chosen = available[0]
        if "mujoco" in sys.modules and platform.system() == "Linux":
            # Too late to choose: mujoco has bound its GLContext already. It falls back to GLFW, which needs a display.
            raise UserError(
                "mujoco was imported before goalward.envs, so the offscreen back end can no longer be chosen; "
                f"import goalward.envs first, or set MUJOCO_GL={chosen}"
            )
    os.environ["MUJOCO_GL"] = chosen
    if chosen in ("egl", "osmesa"):
        os.environ.setdefault("PYOPENGL_PLATFORM", chosen)
    return chosen


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderConfig:
    """How frames are drawn."""

    height_px: int = 128
    """Height of a frame in pixels."""
    width_px: int = 128
    """Width of a frame in pixels."""
    num_samples: int = 4
    """Samples per pixel (antialiasing); 0 turns it off."""
    shadow_size_px: int = 0
    """Side of the shadow map; 0 draws no shadows (5-10 times faster in software)."""


class SceneRenderer:
    """Draws named cameras of one MuJoCo model; owns its OpenGL context and never touches another's."""

    def __init__(self, model: mujoco.MjModel, config: RenderConfig) -> None:
        """Creates the context.

        Args:
            model: compiled model; must outlive the renderer.
            config: frame size and quality.
        """
        import mujoco  # the back end must have been chosen before

        self._mujoco = mujoco
        self._model = model
        self._config = config
        self._scene = mujoco.MjvScene(model, maxgeom=2000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = config.shadow_size_px > 0
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = config.shadow_size_px > 0
        self._options = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._rect = mujoco.MjrRect(0, 0, config.width_px, config.height_px)
        self._gl: Any = mujoco.GLContext(config.width_px, config.height_px)
        self._gl.make_current()
        quality, size = model.vis.quality, model.vis.global_
        saved = (quality.shadowsize, quality.offsamples, size.offwidth, size.offheight)
        # The offscreen buffer is made as small as the frame: in software its size, not the frame's, sets the cost.
        quality.shadowsize, quality.offsamples = config.shadow_size_px, config.num_samples
        size.offwidth, size.offheight = config.width_px, config.height_px
        self._context: Any = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        quality.shadowsize, quality.offsamples, size.offwidth, size.offheight = saved
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        # Runs at `close`, at garbage collection or at exit, whichever comes first.
        self._free = weakref.finalize(self, _free_context, self._gl, self._context)

    def render(self, data: mujoco.MjData, camera: str) -> NDArray[np.uint8]:
        """Draws one frame.

        Args:
            data: state to draw (positions must be up to date).
            camera: name of a camera of the model.

        Returns:
            uint8 [height, width, 3], a fresh array.
        """
        if not self._free.alive:
            raise RuntimeError("the renderer is closed")
        mujoco = self._mujoco
        self._camera.fixedcamid = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_CAMERA, camera)
        if self._camera.fixedcamid < 0:
            raise ValueError(f"unknown camera {camera!r}")
        frame = np.empty((self._config.height_px, self._config.width_px, 3), dtype=np.uint8)
        self._gl.make_current()
        mujoco.mjv_updateScene(
            self._model, data, self._options, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene
        )
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(frame, None, self._rect, self._context)
        return np.ascontiguousarray(frame[::-1])

    def upload_texture(self, texture_id: int) -> None:
        """Sends a changed texture of the model to the graphics context."""
        self._gl.make_current()
        self._mujoco.mjr_uploadTexture(self._model, self._context, texture_id)

    def close(self) -> None:
        """Frees the context; safe to call twice."""
        self._free()


def _free_context(gl: Any, context: Any) -> None:
    """Frees a context with itself made current first, else another renderer's objects would be deleted."""
    gl.make_current()
    context.free()
    gl.free()
