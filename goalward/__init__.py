"""Goalward: plan robot actions toward a goal image with an action-conditioned latent world model.

Light to import: neither torch nor mujoco is loaded until something is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from goalward.planners.control.controller import Controller
    from goalward.wm.model import WorldModel

__version__ = "0.1.0"

__all__ = ["UserError", "__version__", "load_model", "make_controller"]


class UserError(ValueError):
    """A mistake of the user's: one line that names the field, the value, the allowed range and the fix.

    Commands print it as `error: ...` and exit with 2, without a traceback.
    """


def load_model(name_or_path: str = "reach", device: str = "cpu", *, compiled: bool = False, encoder: str | None = None) -> WorldModel:
    """Loads a world model.

    Args:
        name_or_path: name of a shipped model (`reach`), or the folder of a checkpoint.
        device: torch device.
        compiled: compile rollouts for their exact shape: half a minute once per shape, then somewhat faster; needs a C++ compiler.
        encoder: where the weights of a pretrained encoder are now; None: where they were in training.

    Raises:
        UserError: unknown name, or a missing or damaged checkpoint (every mismatch is reported at once).
    """
    from goalward.wm.model import load_model as load

    return load(name_or_path, device=device, compiled=compiled, encoder=encoder)


def make_controller(model: WorldModel, goal_pixels: Any, **options: Any) -> Controller:
    """Makes a receding-horizon controller for a goal image; see `goalward.planners.control.controller.make_controller`.

    Where the model advises proposals (`planning.json`), the search looks at them first; `proposer=None` plans without.
    """
    from goalward.planners.control.controller import make_controller as make
    from goalward.policies.proposals import advised_proposer

    if "proposer" not in options:
        options["proposer"] = advised_proposer(model)
    return make(model, goal_pixels, **options)
