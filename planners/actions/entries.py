"""Some entries of actions: taken out and put back by slices, for a list of indices would have to be copied to a GPU at every use.

Letters: B problems, S candidates, A action dimensions, M some of the entries.
"""

from __future__ import annotations

import torch
from torch import Tensor


def take(action_BSA: Tensor, dims: tuple[int, ...]) -> Tensor:
    """These entries, [B, S, M]."""
    if dims == tuple(range(dims[0], dims[0] + len(dims))):
        return action_BSA[..., dims[0] : dims[0] + len(dims)]
    return torch.stack([action_BSA[..., dim] for dim in dims], dim=-1)


def put(action_BSA: Tensor, dims: tuple[int, ...], values_BSM: Tensor) -> Tensor:
    """The action with these entries replaced."""
    if dims == tuple(range(action_BSA.shape[-1])):
        return values_BSM
    replaced_BSA = action_BSA.clone()
    if dims == tuple(range(dims[0], dims[0] + len(dims))):
        replaced_BSA[..., dims[0] : dims[0] + len(dims)] = values_BSM
    else:
        for position, dim in enumerate(dims):
            replaced_BSA[..., dim] = values_BSM[..., position]
    return replaced_BSA
