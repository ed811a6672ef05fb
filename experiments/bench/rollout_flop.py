"""How many floating-point operations the matrix products of a rollout are; operations of all else count nothing.

Letters: S candidates, H horizon steps, T context frames, N tokens, D latent width, A action dimensions, W width inside.
"""

from __future__ import annotations

from dataclasses import dataclass

from goalward.wm.predictor import PredictorConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What a rollout's cost depends on."""

    config: PredictorConfig
    num_tokens: int
    dim: int
    action_dim: int
    candidates: int
    horizon: int

    def layers(self) -> list[tuple[int, int, int, int]]:
        """Matrix products of the linear layers as (rows, in, out, how often); the first frame is projected once for all candidates."""
        c, rows, steps = self.config, self.candidates * self.num_tokens, self.horizon
        hidden, key_width = round(c.width * c.mlp_ratio), 2 * c.key_heads * (c.width // c.heads)
        return [
            (rows, c.width, key_width + c.width, steps * c.depth),
            (rows, c.width, hidden, steps * c.depth),
            (rows, c.width + hidden, c.width, steps * c.depth),
            (rows, self.dim, c.width, steps - 1),
            (self.num_tokens, self.dim, c.width, 1),
            (rows, c.width, self.dim, steps),
            (self.candidates * steps, self.action_dim, c.width, 1),
            (self.candidates * steps, c.width, 3 * c.width * c.depth, 1),
        ]

    def linear_flop(self) -> int:
        """Operations of the linear layers."""
        return sum(2 * rows * inner * outer * times for rows, inner, outer, times in self.layers())

    def attention_flop(self) -> int:
        """Operations of scores and weighted values: every query meets the context and all frames so far."""
        c, N = self.config, self.num_tokens
        keys = sum((c.context_frames + step + 1) * N for step in range(self.horizon))
        return 4 * self.candidates * N * c.width * keys * c.depth

    def flop(self) -> int:
        """Operations of all matrix products."""
        return self.linear_flop() + self.attention_flop()
