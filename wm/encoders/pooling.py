"""Few tokens out of many, by a fixed rule: each token is the mean over its share of the picture.

Letters: M loose frames, G patch tokens (g x g, row by row), N tokens (k x k, row by row), D latent width.

Where k divides g a share is a block of patches; where it does not, a patch cut by a border counts for each side by the part that lies
there. Nothing is learned, so nothing has to be stored and nothing can collapse.
"""

from __future__ import annotations

import torch
from torch import Tensor

from goalward import UserError


def pooling_matrix(grid: int, tokens: int) -> Tensor | None:
    """The weights of the means.

    Args:
        grid: g, patches along one side.
        tokens: N, a square number; 0: all.

    Returns:
        float32 [N, G], rows that sum to 1; None where every patch is a token.

    Raises:
        UserError: More tokens than patches.
    """
    side = round(tokens**0.5) if tokens else grid
    if side > grid:
        raise UserError(f"tokens = {tokens}: the network has {grid} x {grid} patches; must be a square number up to {grid**2}, or all")
    if side == grid:
        return None
    edges = torch.arange(side + 1, dtype=torch.float64) * grid / side
    patches = torch.arange(grid, dtype=torch.float64)
    inside = torch.minimum(edges[1:, None], patches + 1) - torch.maximum(edges[:-1, None], patches)
    along = inside.clamp_min(0) * side / grid
    return torch.kron(along, along).float()
