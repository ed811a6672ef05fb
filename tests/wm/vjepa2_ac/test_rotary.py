"""Rotary positions: scores depend on differences of positions where the frequencies are as in the paper, and not where they are doubled."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from goalward import UserError
from goalward.wm.vjepa2_ac.config import VJepa2ACConfig
from goalward.wm.vjepa2_ac.rotary import angles_LE, halved, turned, turning

CONFIG = VJepa2ACConfig(dim=4, width=40, depth=1, heads=2, hidden=8, rows=5, columns=5)


def scores(config: VJepa2ACConfig, time_q: int, time_k: int, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Products of one query and one key placed at every token, [heads, L, L]."""
    E = config.head_width

    def placed(x, time):
        rows = torch.cat([x, x]).expand(config.num_tokens, -1)  # as query and as key
        return turned(rows, *turning(config, time), E)[:, : config.width].view(config.num_tokens, config.heads, E)

    return torch.einsum("lke,mke->klm", placed(q, time_q), placed(k, time_k))


def patch(config: VJepa2ACConfig, row: int, column: int) -> int:
    return config.num_conditions + row * config.columns + column


@pytest.mark.parametrize("duplicated", [False, True])
def test_scores_depend_on_differences_alone_only_without_the_fault(duplicated):
    config = dataclasses.replace(CONFIG, duplicated_frequencies=duplicated)
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(config.width, generator=generator) for _ in range(2))
    here, later = scores(config, 1, 0, q, k), scores(config, 4, 3, q, k)
    shifts = [
        (here, later),
        (here[:, patch(config, 0, 1), patch(config, 1, 3)], here[:, patch(config, 2, 2), patch(config, 3, 4)]),
    ]
    for one, other in shifts:
        assert torch.allclose(one, other, atol=1e-4) is not duplicated


def test_lengths_are_kept_without_the_fault():
    config = dataclasses.replace(CONFIG, duplicated_frequencies=False)
    qk = torch.randn(config.num_tokens, 2 * config.width, generator=torch.Generator().manual_seed(1))
    after = turned(qk, *turning(config, 3), config.head_width)
    torch.testing.assert_close(after.norm(dim=-1), qk.norm(dim=-1))


def test_at_time_zero_nothing_but_patches_is_turned():
    qk = torch.randn(CONFIG.num_tokens, 2 * CONFIG.width, generator=torch.Generator().manual_seed(1))
    after = turned(qk, *turning(CONFIG, 0), CONFIG.head_width)
    assert torch.equal(after[:3], qk[:3])  # action, state, and the patch in the corner
    assert not torch.allclose(after[3:], qk[3:])


def test_angles_of_the_parts():
    config = CONFIG  # heads of 20: parts of 6, and 2 channels that are never turned
    angle = angles_LE(config, 2)
    assert torch.equal(angle[:, 18:], torch.zeros(config.num_tokens, 2))
    expected = 2 * torch.tensor([1.0, 10000 ** (-1 / 3), 10000 ** (-2 / 3)]).repeat(2)
    torch.testing.assert_close(angle[0, :6], expected)
    assert torch.equal(angle[:2, 6:], torch.zeros(2, 14))
    torch.testing.assert_close(angle[patch(config, 3, 4)][6:18], torch.cat([1.5 * expected, 2 * expected]))


def test_columns_are_scaled_to_the_rows():
    angle = angles_LE(dataclasses.replace(CONFIG, rows=2, columns=4), 0)
    torch.testing.assert_close(angle[-1, [6, 12]], torch.tensor([1.0, 1.5]))


def test_the_published_formula_in_the_published_order():
    """x_2j cos f_2j - x_2j+1 sin f_2j, written out."""
    x = torch.randn(CONFIG.num_tokens, CONFIG.head_width, generator=torch.Generator().manual_seed(2))
    angle = angles_LE(CONFIG, 3)
    pairs = torch.stack([-x[:, 1::2], x[:, 0::2]], dim=-1).flatten(-2)
    published = x * angle.cos() + pairs * angle.sin()
    order = halved(CONFIG.head_width)
    ours = turned(x[:, order].repeat(1, 4), *turning(CONFIG, 3), CONFIG.head_width)
    torch.testing.assert_close(ours[:, : CONFIG.head_width], published[:, order])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"width": 0}, "width is 0"),
        ({"width": 40, "heads": 3}, "multiple of twice the heads"),
        ({"width": 16, "heads": 4}, "at least 6 per head"),
        ({"depth": True}, "depth is True"),
        ({"rows": 1000}, "rows is 1000"),
    ],
)
def test_sizes_out_of_range_are_refused(fields, says):
    with pytest.raises(UserError, match=says):
        VJepa2ACConfig(**fields)
