"""What all policies share: the trunk that compares the present with the goal, and small conditioned heads on top of it.

Letters in array names: B problems, S samples, H horizon steps, T context frames, N tokens per frame, D latent width, A action dimensions,
P proprioception dimensions; inside: W width, X entries that a head works on.

The trunk is built from the predictor's own layers (`wm/predictor.py`), so that planner and policies differ in what they learn and not in
what they are made of. Each of the N tokens of a frame looks at one place of the image, so past, present and goal of one place enter one
token together:

    x_n    = past [z_n(t-T+1) .. z_n(t)] + goal z_n(goal) + token_n        N tokens and one read-out token
    x     += gate * mix[ attention(norm(x)), gelu(feed-forward(norm(x))) ]  (per layer)
    summary = norm(read-out token)

It costs N + 1 tokens, not (T + 1) N, and once per decision, however many samples are drawn.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from goalward import UserError
from goalward.policies.base import Options
from goalward.policies.hindsight import HindsightBatch, HindsightConfig
from goalward.wm.attention import softmax
from goalward.wm.predictor import Block, PredictorConfig
from goalward.wm.rollout import modulate


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What goes into a network and comes out of it."""

    num_tokens: int
    """N."""
    dim: int
    """D."""
    action_dim: int
    """A."""
    proprio_dim: int = 0
    """P; 0 for a policy that sees no proprioception."""


class PolicyNetwork(nn.Module, abc.ABC):
    """A kind of policy: how it learns and how it acts, in normalised units. Parameters only, no buffers."""

    default_size: ClassVar[PredictorConfig]
    """Size of the trunk with which the whole has about as many weights as the default predictor (0.49 million)."""
    default_hindsight: ClassVar[HindsightConfig]
    """Goals to learn from."""

    def __init__(self, size: PredictorConfig, options: Options, shape: Shape, generator: torch.Generator | None = None) -> None:
        """Builds the shared parts.

        Args:
            size: Of the trunk; T and H.
            options: Of the kind.
            shape: Of what goes in and out.
            generator: Source of the initial weights; None leaves them to be loaded.
        """
        super().__init__()
        self.size, self.options, self.action_dim = size, options, shape.action_dim
        self.trunk = Trunk(size, shape, generator)

    @abc.abstractmethod
    def loss(self, batch: HindsightBatch, generator: torch.Generator) -> Tensor:
        """What training minimises, a float32 scalar; the generator is on the CPU."""

    @abc.abstractmethod
    def act(
        self,
        z_BTND: Tensor,
        z_goal_BND: Tensor,
        proprio_BP: Tensor | None,
        *,
        options: Options,
        generator: torch.Generator | None,
        num_samples: int,
    ) -> Tensor:
        """Normalised actions_BSHA; `options` may differ from the trained ones in what is adjustable."""


class Trunk(nn.Module):
    """Compares the present with the goal; see the top of this file."""

    def __init__(self, size: PredictorConfig, shape: Shape, generator: torch.Generator | None) -> None:
        """Draws the weights from `generator`; None leaves them to be loaded."""
        super().__init__()
        width, dim, past = size.width, shape.dim, size.context_frames * shape.dim
        self.past = nn.Parameter(normal((width, past), past**-0.5, generator))
        self.goal = nn.Parameter(normal((width, dim), dim**-0.5, generator))
        self.proprio = nn.Parameter(normal((width, P), P**-0.5, generator)) if (P := shape.proprio_dim) else None
        self.token = nn.Parameter(normal((1, shape.num_tokens, width), 0.5, generator))
        self.readout = nn.Parameter(normal((1, 1, width), 0.5, generator))
        neutral = torch.tensor([1.0, 0.0, 1.0])[:, None].expand(size.depth, 3, width)
        self.modulation = nn.Parameter(neutral.clone())
        self.blocks = nn.ModuleList(Block(size, generator) for _ in range(size.depth))

    def see_goal(self, z_goal_BND: Tensor) -> Tensor:
        """The goal as the tokens see it, [B, N, W]."""
        return F.linear(z_goal_BND, self.goal)

    def forward(self, z_BTND: Tensor, goal_BNW: Tensor, proprio_BP: Tensor | None) -> Tensor:
        """Returns the summary [B, W].

        Args:
            z_BTND: Normalised latents of T frames, the oldest first.
            goal_BNW: From `see_goal`, or whatever stands for an unknown goal.
            proprio_BP: Normalised; looked at only by a trunk that was built for it.
        """
        x = F.linear(z_BTND.transpose(1, 2).flatten(2), self.past) + goal_BNW + self.token
        if self.proprio is not None:
            assert proprio_BP is not None
            x = x + F.linear(proprio_BP, self.proprio)[:, None]
        x = torch.cat([self.readout.expand(len(x), -1, -1).to(x.dtype), x], dim=1)
        for block, (scale, shift, gate) in zip(self.blocks, self.modulation, strict=True):
            assert isinstance(block, Block)
            q, k, v, m = block.queries_keys_values(modulate(x, scale, shift))
            x = x + gate * block.merge(softmax(q @ k.transpose(-1, -2)).to(v.dtype) @ v, m)
        return F.layer_norm(x[:, 0], x.shape[-1:])


class ModulatedHead(nn.Module):
    """A residual network on X entries, told by a summary what to make of them (AdaLN, arXiv 2212.09748, section 3.2)."""

    def __init__(self, inputs: int, condition: int, outputs: int, *, width: int, depth: int, generator: torch.Generator | None) -> None:
        """Its answer is 0 until it is trained; `generator` as everywhere."""
        super().__init__()
        self.depth, self.width = depth, width
        self.enter = nn.Parameter(normal((width, inputs), inputs**-0.5, generator))
        self.enter_bias = nn.Parameter(torch.zeros(width))
        self.modulate = nn.Parameter(normal((depth * 3 * width, condition), 0.5 * condition**-0.5, generator))
        neutral = torch.tensor([1.0, 0.0, 1.0])[:, None].expand(depth, 3, width)
        self.modulate_bias = nn.Parameter(neutral.flatten().clone())
        self.widen = nn.ParameterList(nn.Parameter(normal((2 * width, width), width**-0.5, generator)) for _ in range(depth))
        self.narrow = nn.ParameterList(
            nn.Parameter(normal((width, 2 * width), (4 * depth * width) ** -0.5, generator)) for _ in range(depth)
        )
        self.leave = nn.Parameter(torch.zeros(outputs, width))
        self.leave_bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Maps [..., inputs], told [..., condition] of the same or broadcastable leading axes, to [..., outputs]."""
        x = F.linear(x, self.enter, self.enter_bias)
        told = F.linear(F.silu(condition), self.modulate, self.modulate_bias).reshape(*condition.shape[:-1], self.depth, 3, self.width)
        for index, (widen, narrow) in enumerate(zip(self.widen, self.narrow, strict=True)):
            scale, shift, gate = told[..., index, :, :].unbind(-2)
            x = x + gate * F.linear(F.gelu(F.linear(modulate(x, scale, shift), widen)), narrow)
        return F.linear(F.layer_norm(x, x.shape[-1:]), self.leave, self.leave_bias)


def waves(x: Tensor, count: int = 6) -> Tensor:
    """Sines and cosines of a number in 0 .. 1, at `count` doubling frequencies: [...] to [..., 2 count + 1], the number itself first."""
    angle = x[..., None] * (math.pi * 2.0 ** torch.arange(count, device=x.device, dtype=x.dtype))
    return torch.cat([x[..., None], angle.sin(), angle.cos()], dim=-1)


def scattered(mean_BHA: Tensor, num_samples: int, spread: float, generator: torch.Generator | None) -> Tensor:
    """One answer as S samples: itself first, then itself with white noise of standard deviation `spread` (normalised units).

    Raises:
        UserError: More than one sample without a generator.
    """
    if num_samples == 1:
        return mean_BHA[:, None]
    B, H, A = mean_BHA.shape
    noise = torch.randn((B, num_samples - 1, H, A), generator=demand(generator, num_samples)).to(mean_BHA.device)
    return torch.cat([mean_BHA[:, None], mean_BHA[:, None] + spread * noise], dim=1)


def demand(generator: torch.Generator | None, num_samples: int) -> torch.Generator:
    """The generator, which must be there.

    Raises:
        UserError: It is not.
    """
    if generator is None:
        raise UserError(f"generator: {num_samples} samples need one, and none is given; pass a torch.Generator, or ask for one sample")
    return generator


def normal(shape: tuple[int, ...], std: float, generator: torch.Generator | None) -> Tensor:
    """Initial weights; empty where they are to be loaded."""
    return torch.empty(shape) if generator is None else torch.randn(shape, generator=generator) * std
