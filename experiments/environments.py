"""The environment that suits trained weights: their cameras, their image size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from goalward.envs.base import EnvInfo


def open_env(name: str, trained: Any = None, *, variation: str = "none") -> Any:
    """Makes an environment with the cameras that a model or policy was trained on, under a variation.

    Args:
        name: short name.
        trained: a world model or a policy; None for the environment's own cameras.
        variation: see `goalward.envs.variation`.

    Raises:
        UserError: they do not suit one another; every difference is named.
    """
    from goalward.envs.registry import make_env

    env = make_env(name, variation=variation)
    if trained is None:
        return env
    wanted = trained.description.env
    info: EnvInfo = env.unwrapped.spec_info  # type: ignore[attr-defined]
    known = set(wanted.cameras) <= set(info.cameras)
    if known and (wanted.cameras, wanted.image_size_px) != (info.cameras, info.image_size_px):
        env.close()
        env = make_env(name, cameras=wanted.cameras, image_size_px=wanted.image_size_px, variation=variation)
    try:
        trained.check_env(env.unwrapped.spec_info)  # type: ignore[attr-defined]
    except BaseException:
        env.close()
        raise
    return env
