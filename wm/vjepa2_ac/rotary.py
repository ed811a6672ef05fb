"""Rotary positions in three dimensions (time, row, column), as V-JEPA 2-AC has them.

Letters: L tokens of one frame, E channels of a head, R channels of one of the three parts.

The channels of a head are split into three parts of R = 2 floor(E / 6), for time, row and column; the rest is not turned. A part turns its
pairs of channels by position * 10000^(-2 i / R), i = 0 .. R/2 - 1 (RoFormer, arXiv 2104.09864, section 3.2.2):

    (x_2j, x_2j+1)  ->  (x_2j cos f_2j - x_2j+1 sin f_2j,  x_2j+1 cos f_2j+1 + x_2j sin f_2j+1)

In the paper both channels of a pair turn at one frequency: f_c = f[c // 2]. In the published code the frequencies are tiled instead,
f_c = f[c mod R/2]: a fault that its authors found later and kept, because the weights were trained with it. It is then no rotation, and
scores no longer depend on differences of positions alone. The tokens of actions, states and cameras are turned in time alone.

The layout here: within a head the even channels stand first, then the odd ones, so that a pair lies E/2 apart and is turned with contiguous
reads. Queries and keys are permuted alike (`mapping.py` permutes the weights at loading), so that their products are the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from goalward.wm.vjepa2_ac.config import VJepa2ACConfig

_BASE = 10000.0


def halved(channels: int) -> Tensor:
    """The order of a head's channels used here, int64 [E]: the even ones, then the odd ones."""
    return torch.cat([torch.arange(0, channels, 2), torch.arange(1, channels, 2)])


def angles_LE(config: VJepa2ACConfig, time: int) -> Tensor:
    """Angle of every channel of every token of the frame at a time, float32, in the published order of channels; 0: not turned."""
    part = 2 * (config.head_width // 3 // 2)
    frequency = 1.0 / _BASE ** (torch.arange(part // 2, dtype=torch.float32) / (part / 2.0))
    frequency = frequency.repeat(2) if config.duplicated_frequencies else frequency.repeat_interleave(2)
    patch = torch.arange(config.num_patches)
    # Columns are scaled to the number of rows, whatever the shape of the grid.
    row, column = patch // config.columns, (patch % config.columns) * (config.rows / config.columns)
    angle_LE = torch.zeros(config.num_tokens, config.head_width)
    angle_LE[:, :part] = time * frequency
    angle_LE[config.num_conditions :, part : 2 * part] = row[:, None] * frequency
    angle_LE[config.num_conditions :, 2 * part : 3 * part] = column[:, None] * frequency
    return angle_LE


def turning(config: VJepa2ACConfig, time: int) -> tuple[Tensor, Tensor]:
    """Cosine and signed sine for `turned`, float32 [L, 2 W] each: of queries and keys, all heads, in the layout of halves."""
    angle_LE = angles_LE(config, time)[:, halved(config.head_width)]
    sine_LE = angle_LE.sin()
    sine_LE[:, : config.head_width // 2] *= -1.0
    return angle_LE.cos().repeat(1, 2 * config.heads), sine_LE.repeat(1, 2 * config.heads)


def turned(qk: Tensor, cosine: Tensor, sine: Tensor, head_width: int) -> Tensor:
    """Turns queries and keys.

    Args:
        qk: [..., L, 2 W], heads side by side, each in the layout of halves.
        cosine: [L, 2 W], from `turning`.
        sine: The same.
        head_width: E.
    """
    turned = qk * cosine
    into, given, sines = (x.view(*x.shape[:-1], -1, 2, head_width // 2) for x in (turned, qk, sine))
    # In place, half by half: swapping the halves first (flip, roll or cat) is several times slower on a CPU.
    into[..., 0, :].addcmul_(given[..., 1, :], sines[..., 0, :])
    into[..., 1, :].addcmul_(given[..., 0, :], sines[..., 1, :])
    return turned
