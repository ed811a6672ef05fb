"""World models that predict from the robot's state as well as from frames, such as V-JEPA 2-AC.

Such a model is told the states before it is primed. A delay is then not looked for: the measured state says already what has acted.

Letters: B problems, T context frames, P proprioception entries.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from goalward.planners.base import WorldModel


@runtime_checkable
class StateConditioned(Protocol):
    """What such a model has besides `WorldModel`."""

    def with_proprio(self, states_BTP: Tensor) -> WorldModel:
        """Returns the same model, told the states in the T observed frames that it will be primed with, float32."""
