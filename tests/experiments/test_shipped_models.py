"""Every model of the package, as a user meets it: it plans in its own task as it advises, inside the limits, and the same way twice."""

from __future__ import annotations

import numpy as np
import pytest

import goalward
from goalward.envs.registry import make_env
from goalward.wm.model import shipped_models


@pytest.mark.parametrize("name", shipped_models())
def test_it_plans_in_its_own_task(name: str) -> None:
    model = goalward.load_model(name)
    env = make_env(name, cameras=model.cameras, image_size_px=model.image_size_px)
    model.check_env(env.unwrapped.spec_info)

    def acted() -> list[np.ndarray]:
        observation, info = env.reset(seed=0, options={"goal_index": 0, "split": "validation"})
        controller = goalward.make_controller(model, info["goal_pixels"], seed=0)
        found = []
        for _ in range(2):
            found.append(controller.act(observation))
            assert controller.last_hold_reason is None
            assert env.action_space.contains(found[-1])
            observation, *_ = env.step(found[-1])
        plan = controller.last_plan
        assert plan is not None
        assert model.planning is not None
        assert plan.actions_BHA.shape[1] == model.planning.horizon
        return found

    try:
        first, second = acted(), acted()
    finally:
        env.close()
    np.testing.assert_array_equal(first, second)
    assert np.abs(first).max() > 0
