"""V-JEPA 2-AC as a world model: shapes, conventions, bad input, and a whole controller on it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from goalward import UserError
from goalward.wm.vjepa2_ac.model import ACTION_NAMES, PROPRIO_NAMES, VJepa2ACModel, VJepa2ACModelConfig
from goalward.wm.vjepa2_ac.poses import pose_difference


def frames(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 8, 8, 3), dtype=np.uint8)


def states(ac, problems: int, context: int = 1) -> torch.Tensor:
    return ac.inputs(ac.TINY, problems=problems, frames=context).states_BTP


@pytest.fixture
def model(ac) -> VJepa2ACModel:
    return VJepa2ACModel(ac.make(), ac.PatchEncoder(), dtype=torch.float32)


def test_what_planners_may_know(model):
    assert model.cameras == ("exterior",)
    assert (model.image_size_px, model.context_frames, model.dt_s) == (8, 1, 0.25)
    assert model.action_names == ACTION_NAMES
    assert model.proprio_names == PROPRIO_NAMES
    torch.testing.assert_close(model.action_high, torch.tensor([0.075] * 3 + [0.0] * 3 + [0.75]))
    assert torch.equal(model.action_low, -model.action_high)


def test_latents_are_layer_normalised(model):
    z = model.encode(torch.from_numpy(frames(2)))
    assert z.shape == (2, 4, 6)
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.mean(dim=-1), torch.zeros(2, 4), atol=1e-6, rtol=0)


def test_from_pixels_and_poses_to_predictions(ac, model):
    z = model.encode(torch.from_numpy(frames(2)))
    context = model.with_proprio(states(ac, 2)).prime(z[:, None])
    predicted = model.rollout(context, ac.uniform(2, 3, 2, 7, seed=1) * 0.05)
    assert predicted.shape == (2, 3, 2, 4, 6)
    assert predicted.dtype == torch.float32
    torch.testing.assert_close(predicted.mean(dim=-1), torch.zeros(2, 3, 2, 4), atol=1e-5, rtol=0)


def test_past_actions_are_differences_of_achieved_states(ac):
    model = VJepa2ACModel(ac.make(), ac.PatchEncoder(), VJepa2ACModelConfig(context_frames=3), dtype=torch.float32)
    window = ac.inputs(ac.TINY, problems=2, frames=3)
    context = model.with_proprio(window.states_BTP).prime(window.z_BTND)
    past = pose_difference(window.states_BTP[:, :-1], window.states_BTP[:, 1:])
    expected = model.predictor.prime(window.z_BTND, window.states_BTP, past)
    actions = ac.uniform(2, 2, 1, 7, seed=1) * 0.05
    assert torch.equal(model.rollout(context, actions), model.predictor.rollout(expected, actions))


def test_telling_a_state_leaves_the_model_as_it_was(ac, model):
    told = model.with_proprio(states(ac, 1).numpy())
    assert told.predictor is model.predictor
    with pytest.raises(UserError, match="the state of 1 end effectors is needed, nothing is known"):
        model.prime(torch.zeros(1, 1, 4, 6))


def test_bad_input_is_refused(ac, model):
    told = model.with_proprio(states(ac, 1))
    bad_state = states(ac, 1)
    bad_state[0, 0, 3] = float("nan")
    for call, says in (
        (lambda: model.encode(torch.zeros(1, 1, 8, 8, 3)), "must be uint8"),
        (lambda: model.encode(torch.zeros(1, 2, 8, 8, 3, dtype=torch.uint8)), r"\[1, 2, 8, 8, 3\]"),
        (lambda: told.prime(torch.zeros(1, 2, 4, 6)), r"must be \[B, 1, 4, 6\]"),
        (lambda: told.prime(torch.zeros(2, 1, 4, 6)), "2 end effectors is needed, that of 1 problems"),
        (lambda: model.with_proprio(torch.zeros(1, 1, 6)), r"must be \[B, 1, 7\]: ee_x_m"),
        (lambda: model.with_proprio(bad_state), "not finite"),
        (lambda: model.rollout(told.prime(torch.zeros(1, 1, 4, 6)), torch.zeros(1, 2, 1, 4)), r"must be \[1, S, H, 7\]"),
    ):
        with pytest.raises(UserError, match=says):
            call()


def test_an_encoder_that_does_not_fit_is_refused(ac):
    with pytest.raises(UserError, match="gives 4 tokens of width 6, the predictor takes 6 of width 6"):
        VJepa2ACModel(ac.make(columns=3), ac.PatchEncoder())


def test_the_cameras_pose_is_given_where_it_is_used(ac):
    with pytest.raises(UserError, match="needs the camera's pose"):
        VJepa2ACModel(ac.make(extrinsics=True), ac.PatchEncoder())
    with pytest.raises(UserError, match="does not take the camera's pose"):
        VJepa2ACModel(ac.make(), ac.PatchEncoder(), VJepa2ACModelConfig(extrinsics_E=(0.0,) * 6))
    config = VJepa2ACModelConfig(extrinsics_E=(0.1, 0.2, 0.3, 0.0, 0.0, 1.0))
    model = VJepa2ACModel(ac.make(extrinsics=True), ac.PatchEncoder(), config, dtype=torch.float32)
    context = model.with_proprio(states(ac, 1)).prime(torch.zeros(1, 1, 4, 6))
    assert model.rollout(context, torch.zeros(1, 1, 2, 7)).shape == (1, 1, 2, 4, 6)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"context_frames": 0}, "context_frames is 0"),
        ({"max_step_m": -0.1}, "max_step_m is -0.1"),
        ({"max_grip": 2.0}, "max_grip is 2.0"),
        ({"dt_s": 0.0}, "dt_s is 0.0"),
        ({"extrinsics_E": (0.0,)}, "extrinsics_E has 1"),
    ],
)
def test_configurations_out_of_range_are_refused(fields, says):
    with pytest.raises(UserError, match=says):
        VJepa2ACModelConfig(**fields)


def test_predictions_follow_the_robots_state(ac, model):
    """Two arms with one picture and two poses get two predictions."""
    z = model.encode(torch.from_numpy(frames(1))).expand(2, -1, -1)[:, None]
    context = model.with_proprio(states(ac, 2)).prime(z)
    predicted = model.rollout(context, torch.zeros(2, 1, 1, 7))
    assert not torch.allclose(predicted[0], predicted[1], atol=1e-3)


def observation(ac, seed: int = 0, **changes):
    state = states(ac, 1)[0, 0].numpy()
    return {"pixels": frames(1, seed)[0], "proprio": state, "time_s": 0.25 * seed} | changes


def test_a_controller_plans_with_it(ac, model):
    from goalward.planners.control.controller import make_controller
    from goalward.planners.vjepa2_ac import VJepa2ACPlanning

    preset = VJepa2ACPlanning(num_samples=16, num_iterations=2, num_elites=4, dead_zone_in_search=True)
    controller = make_controller(
        model, frames(1, 5)[0], planner="cem", planner_config=preset.cem_config(), action_set=preset.action_set(),
        objective=preset.objective(), horizon=preset.horizon, workspace=None,
    )  # fmt: skip
    for seed in range(2):
        action = controller.act(observation(ac, seed))
        assert controller.last_hold_reason is None
        assert action.shape == (7,)
        assert np.abs(action[:3]).max() <= 0.075
        assert not action[3:6].any()
        assert action[6] == 0 or abs(action[6]) >= 0.25


@pytest.mark.parametrize("context", [1, 2])
def test_a_controller_tells_the_model_the_newest_states(ac, monkeypatch, context):
    from goalward.planners.control.controller import make_controller

    model = VJepa2ACModel(ac.make(), ac.PatchEncoder(), VJepa2ACModelConfig(context_frames=context), dtype=torch.float32)
    told: list[torch.Tensor] = []
    original = VJepa2ACModel.with_proprio
    monkeypatch.setattr(VJepa2ACModel, "with_proprio", lambda self, given: told.append(given.clone()) or original(self, given))
    controller = make_controller(model, frames(1, 5)[0], planner="random", horizon=1)
    poses = ac.inputs(ac.TINY, problems=1, frames=3).states_BTP[0].numpy()
    for step, pose in enumerate(poses):
        controller.act(observation(ac, step, proprio=pose))
    seen = np.stack([poses[0]] * (context - 1) + list(poses))
    assert len(told) == 3
    for step, given in enumerate(told):
        np.testing.assert_array_equal(given[0].numpy(), seen[step : step + context])


def test_a_controller_holds_on_a_bad_state_and_goes_on(ac, model):
    from goalward.planners.control.controller import make_controller

    controller = make_controller(model, frames(1, 5)[0], planner="random", horizon=1)
    bad = states(ac, 1)[0, 0].numpy()
    bad[4] = np.nan
    for given, reason in ((states(ac, 1)[0, 0].numpy(), None), (bad, "proprio is not finite: ee_pitch_rad"), (bad * 0 + 0.1, None)):
        if reason is None:
            given = np.nan_to_num(given, nan=0.1)
        action = controller.act(observation(ac, proprio=given))
        assert controller.last_hold_reason == reason
        assert np.isfinite(action).all()


def test_a_controller_demands_the_state_and_no_delay(ac, model):
    from goalward.planners.control.controller import make_controller

    controller = make_controller(model, frames(1, 5)[0], planner="random", horizon=1)
    without = observation(ac)
    del without["proprio"]
    with pytest.raises(UserError, match="no entry 'proprio', and the model predicts from it"):
        controller.act(without)
    with pytest.raises(UserError, match="max_delay_steps: 1"):
        make_controller(model, frames(1, 5)[0], max_delay_steps=1)


def test_the_encoder_may_have_normalised_already(ac, model):
    class Normalised(ac.PatchEncoder):
        def encode(self, given):
            z = super().encode(given)
            return torch.nn.functional.layer_norm(z, z.shape[-1:])

    other = VJepa2ACModel(model.predictor, Normalised(), dataclasses.replace(model.config), dtype=torch.float32)
    pixels = torch.from_numpy(frames(2))
    # Variances here are as small as the constant under the root; an encoder's are near 1.
    assert float((other.encode(pixels) - model.encode(pixels)).abs().max()) < 1e-3
