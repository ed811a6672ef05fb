"""Goal-conditioned imitation on the world model's own latents. `base.py` states the contract; `load_policy(folder)` loads one.

Light to import: torch is loaded when something is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from goalward.policies.policy import LatentPolicy
    from goalward.wm.base import Encoder

__all__ = ["load_policy"]


def load_policy(folder: str | Path, device: str = "cpu", *, encoder: Encoder | None = None, **options: Any) -> LatentPolicy:
    """Loads a policy that `goalward imitate` wrote.

    Args:
        folder: Its folder.
        device: torch device.
        encoder: The frozen encoder that the policy was trained with, where it is at hand already; None loads it.
        **options: Changes of how it acts, such as `guidance=2.0`; see the options of its kind.

    Raises:
        UserError: No such folder, a damaged policy (everything found wrong, in one line), another encoder, or an option its kind lacks.
    """
    from goalward.policies.policy import load_policy as load

    return load(folder, device=device, encoder=encoder, **options)
