"""`Goalward/Scenes-v0`: passive videos of many MuJoCo scenes (the dm_control suite), for pretraining an encoder on video alone.

Every reset picks one scene, redraws its lights, colours and camera, and drives its actuators with smooth random controls that nobody
records: the action of this environment is a dummy. There is no goal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from dm_control import suite
from numpy.typing import NDArray

from goalward.envs.appearance import Appearance
from goalward.envs.appearance_config import AppearanceConfig
from goalward.envs.base import EnvInfo
from goalward.envs.physics_guard import disable_autoreset, physics_fault, warning_counts
from goalward.envs.rendering import RenderConfig, SceneRenderer

SCENES = (
    ("reacher", "easy"), ("finger", "spin"), ("ball_in_cup", "catch"), ("cartpole", "swingup"), ("cheetah", "run"), ("walker", "walk"),
    ("hopper", "hop"), ("acrobot", "swingup"), ("manipulator", "bring_ball"), ("point_mass", "easy"), ("pendulum", "swingup"),
)  # fmt: skip
DT_S = 0.1
_CONTROL_SMOOTHING = 0.7


@dataclass(frozen=True, slots=True)
class _Scene:
    model: mujoco.MjModel
    data: mujoco.MjData
    renderer: SceneRenderer
    appearance: Appearance
    camera: str
    initial_qpos: NDArray[np.float64]


class VideoScenesEnv(gym.Env[dict[str, Any], NDArray[np.float32]]):
    """Random videos; see the module's first lines."""

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own form)

    def __init__(self, *, image_size_px: int = 128) -> None:
        """Prepares the environment; scenes are loaded when first drawn.

        Args:
            image_size_px: height and width of a frame.
        """
        self._size_px = image_size_px
        self._scenes: dict[int, _Scene] = {}
        self._current: _Scene | None = None
        self._control = np.zeros(0)
        self._num_steps = 0
        one = np.ones(1, dtype=np.float32)
        self.spec_info = EnvInfo(
            name="scenes", version="Goalward/Scenes-v0", cameras=("fixed",), image_size_px=image_size_px, dt_s=DT_S,
            action_names=("none",), action_low=-one, action_high=one, proprio_names=("none",),
            workspace_low_m=np.zeros(3, np.float32), workspace_high_m=np.zeros(3, np.float32), max_episode_steps=1000,
        )  # fmt: skip
        self.action_space = gym.spaces.Box(-one, one, dtype=np.float32)
        self.observation_space = gym.spaces.Dict(
            pixels=gym.spaces.Box(0, 255, (1, image_size_px, image_size_px, 3), dtype=np.uint8),
            proprio=gym.spaces.Box(-1, 1, (1,), dtype=np.float32),
            time_s=gym.spaces.Box(0.0, 1e9, (), dtype=np.float64),
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Draws a scene, its look and its start; options are ignored."""
        super().reset(seed=seed)
        index = int(self.np_random.integers(len(SCENES)))
        if index not in self._scenes:
            self._scenes[index] = self._load(*SCENES[index])
        scene = self._current = self._scenes[index]
        scene.appearance.draw(self.np_random, scene.renderer)
        mujoco.mj_resetData(scene.model, scene.data)
        scene.data.qpos[:] = scene.initial_qpos
        scene.data.qvel[:] = self.np_random.normal(0, 0.5, size=scene.model.nv)
        mujoco.mj_forward(scene.model, scene.data)
        self._control = np.zeros(scene.model.nu)
        self._num_steps = 0
        return self._observation(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Advances the scene by 0.1 s under its own random controls; `action` is ignored."""
        if self._current is None:
            raise RuntimeError("call reset before step")
        model, data = self._current.model, self._current.data
        self._num_steps += 1
        counts = warning_counts(data)
        low, high = model.actuator_ctrlrange.T
        fresh = self.np_random.uniform(low, high)
        self._control = _CONTROL_SMOOTHING * self._control + (1 - _CONTROL_SMOOTHING) * fresh
        data.ctrl[:] = self._control
        mujoco.mj_step(model, data, nstep=max(1, round(DT_S / model.opt.timestep)))
        mujoco.mj_fwdPosition(model, data)
        failure = physics_fault(data, counts)
        return self._observation(), 0.0, failure is not None, False, {"failure": failure}

    def close(self) -> None:
        """Frees every renderer; safe to call twice."""
        for scene in self._scenes.values():
            scene.renderer.close()
        self._scenes.clear()
        self._current = None

    def _load(self, domain: str, task: str) -> _Scene:
        physics = suite.load(domain, task).physics
        model = physics.model.ptr
        disable_autoreset(model)
        data = mujoco.MjData(model)
        renderer = SceneRenderer(model, RenderConfig(height_px=self._size_px, width_px=self._size_px))
        config = AppearanceConfig(camera_position_m=0.1, camera_angle_rad=0.05)
        return _Scene(model, data, renderer, Appearance(model, config), model.cam(0).name, np.array(physics.data.qpos))

    def _observation(self) -> dict[str, Any]:
        assert self._current is not None
        frame = self._current.renderer.render(self._current.data, self._current.camera)
        return {
            "pixels": frame[None],
            "proprio": np.zeros(1, dtype=np.float32),
            "time_s": np.array(self._num_steps * DT_S, dtype=np.float64),
        }
