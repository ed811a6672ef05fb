"""The latents of V-JEPA 2-AC: patch tokens, each normalised over its width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def layer_normalised(z: Tensor) -> Tensor:
    """Normalises tokens over their width, without weights, in float32 or better: as the encoder's tokens and all predictions are."""
    wide = z.to(torch.promote_types(z.dtype, torch.float32))
    return F.layer_norm(wide, wide.shape[-1:])
