"""Back-end choice, and renderers that never disturb one another."""

import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from goalward import UserError
from goalward.envs import gl_backend
from goalward.envs.gl_backend import choose_backend
from goalward.envs.rendering import RenderConfig, SceneRenderer

SCENE = """
<mujoco><worldbody>
  <light pos="0 0 3"/><camera name="eye" pos="0 -2 1" xyaxes="1 0 0 0 0.5 1"/>
  <geom type="box" size="0.3 0.2 0.1" rgba="{colour} 1"/><geom type="plane" size="2 2 0.1"/>
</worldbody></mujoco>
"""


def _scene(colour: str) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = mujoco.MjModel.from_xml_string(SCENE.format(colour=colour))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_survivors_draw_the_same_frame_whoever_closes_first(order: tuple[int, ...]) -> None:
    scenes = [_scene(colour) for colour in ("1 0 0", "0 1 0", "0 0 1")]
    renderers = [SceneRenderer(model, RenderConfig(height_px=48 + 16 * i, width_px=64)) for i, (model, _) in enumerate(scenes)]
    before = [r.render(data, "eye") for r, (_, data) in zip(renderers, scenes, strict=True)]
    assert all(frame.std() > 5 for frame in before)
    alive = set(order)
    for closed in order:
        renderers[closed].close()
        alive.discard(closed)
        for i in alive:
            np.testing.assert_array_equal(renderers[i].render(scenes[i][1], "eye"), before[i])


def test_two_renders_of_one_state_agree() -> None:
    model, data = _scene("1 1 0")
    renderer = SceneRenderer(model, RenderConfig(height_px=40, width_px=56))
    first, second = renderer.render(data, "eye"), renderer.render(data, "eye")
    assert first.shape == (40, 56, 3)
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, second)
    renderer.close()


def test_model_settings_are_left_as_they_were() -> None:
    model, _ = _scene("1 0 1")
    before = (model.vis.quality.shadowsize, model.vis.quality.offsamples, model.vis.global_.offwidth)
    SceneRenderer(model, RenderConfig(shadow_size_px=64)).close()
    assert (model.vis.quality.shadowsize, model.vis.quality.offsamples, model.vis.global_.offwidth) == before


def test_closed_renderer_and_unknown_camera_are_errors() -> None:
    model, data = _scene("1 0 0")
    renderer = SceneRenderer(model, RenderConfig())
    with pytest.raises(ValueError, match="unknown camera 'nose'"):
        renderer.render(data, "nose")
    renderer.close()
    renderer.close()
    with pytest.raises(RuntimeError, match="closed"):
        renderer.render(data, "eye")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems bring their own OpenGL")
class TestBackendChoice:
    def test_nothing_installed_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gl_backend, "_library_opens", lambda name: False)
        monkeypatch.delenv("MUJOCO_GL", raising=False)
        with pytest.raises(UserError, match=r"apt-get install .*libegl1 libgl1.*macOS"):
            choose_backend()

    def test_egl_is_preferred_and_osmesa_is_second(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gl_backend, "_library_opens", lambda name: True)
        assert gl_backend.available_backends() == ("egl", "osmesa")
        monkeypatch.setattr(gl_backend, "_library_opens", lambda name: name == "OSMesa")
        assert gl_backend.available_backends() == ("osmesa",)

    def test_egl_without_gl_entry_points_does_not_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gl_backend, "_library_opens", lambda name: name == "EGL")
        assert gl_backend.available_backends() == ()

    def test_unknown_or_unavailable_request_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MUJOCO_GL", "vulkan")
        with pytest.raises(UserError, match="MUJOCO_GL='vulkan'"):
            choose_backend()
        monkeypatch.setenv("MUJOCO_GL", "osmesa")
        monkeypatch.setattr(gl_backend, "_library_opens", lambda name: False)
        with pytest.raises(UserError, match="libosmesa6"):
            choose_backend()

    @pytest.mark.parametrize("first", ["mujoco", "dm_control.suite", "goalward.envs.jaco_scene", "goalward.envs.appearance"])
    def test_any_order_of_imports_works(self, first: str) -> None:
        code = (
            f"import {first}\nfrom goalward.envs.registry import make_env\n"
            "print(make_env('reach', image_size_px=32).reset(seed=0)[0]['pixels'].std() > 5)"
        )
        environment = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        assert done.stdout.strip() == "True"

    def test_a_missing_library_is_explained_even_where_mujoco_cannot_be_imported(self) -> None:
        code = (
            "from goalward.envs import gl_backend\ngl_backend._library_opens = lambda name: False\n"
            "import goalward.envs\ngoalward.envs.make_env('reach')"
        )
        environment = {**os.environ, "MUJOCO_GL": "egl"}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
        assert "apt-get install" in done.stderr.splitlines()[-1]

    def test_nothing_is_printed_when_a_process_ends_without_closing(self) -> None:
        code = "from goalward.envs.registry import make_env\nenv = make_env('reach', image_size_px=32)\nenv.reset(seed=0)"
        done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout + done.stderr == ""
