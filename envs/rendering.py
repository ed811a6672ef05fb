"""Offscreen rendering: one safe owner for each OpenGL context.

Two traps are handled here, once, for every environment:

* MuJoCo binds an OpenGL back end when it is first imported, and on a machine without a display its default does not work. The context's
  class is therefore taken from the back end that `choose_backend` finds, whatever was imported before.
* Freeing a renderer deletes OpenGL objects *of whichever context is current*. `mujoco.Renderer` does not make its own context
  current first, so closing one renderer silently corrupts the frames of another. `SceneRenderer` always does.
"""

from __future__ import annotations

import atexit
import weakref
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from goalward.envs.distractors import Distractor
from goalward.envs.gl_backend import choose_backend


def _context_class(backend: str) -> Any:
    """MuJoCo's OpenGL context of a back end, independent of the one that MuJoCo bound at its own import."""
    if backend == "egl":
        from mujoco.egl import GLContext
    elif backend == "osmesa":
        from mujoco.osmesa import GLContext
    else:
        from mujoco import GLContext
    return GLContext


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

        Raises:
            UserError: no OpenGL library can be opened here; says what to install.
        """
        self._model = model
        self._config = config
        self._scene = mujoco.MjvScene(model, maxgeom=2000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = config.shadow_size_px > 0
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = config.shadow_size_px > 0
        self._options = mujoco.MjvOption()
        self.distractors: tuple[Distractor, ...] = ()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._rect = mujoco.MjrRect(0, 0, config.width_px, config.height_px)
        self._gl: Any = _context_class(choose_backend())(config.width_px, config.height_px)
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
        self._free.atexit = False
        _close_at_exit(self)

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
        self._camera.fixedcamid = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_CAMERA, camera)
        if self._camera.fixedcamid < 0:
            raise ValueError(f"unknown camera {camera!r}")
        frame = np.empty((self._config.height_px, self._config.width_px, 3), dtype=np.uint8)
        self._gl.make_current()
        mujoco.mjv_updateScene(
            self._model, data, self._options, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene
        )
        for distractor in self.distractors:
            distractor.add_to(self._scene)
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(frame, None, self._rect, self._context)
        return np.ascontiguousarray(frame[::-1])

    def upload_texture(self, texture_id: int) -> None:
        """Sends a changed texture of the model to the graphics context."""
        self._gl.make_current()
        mujoco.mjr_uploadTexture(self._model, self._context, texture_id)

    def close(self) -> None:
        """Frees the context; safe to call twice."""
        self._free()


def _free_context(gl: Any, context: Any) -> None:
    """Frees a context with itself made current first, else another renderer's objects would be deleted."""
    gl.make_current()
    context.free()
    gl.free()


_alive: weakref.WeakSet[SceneRenderer] = weakref.WeakSet()


def _close_at_exit(renderer: SceneRenderer) -> None:
    """Has the renderer closed at exit, before the back end's own exit handler, which was registered earlier, ends its display."""
    if not _alive:
        atexit.unregister(_close_all)
        atexit.register(_close_all)
    _alive.add(renderer)


def _close_all() -> None:
    for renderer in list(_alive):
        renderer.close()
