"""Redraws lights, colours, textures and camera poses, so that an encoder pretrained on the videos is not a detector of one scene."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from goalward.envs.appearance_config import AppearanceConfig
from goalward.envs.rendering import SceneRenderer

_DEFAULT_RGBA = np.array([0.5, 0.5, 0.5, 1.0], dtype=np.float32)


class Appearance:
    """The original look of a model, and random variations of it."""

    def __init__(self, model: mujoco.MjModel, config: AppearanceConfig) -> None:
        """Remembers the original look of `model`, which `draw` changes in place."""
        self._model = model
        self._config = config
        self._fields = ("light_pos", "light_diffuse", "mat_rgba", "geom_rgba", "cam_pos", "cam_quat", "tex_data")
        self._original = {name: np.array(getattr(model, name)) for name in self._fields}
        headlight = model.vis.headlight
        self._ambient = np.array(headlight.ambient)

    def restore(self) -> None:
        """Puts the original look back (textures need `upload` in the renderer)."""
        for name in self._fields:
            getattr(self._model, name)[:] = self._original[name]
        self._model.vis.headlight.ambient[:] = self._ambient

    def draw(self, rng: np.random.Generator, renderer: SceneRenderer) -> None:
        """Draws a new look.

        Args:
            rng: generator of this draw.
            renderer: receives changed textures.
        """
        model, config = self._model, self._config
        self.restore()
        model.light_pos += rng.normal(0, config.light_position_m, size=model.light_pos.shape)
        model.light_diffuse *= rng.uniform(*config.light_gain, size=(model.nlight, 1))
        model.light_diffuse *= rng.uniform(0.85, 1.15, size=(model.nlight, 3))
        model.vis.headlight.ambient[:] = self._ambient * rng.uniform(0.7, 1.3)
        for name in ("mat_rgba", "geom_rgba"):
            rgba = getattr(model, name)
            shift = rng.uniform(-config.colour, config.colour, size=(len(rgba), 3))
            if name == "geom_rgba" and config.keep_materials:  # MuJoCo: any other colour than the default one overrides the material's
                shift[(model.geom_matid >= 0) & (rgba == _DEFAULT_RGBA).all(axis=1)] = 0.0
            rgba[:, :3] = np.clip(rgba[:, :3] + shift, 0.02, 1.0)
        model.cam_pos += rng.normal(0, config.camera_position_m, size=model.cam_pos.shape)
        for i in range(model.ncam):
            turn, quat = np.zeros(4), np.zeros(4)
            mujoco.mju_euler2Quat(turn, rng.normal(0, config.camera_angle_rad, size=3), "xyz")
            mujoco.mju_mulQuat(quat, self._original["cam_quat"][i], turn)
            model.cam_quat[i] = quat
        varied = rng.random() < config.texture_probability
        for i in range(model.ntex):
            if varied and model.tex_type[i] == int(mujoco.mjtTexture.mjTEXTURE_2D):
                _fill_texture(model, i, rng)
        self.upload(renderer)

    def upload(self, renderer: SceneRenderer) -> None:
        """Shows the textures of the last draw to one more renderer of the model."""
        for i in range(self._model.ntex):
            renderer.upload_texture(i)


def _fill_texture(model: Any, index: int, rng: np.random.Generator) -> None:
    """Overwrites one 2-D texture with random stripes, checks or smooth noise in two random colours."""
    height, width, channels = model.tex_height[index], model.tex_width[index], model.tex_nchannel[index]
    start = model.tex_adr[index]
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    kind, frequency, angle = rng.integers(3), rng.uniform(2, 10), rng.uniform(0, np.pi)
    if kind == 0:
        pattern = np.sin(2 * np.pi * frequency * (np.cos(angle) * rows + np.sin(angle) * columns)) > 0
    elif kind == 1:
        pattern = (np.floor(rows * frequency) + np.floor(columns * frequency)) % 2
    else:
        waves = [np.sin(2 * np.pi * (a * rows + b * columns) + c) for a, b, c in rng.uniform(-6, 6, size=(4, 3))]
        pattern = 0.5 + np.sum(waves, axis=0) / 8
    first, second = rng.uniform(40, 230, size=(2, channels))
    second = first + 0.5 * (second - first)
    texture: NDArray[np.float64] = first + (second - first) * np.asarray(pattern, dtype=np.float64)[..., None]
    model.tex_data[start : start + height * width * channels] = np.clip(texture, 0, 255).astype(np.uint8).reshape(-1)
