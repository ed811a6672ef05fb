"""How good a predictor is on held-out episodes: its error as a fraction of persistence, beside a shuffled-action control.

    fraction(h)          = sum ||predicted(h) - true(h)||^2 / sum ||last observed - true(h)||^2
    fraction_shuffled(h) = the same with every clip's actions swapped for another clip's

A predictor with a fraction near 1 has learned nothing that "nothing moves" does not know; one whose shuffled fraction is as low as its own
does not use the actions, and cannot plan. Errors are squared, in the encoder's space up to one scale.

Letters in array names: C clips, T context frames, H horizon steps, N tokens per frame, D latent width, A action dimensions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from goalward import UserError
from goalward.wm.base import Predictor
from goalward.wm.latents import LatentEpisodes


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Errors after 1 .. H predicted steps."""

    fraction: tuple[float, ...]
    """Squared error over persistence's, per step."""
    fraction_shuffled: tuple[float, ...]
    """The same under another clip's actions."""
    persistence: tuple[float, ...]
    """Mean squared error of persistence per latent entry, in normalised units, per step."""
    num_clips: int
    """Clips measured."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@torch.no_grad()
def evaluate(
    predictor: Predictor, episodes: LatentEpisodes, *, context: int, horizon: int, max_clips: int = 2048, batch_size: int = 256
) -> Evaluation:
    """Measures a predictor.

    Args:
        predictor: Rolls normalised latents forward.
        episodes: Held-out episodes, normalised.
        context: T, observed frames.
        horizon: H, predicted steps.
        max_clips: At most so many clips, evenly spread over all there are.
        batch_size: Clips at a time.

    Raises:
        UserError: No episode is long enough.
    """
    frames = episodes.clips(horizon)
    if len(frames) == 0:
        raise UserError(f"horizon is {horizon}, but no held-out episode has that many actions; collect longer episodes")
    if len(frames) > max_clips:
        frames = frames[torch.linspace(0, len(frames) - 1, max_clips, dtype=torch.float64).round().long()]
    # Half the clips away is another episode wherever there is more than one; a fixed swap keeps the figure reproducible.
    others = frames.roll(max(1, len(frames) // 2))
    own, shuffled, still = (torch.zeros(horizon, dtype=torch.float64) for _ in range(3))
    frames, others = frames.to(episodes.z_FND.device), others.to(episodes.z_FND.device)
    for start in range(0, len(frames), batch_size):
        part = slice(start, start + batch_size)
        z_CTND, actions_CHA, true_CHND = episodes.gather(frames[part], context=context, horizon=horizon)
        _, wrong_CHA, _ = episodes.gather(others[part], context=context, horizon=horizon)
        predicted_CSHND = predictor.rollout(predictor.prime(z_CTND), torch.stack([actions_CHA, wrong_CHA], dim=1))
        own += _squared(predicted_CSHND[:, 0] - true_CHND)
        shuffled += _squared(predicted_CSHND[:, 1] - true_CHND)
        still += _squared(z_CTND[:, -1:] - true_CHND)
    if not bool((still > 0).all()):
        raise UserError("the latents of the held-out episodes never change: nothing moves in them; collect other data")
    entries = len(frames) * episodes.z_FND[0].numel()
    return Evaluation(
        fraction=tuple((own / still).tolist()),
        fraction_shuffled=tuple((shuffled / still).tolist()),
        persistence=tuple((still / entries).tolist()),
        num_clips=len(frames),
    )


def _squared(error_CHND: Tensor) -> Tensor:
    return error_CHND.double().square().sum((0, 2, 3)).cpu()
