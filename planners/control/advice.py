"""What a model may say of how it is best planned with; whoever asks for nothing else gets it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from goalward.planners.registry import configured

DEFAULT_PLANNER = "cem"
"""Where a model gives no advice."""


class Advice(Protocol):
    """What a model may say of how it is best planned with."""

    @property
    def planner(self) -> str:
        """Registered name."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Fields of the planner's configuration that differ from its defaults."""

    @property
    def horizon(self) -> int:
        """Actions in a plan."""

    @property
    def step_weights(self) -> Any:
        """Which predicted frames count, as in `LatentDistance`."""


def advised_planner(advice: Advice | None, config: Any = None) -> tuple[str, Any]:
    """The planner to use where none was named, and its configuration.

    Args:
        advice: The model's, if it gives any.
        config: A configuration that was given nevertheless; it wins over the advice.

    Returns:
        Registered name, and configuration; None for the defaults.

    Raises:
        UserError: The advice names a planner or a setting that does not exist, or a value that the planner refuses.
    """
    if advice is None:
        return DEFAULT_PLANNER, config
    return advice.planner, configured(advice.planner, advice.settings) if config is None else config
