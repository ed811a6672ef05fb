"""V-JEPA 2-AC's predictor (arXiv 2506.09985, section 3.1), written anew; the published weights give the same numbers.

Letters in array names: B problems, S candidates, H horizon steps, T frames, N patch tokens per frame, D width of the encoder's tokens,
A = P = 7 entries of actions and states; inside: L tokens of a frame (action, state, the camera's pose where it is used, then the N
patches), W width, K heads, E head width, M loose frames.

    x     = [action a_t | state s_t | (camera e_t) | patches z_t]              each through a linear layer of its own
    x    += proj(attention(q, k, v)),  q, k, v = qkv(norm(x))                  q and k turned by time, row and column (`rotary.py`)
    x    += fc2(gelu(fc1(norm(x))))                                            24 layers
    z_t+1 = head(norm(x at the patches of frame t))

A token sees all tokens of its own frame and of earlier frames. So frame t's patches see the action of step t: what is predicted from them
is frame t + 1. Tokens are layer-normalised (without weights) before they enter, and predictions before they are fed back.

`forward` is this definition, over a whole window at once. Planning goes through `prime` and `rollout`, which give the same numbers with
less work; `context.py` says which.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from goalward.wm.vjepa2_ac.attention import attention
from goalward.wm.vjepa2_ac.config import EXTRINSICS_DIM, STATE_DIM, VJepa2ACConfig
from goalward.wm.vjepa2_ac.context import ACContext, primed
from goalward.wm.vjepa2_ac.rollout import rolled
from goalward.wm.vjepa2_ac.rotary import turned, turning

_EPS = 1e-6


class Block(nn.Module):
    """One layer."""

    def __init__(self, config: VJepa2ACConfig) -> None:
        super().__init__()
        self.heads, self.head_width = config.heads, config.head_width
        self.norm1, self.norm2 = (nn.LayerNorm(config.width, eps=_EPS) for _ in range(2))
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)
        self.fc1 = nn.Linear(config.width, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.width)

    def queries_keys_values(self, x_MLW: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Makes queries, keys and values [M, L, K, E]; queries and keys are turned by `cosine` and `sine` [L, 2 W]."""
        qk, v = self.qkv(self.norm1(x_MLW)).split([2 * x_MLW.shape[-1], x_MLW.shape[-1]], dim=-1)
        qk = turned(qk, cosine, sine, self.head_width)
        q, k, v = (part.view(*x_MLW.shape[:2], self.heads, self.head_width) for part in (*qk.chunk(2, dim=-1), v))
        return q, k, v

    def attend(self, x_MLW: Tensor, q_MLKE: Tensor, k_MXKE: Tensor, v_MXKE: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attends to X keys and goes on through the feed-forward part; [M, L, W]."""
        return self.finish(x_MLW, attention(q_MLKE, k_MXKE, v_MXKE, mask).flatten(-2))

    def finish(self, x_MLW: Tensor, attended_MLW: Tensor) -> Tensor:
        """Adds what was attended to, then the feed-forward part."""
        x_MLW = x_MLW + self.proj(attended_MLW)
        update: Tensor = self.fc2(F.gelu(self.fc1(self.norm2(x_MLW))))
        return x_MLW + update


class VJepa2ACPredictor(nn.Module):
    """Predicts layer-normalised patch tokens under physical actions; see the top of this file."""

    def __init__(self, config: VJepa2ACConfig) -> None:
        """Builds the network; weights are to be loaded (`folder.py`)."""
        super().__init__()
        self.config = config
        self.embed = nn.Linear(config.dim, config.width)
        self.action = nn.Linear(STATE_DIM, config.width)
        self.state = nn.Linear(STATE_DIM, config.width)
        self.extrinsics = nn.Linear(EXTRINSICS_DIM, config.width)  # in the file even where it is not used
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=_EPS)
        self.head = nn.Linear(config.width, config.dim)
        self._turning: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.embed.weight.dtype

    @property
    def layers(self) -> list[Block]:
        """The layers, first to last."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def forward(self, z_BTND: Tensor, actions_BTA: Tensor, states_BTP: Tensor, extrinsics_BTE: Tensor | None = None) -> Tensor:
        """Predicts the frame after each frame of a window, from that frame and all earlier ones; not layer-normalised.

        Args:
            z_BTND: Layer-normalised tokens.
            actions_BTA: What is done at each frame; metres, radians, closedness, see `poses.py`.
            states_BTP: Where the end effector is at each frame.
            extrinsics_BTE: The camera's pose at each frame, [B, T, 6], where the configuration uses it.
        """
        T = z_BTND.shape[1]
        conditions = [self.condition(self.action, actions_BTA), self.condition(self.state, states_BTP)]
        if self.config.extrinsics and extrinsics_BTE is not None:
            conditions.append(self.condition(self.extrinsics, extrinsics_BTE))
        x = torch.cat([*conditions, self.embed(z_BTND.to(self.dtype))], dim=2).flatten(1, 2)
        cosine, sine = (torch.cat(parts) for parts in zip(*(self.turning(time) for time in range(T)), strict=True))
        frame = torch.arange(T, device=x.device).repeat_interleave(self.config.num_tokens)
        mask = frame[:, None] >= frame[None, :]
        for block in self.layers:
            x = block.attend(x, *block.queries_keys_values(x, cosine, sine), mask)
        return self.predicted(x.view(len(x), T, self.config.num_tokens, -1)[:, :, self.config.num_conditions :])

    def prime(self, z_BTND: Tensor, states_BTP: Tensor, actions_BUA: Tensor, extrinsics_BTE: Tensor | None = None) -> ACContext:
        """Digests T observed frames and the U = T - 1 actions between them, once for all candidates; see `context.py`."""
        return primed(self, z_BTND, states_BTP, actions_BUA, extrinsics_BTE)

    def rollout(self, context: ACContext, actions_BSHA: Tensor) -> Tensor:
        """Predicts z_BSHND, layer-normalised, float32; differentiable in the actions; see `rollout.py`."""
        return rolled(self, context, actions_BSHA)

    def condition(self, layer: nn.Module, values: Tensor) -> Tensor:
        """Makes one token of an action, a state or a camera's pose: [..., 1, W]."""
        token: Tensor = layer(values.to(self.dtype))
        return token.unsqueeze(-2)

    def predicted(self, x: Tensor) -> Tensor:
        """Reads the predicted patches [..., N, D] out of the last layer's tokens at the patches [..., N, W]."""
        z: Tensor = self.head(self.norm(x))
        return z

    def turning(self, time: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the positions of the frame at a time, kept for the next call."""
        weight = self.embed.weight
        if time not in self._turning or self._turning[time][0].device != weight.device or self._turning[time][0].dtype != weight.dtype:
            with torch.inference_mode(False):  # kept for calls with gradients too
                cosine, sine = turning(self.config, time)
                self._turning[time] = (cosine.to(weight.device, weight.dtype), sine.to(weight.device, weight.dtype))
        return self._turning[time]
