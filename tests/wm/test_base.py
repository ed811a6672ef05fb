"""The environment signature: read from whatever describes an environment, compared in full."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from goalward import UserError
from goalward.wm.base import Encoder, EnvSignature, inference_dtype


def as_info(signature: EnvSignature) -> dict[str, object]:
    return dataclasses.asdict(signature)


def test_mapping_and_object_read_alike(signature) -> None:
    info = as_info(signature)
    info["action_low"] = np.asarray(info["action_low"], np.float32)
    assert not signature.mismatches(EnvSignature.of(info))
    assert not signature.mismatches(EnvSignature.of(SimpleNamespace(**info)))


def test_a_gymnasium_id_wins_over_a_short_name(signature) -> None:
    info = as_info(signature)
    del info["env"]
    assert EnvSignature.of(info | {"name": "point", "version": "Goalward/Point-v3"}).env == "Goalward/Point-v3"
    assert EnvSignature.of(info | {"name": "point", "version": "7"}).env == "point"


def test_a_short_name_is_the_same_environment_but_another_version_is_not(signature) -> None:
    assert not signature.mismatches(dataclasses.replace(signature, env="point"))
    assert signature.mismatches(dataclasses.replace(signature, env="Goalward/Point-v1"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("env", "push"),
        ("cameras", ("side", "front")),
        ("cameras", ("front",)),
        ("image_size_px", 16),
        ("dt_s", 0.25),
        ("action_names", ("dx_m", "dz_m")),
        ("action_low", (-0.1, -0.05)),
        ("action_high", (0.05, 0.06)),
        ("proprio_names", ("x_m",)),
    ],
)
def test_every_entry_is_compared(signature, field: str, value: object) -> None:
    (fault,) = signature.mismatches(dataclasses.replace(signature, **{field: value}))
    assert field in fault


def test_all_differences_are_named(signature) -> None:
    assert len(signature.mismatches(dataclasses.replace(signature, env="push", dt_s=1.0, image_size_px=64))) == 3


def test_rounding_through_float32_is_no_difference(signature) -> None:
    assert not signature.mismatches(dataclasses.replace(signature, action_low=tuple(float(np.float32(v)) for v in signature.action_low)))


def test_cameras_can_be_selected(signature) -> None:
    assert EnvSignature.of(as_info(signature), cameras=("side",)).cameras == ("side",)
    with pytest.raises(UserError, match="wrist"):
        EnvSignature.of(as_info(signature), cameras=("wrist",))


def test_missing_entries_are_all_named(signature) -> None:
    info = as_info(signature)
    for name in ("env", "dt_s", "cameras"):
        del info[name]
    with pytest.raises(UserError, match=r"(?=.*env)(?=.*dt_s)(?=.*cameras)"):
        EnvSignature.of(info)


@pytest.mark.parametrize(
    "change",
    [
        {"action_low": (0.0,)},
        {"action_low": (1.0, 1.0)},
        {"action_low": (float("nan"), 0.0)},
        {"action_names": (), "action_low": (), "action_high": ()},
        {"cameras": ()},
    ],
)
def test_impossible_signatures_are_refused(signature, change: dict[str, object]) -> None:
    with pytest.raises(UserError):
        dataclasses.replace(signature, **change)


def test_the_test_encoder_satisfies_the_protocol(encoder) -> None:
    assert isinstance(encoder, Encoder)


def test_bfloat16_is_chosen_only_where_the_hardware_has_it(monkeypatch) -> None:
    cpu = torch.device("cpu")
    for capabilities, expected in (
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx2": True}, torch.float32),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert inference_dtype(cpu) == expected
    assert inference_dtype(torch.device("mps")) == torch.float32
