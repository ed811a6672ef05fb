"""The action-conditioned latent predictor: observed frames are digested once, then every candidate is rolled forward cheaply.

Letters in array names: B problems, S candidates, H horizon steps, T context frames, N tokens per frame, D latent width, A action
dimensions; inside: W width, G query heads per key head, K key heads, E head width, L keys, R = B * S rows.

The layout is the equation. With c_t = embed(action_t), for the tokens of the frame to predict,

    x      = project(z_t) + token + step_t
    x     += gate(c_t) * mix[ attention(q; context keys | keys of earlier predicted frames | own keys), gelu(m) ]      (per layer)
             where q, k, v, m = split(widen(scale(c_t) * norm(x) + shift(c_t)))
    z_{t+1} = z_t + head(norm(x))

Attention and feed-forward sit side by side in one block (as in PaLM, arXiv 2204.02311), queries share few key heads (Shazeer, arXiv
1911.02150), and the modulation (AdaLN, arXiv 2212.09748) is computed once per candidate and step, for all layers and tokens together:
on a CPU, a plan's time is a few matrix products per layer plus as few passes over memory as possible.

Observed frames go through the same layers with a learned constant modulation. They never see an action, so their keys and values
(`PredictorContext`) are computed once per plan and shared, not copied, by all candidates: the scores against them are one matrix
product with all candidates' queries folded into its rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from goalward import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictorConfig:
    """Size of the predictor."""

    width: int = 128
    """Width of a token inside the predictor; a multiple of `heads`."""
    depth: int = 3
    """Layers."""
    heads: int = 4
    """Query heads; a multiple of `key_heads`."""
    key_heads: int = 1
    """Key and value heads, each shared by `heads / key_heads` query heads; 1 is fastest."""
    mlp_ratio: float = 2.0
    """Hidden width of the feed-forward part, as a multiple of `width`."""
    context_frames: int = 2
    """Observed frames that a prediction starts from; 2 show the velocity."""
    horizon: int = 5
    """Steps rolled out in training; later steps share the last step's embedding."""

    def __post_init__(self) -> None:
        """Checks ranges and divisibility."""
        limits = {"width": 8192, "depth": 128, "heads": 128, "key_heads": 128, "context_frames": 256, "horizon": 256}
        for name, limit in limits.items():
            if not 1 <= getattr(self, name) <= limit:
                raise UserError(f"{name} is {getattr(self, name)}; must lie in 1 .. {limit}")
        if self.width % self.heads:
            raise UserError(f"width is {self.width}; must be a multiple of heads ({self.heads})")
        if self.heads % self.key_heads:
            raise UserError(f"heads is {self.heads}; must be a multiple of key_heads ({self.key_heads})")
        if not 0 < self.mlp_ratio <= 16:
            raise UserError(f"mlp_ratio is {self.mlp_ratio}; must lie in (0, 16]")


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictorContext:
    """The observed past of B problems: what all candidates share."""

    keys: tuple[Tensor, ...]
    """Per layer [B, K, T * N, E], already scaled by 1 / sqrt(E)."""
    values: tuple[Tensor, ...]
    """Per layer [B, K, T * N, E]."""
    z_BND: Tensor
    """The last observed frame, float32."""

    @property
    def num_problems(self) -> int:
        """B."""
        return self.z_BND.shape[0]


class Block(nn.Module):
    """One layer: attention and feed-forward side by side, modulated, gated, residual."""

    def __init__(self, config: PredictorConfig, generator: torch.Generator | None) -> None:
        """Draws the weights from `generator`; None leaves them to be loaded."""
        super().__init__()
        self.heads, self.key_heads = config.heads, config.key_heads
        self.head_width = config.width // config.heads
        hidden = round(config.width * config.mlp_ratio)
        key_width = self.key_heads * self.head_width
        # Keys and values come first, so that the context's last layer can compute them alone.
        self.split = (key_width, key_width, config.width, hidden)
        self.widen = nn.Parameter(_normal((sum(self.split), config.width), config.width**-0.5, generator))
        mixed = config.width + hidden
        self.mix = nn.Parameter(_normal((config.width, mixed), (2 * config.depth * mixed) ** -0.5, generator))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Computes only the keys and values [rows, K, L, E] of modulated tokens [rows, L, W]."""
        key_width = self.split[0]
        k, v = F.linear(x, self.widen[: 2 * key_width]).split_with_sizes([key_width, key_width], dim=-1)
        return self._key_heads(k) * self.head_width**-0.5, self._key_heads(v)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Computes queries [rows, K, L * G, E], keys and values [rows, K, L, E], and the feed-forward part [rows, L, hidden]."""
        k, v, q, m = F.linear(x, self.widen).split_with_sizes(self.split, dim=-1)
        rows, length, _ = q.shape
        q = q.reshape(rows, length, self.key_heads, -1, self.head_width).transpose(1, 2).reshape(rows, self.key_heads, -1, self.head_width)
        return q, self._key_heads(k) * self.head_width**-0.5, self._key_heads(v), F.gelu(m)

    def merge(self, attended: Tensor, m: Tensor) -> Tensor:
        """Projects attention [rows, K, L * G, E] and feed-forward [rows, L, hidden] back to [rows, L, W]."""
        rows, length, _ = m.shape
        heads = attended.reshape(rows, self.key_heads, length, -1).transpose(1, 2).reshape(rows, length, -1)
        return F.linear(torch.cat([heads, m], dim=-1), self.mix)

    def _key_heads(self, x: Tensor) -> Tensor:
        rows, length, _ = x.shape
        return x.reshape(rows, length, self.key_heads, self.head_width).transpose(1, 2)


class LatentPredictor(nn.Module):
    """Predicts normalised latents under normalised actions; see the top of this file."""

    def __init__(
        self, config: PredictorConfig, *, num_tokens: int, dim: int, action_dim: int, generator: torch.Generator | None = None
    ) -> None:
        """Builds an untrained predictor; it predicts persistence (nothing moves) until it is trained.

        Args:
            config: Size.
            num_tokens: N, tokens per frame, all views together.
            dim: D, latent width.
            action_dim: A.
            generator: Source of the initial weights; None leaves them to be loaded.
        """
        super().__init__()
        self.config, self.num_tokens, self.dim, self.action_dim = config, num_tokens, dim, action_dim
        width = config.width
        self.project = nn.Parameter(_normal((width, dim), dim**-0.5, generator))
        self.token = nn.Parameter(_normal((num_tokens, width), 0.2, generator))
        self.age = nn.Parameter(_normal((config.context_frames, 1, width), 0.2, generator))
        self.step = nn.Parameter(_normal((config.horizon, 1, width), 0.2, generator))
        # Scale, shift, gate of each layer start near (1, 0, 1): an unmodulated layer.
        neutral = torch.tensor([1.0, 0.0, 1.0])[:, None].expand(config.depth, 3, width)
        self.observed = nn.Parameter(neutral.clone())
        self.action_in = nn.Parameter(_normal((width, action_dim), action_dim**-0.5, generator))
        self.action_in_bias = nn.Parameter(_normal((width,), 0.2, generator))
        self.modulate = nn.Parameter(_normal((config.depth * 3 * width, width), 0.5 * width**-0.5, generator))
        self.modulate_bias = nn.Parameter(neutral.flatten().clone())
        self.blocks = nn.ModuleList(Block(config, generator) for _ in range(config.depth))
        self.head = nn.Parameter(torch.zeros(dim, width))

    def prime(self, z_BTND: Tensor) -> PredictorContext:
        """Digests the observed frames; tokens of a frame see that frame and the earlier ones.

        Args:
            z_BTND: Normalised latents of 1 to `context_frames` frames, oldest first.
        """
        B, T, N, _ = z_BTND.shape
        x = F.linear(z_BTND.to(self.project.dtype), self.project) + self.token + self.age[self.config.context_frames - T :]
        x = x.reshape(B, T * N, -1)
        frame = torch.arange(T, device=x.device).repeat_interleave(N)
        later = (frame[:, None] < frame[None, :]).repeat_interleave(self.config.heads // self.config.key_heads, dim=0)
        keys, values = [], []
        for index, block in enumerate(self._blocks()):
            modulated = _modulate(x, *self.observed[index, :2])
            if index == self.config.depth - 1:  # Nothing reads the last layer's tokens, only its keys and values.
                k, v = block.keys_values(modulated)
            else:
                q, k, v, m = block.queries_keys_values(modulated)
                scores = (q @ k.transpose(-1, -2)).masked_fill(later, -torch.inf)
                x = x + self.observed[index, 2] * block.merge(_softmax(scores).to(v.dtype) @ v, m)
            keys.append(k)
            values.append(v)
        return PredictorContext(keys=tuple(keys), values=tuple(values), z_BND=z_BTND[:, -1].to(_wide(z_BTND.dtype)))

    def rollout(self, context: PredictorContext, actions_BSHA: Tensor) -> Tensor:
        """Predicts the latents after each action.

        Returns:
            z_BSHND float32 (float64 for a float64 context), differentiable with respect to the actions.
        """
        rollout = self.start(context, actions_BSHA)
        z = context.z_BND[:, None].expand(-1, actions_BSHA.shape[1], -1, -1)
        predicted = []
        for _ in range(actions_BSHA.shape[2]):
            z = rollout.step(z)
            predicted.append(z)
        return torch.stack(predicted, dim=2)

    def start(self, context: PredictorContext, actions_BSHA: Tensor) -> Rollout:
        """Begins a rollout that is stepped by hand, for instance to feed it true frames in training."""
        B, S, H, _ = actions_BSHA.shape
        hidden = F.silu(F.linear(actions_BSHA.to(self.project.dtype), self.action_in, self.action_in_bias))
        modulation = F.linear(hidden, self.modulate, self.modulate_bias).reshape(B * S, H, self.config.depth, 3, 1, -1)
        return Rollout(self, context, modulation, S)

    def _blocks(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]


class Rollout:
    """A rollout under way: the keys and values of the frames predicted so far."""

    def __init__(self, predictor: LatentPredictor, context: PredictorContext, modulation: Tensor, num_candidates: int) -> None:
        """Use `LatentPredictor.start`."""
        self._predictor, self._context, self._modulation, self._S = predictor, context, modulation, num_candidates
        self._cache: list[tuple[Tensor, Tensor]] = []
        self._time = 0

    def step(self, z_BSND: Tensor) -> Tensor:
        """Predicts the frame after `z_BSND` under the next action; both are normalised and float32 (or float64)."""
        predictor, time = self._predictor, self._time
        B, S, N, _ = z_BSND.shape
        x = F.linear(z_BSND.to(predictor.project.dtype), predictor.project) + (
            predictor.token + predictor.step[min(time, predictor.config.horizon - 1)]
        )
        x = x.reshape(B * S, N, -1)
        for index, block in enumerate(predictor._blocks()):
            scale, shift, gate = self._modulation[:, time, index].unbind(1)
            q, k, v, m = block.queries_keys_values(_modulate(x, scale, shift))
            if time:
                earlier_k, earlier_v = self._cache[index]
                k, v = torch.cat([earlier_k, k], dim=2), torch.cat([earlier_v, v], dim=2)
                self._cache[index] = k, v
            else:
                self._cache.append((k, v))
            attended = attention_with_shared_context(q, self._context.keys[index], self._context.values[index], k, v)
            x = torch.addcmul(x, block.merge(attended, m), gate)
        self._time += 1
        delta = F.linear(F.layer_norm(x, x.shape[-1:]), predictor.head)
        return z_BSND + delta.reshape(z_BSND.shape).to(z_BSND.dtype)


def attention_with_shared_context(q: Tensor, context_k: Tensor, context_v: Tensor, own_k: Tensor, own_v: Tensor) -> Tensor:
    """Attends to keys shared by the candidates of a problem and to each candidate's own, in one softmax (exact).

    For the shared part the candidates' queries are folded into the rows of one matrix product, so nothing is copied per candidate.
    Plain products and a softmax are 2 to 3 times as fast here on CPU as `scaled_dot_product_attention`, whose cost per (row, head)
    dominates with so few keys.

    Args:
        q: Queries [B * S, K, Q, E].
        context_k: Shared keys [B, K, L, E], scaled.
        context_v: Shared values [B, K, L, E].
        own_k: Own keys [B * S, K, M, E], scaled.
        own_v: Own values [B * S, K, M, E].

    Returns:
        [B * S, K, Q, E].
    """
    rows = q.shape[0]
    B, _, shared, _ = context_k.shape
    scores = torch.cat([_fold(q, B) @ context_k.transpose(-1, -2), _fold(q @ own_k.transpose(-1, -2), B)], dim=-1)
    weights = _softmax(scores).to(q.dtype)
    from_context = _unfold(weights[..., :shared] @ context_v, rows)
    return from_context + _unfold(weights[..., shared:], rows) @ own_v


def _fold(x: Tensor, problems: int) -> Tensor:
    """[B * S, K, Q, E] -> [B, K, S * Q, E]; a view for one key head."""
    rows, heads, queries, width = x.shape
    return x.reshape(problems, rows // problems, heads, queries, width).transpose(1, 2).reshape(problems, heads, -1, width)


def _unfold(x: Tensor, rows: int) -> Tensor:
    """[B, K, S * Q, E] -> [B * S, K, Q, E]; undoes `_fold`."""
    problems, heads, _, width = x.shape
    return x.reshape(problems, heads, rows // problems, -1, width).transpose(1, 2).reshape(rows, heads, -1, width)


def _modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), scale)


def _softmax(scores: Tensor) -> Tensor:
    """Softmax in at least float32: exact enough, and faster on CPU than in bfloat16 for widths that no vector divides."""
    return torch.softmax(scores, dim=-1, dtype=_wide(scores.dtype))


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _normal(shape: tuple[int, ...], std: float, generator: torch.Generator | None) -> Tensor:
    return torch.empty(shape) if generator is None else torch.randn(shape, generator=generator) * std


class PersistencePredictor:
    """The control that every model must beat: nothing ever moves."""

    def prime(self, z_BTND: Tensor) -> PredictorContext:
        """Keeps the last frame."""
        return PredictorContext(keys=(), values=(), z_BND=z_BTND[:, -1].to(_wide(z_BTND.dtype)))

    def rollout(self, context: PredictorContext, actions_BSHA: Tensor) -> Tensor:
        """Repeats the last observed frame."""
        _, S, H, _ = actions_BSHA.shape
        return context.z_BND[:, None, None].expand(-1, S, H, -1, -1)
