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
(`PredictorContext`) are computed once per plan, for all candidates together; `rollout.py` and `attention.py` say how they are used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from goalward import UserError
from goalward.wm.attention import softmax
from goalward.wm.rollout import Rollout, modulate


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

    def take(self, problems: list[int]) -> PredictorContext:
        """Copies some problems out, in the order given; one may come more than once."""
        return PredictorContext(
            keys=tuple(key[problems] for key in self.keys),
            values=tuple(value[problems] for value in self.values),
            z_BND=self.z_BND[problems],
        )

    @classmethod
    def join(cls, contexts: list[PredictorContext]) -> PredictorContext:
        """Puts the problems of several contexts one after the other."""
        return cls(
            keys=tuple(torch.cat(layer) for layer in zip(*(context.keys for context in contexts), strict=True)),
            values=tuple(torch.cat(layer) for layer in zip(*(context.values for context in contexts), strict=True)),
            z_BND=torch.cat([context.z_BND for context in contexts]),
        )


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
        return self._key_heads(k * self.head_width**-0.5), self._key_heads(v)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Computes queries [rows, K, L * G, E], keys and values [rows, K, L, E], and the feed-forward part [rows, L, hidden]."""
        # Two products, not one: on a CPU, GELU of a contiguous result is three times as fast as of a slice.
        hidden = self.split[-1]
        k, v, q = F.linear(x, self.widen[:-hidden]).split_with_sizes(self.split[:-1], dim=-1)
        m = F.gelu(F.linear(x, self.widen[-hidden:]))
        rows, length, _ = q.shape
        q = q.reshape(rows, length, self.key_heads, -1, self.head_width).transpose(1, 2).reshape(rows, self.key_heads, -1, self.head_width)
        return q, self._key_heads(k * self.head_width**-0.5), self._key_heads(v), m

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
        for index, block in enumerate(self.layers()):
            modulated = modulate(x, *self.observed[index, :2])
            if index == self.config.depth - 1:  # Nothing reads the last layer's tokens, only its keys and values.
                k, v = block.keys_values(modulated)
            else:
                q, k, v, m = block.queries_keys_values(modulated)
                scores = (q @ k.transpose(-1, -2)).masked_fill(later, -torch.inf)
                x = x + self.observed[index, 2] * block.merge(softmax(scores).to(v.dtype) @ v, m)
            keys.append(k)
            values.append(v)
        return PredictorContext(keys=tuple(keys), values=tuple(values), z_BND=z_BTND[:, -1].to(_wide(z_BTND.dtype)))

    def rollout(
        self, context: PredictorContext, actions_BSHA: Tensor, *, tokens: Tensor | None = None, layers: int | None = None
    ) -> Tensor:
        """Predicts the latents after each action.

        Args:
            context: The observed past.
            actions_BSHA: Normalised actions.
            tokens: Predict these tokens of a frame alone, int64 [n]: cheaper and coarser, since they no longer see the others; None
                predicts all N.
            layers: Run the first layers alone, so many of them, coarser still; None runs all.

        Returns:
            z_BSHND float32 (float64 for a float64 context), differentiable with respect to the actions; with `tokens`, N is n.
        """
        if torch.is_grad_enabled():
            return self.rolled(context, actions_BSHA, tokens=tokens, layers=layers)
        # Inference mode saves a tenth of the time of small rollouts. What leaves it is an ordinary tensor, fit for gradients elsewhere.
        num_tokens = self.num_tokens if tokens is None else len(tokens)
        z_BSHND = context.z_BND.new_empty(*actions_BSHA.shape[:3], num_tokens, self.dim)
        with torch.inference_mode():
            return z_BSHND.copy_(self.rolled(context, actions_BSHA, tokens=tokens, layers=layers))

    def rolled(self, context: PredictorContext, actions_BSHA: Tensor, *, tokens: Tensor | None = None, layers: int | None = None) -> Tensor:
        """Computes what `rollout` returns, in the mode that is set."""
        rollout = self.start(context, actions_BSHA, tokens=tokens, layers=layers)
        z_BSND = context.z_BND[:, None]  # One frame for all candidates, until their actions tell them apart.
        z_BSND = z_BSND if tokens is None else z_BSND.index_select(2, tokens)
        predicted = []
        for _ in range(actions_BSHA.shape[2]):
            z_BSND = rollout.step(z_BSND)
            predicted.append(z_BSND)
        return torch.stack(predicted, dim=2)

    def start(self, context: PredictorContext, actions_BSHA: Tensor, *, tokens: Tensor | None = None, layers: int | None = None) -> Rollout:
        """Begins a rollout that is stepped by hand, for instance to feed it true frames in training; see `rollout`."""
        return Rollout(self, context, self.modulation(actions_BSHA), tokens=tokens, layers=layers)

    def modulation(self, actions_BSHA: Tensor) -> Tensor:
        """What actions make of the layers: scale, shift and gate [B, S, H, depth, 3, 1, W]."""
        hidden = F.silu(F.linear(actions_BSHA.to(self.project.dtype), self.action_in, self.action_in_bias))
        return F.linear(hidden, self.modulate, self.modulate_bias).reshape(*actions_BSHA.shape[:3], self.config.depth, 3, 1, -1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Entries of the rows inside."""
        return self.config.width, round(self.config.width * self.config.mlp_ratio), self.dim

    def layers(self) -> list[Block]:
        """The layers, first to last."""
        return [block for block in self.blocks if isinstance(block, Block)]


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
