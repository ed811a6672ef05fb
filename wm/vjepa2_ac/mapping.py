"""The published names of V-JEPA 2-AC's weights, and ours.

The published file holds the predictor's `state_dict` of a distributed run: `module.` stands before every name, and the loader of the public
repository (`src/hub/backbones.py`) strips it. Queries and keys are permuted within each head to the layout that `rotary.py` turns them in.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from goalward import UserError
from goalward.wm.vjepa2_ac.config import EXTRINSICS_DIM, STATE_DIM, VJepa2ACConfig
from goalward.wm.vjepa2_ac.rotary import halved

_TOP = {
    "predictor_embed": "embed", "action_encoder": "action", "state_encoder": "state", "extrinsics_encoder": "extrinsics",
    "predictor_norm": "norm", "predictor_proj": "head",
}  # fmt: skip
_LAYER = {"norm1": "norm1", "attn.qkv": "qkv", "attn.proj": "proj", "norm2": "norm2", "mlp.fc1": "fc1", "mlp.fc2": "fc2"}
_BLOCK = re.compile(r"predictor_blocks\.(\d+)\.")


def stripped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Takes away what distributed training and wrappers put before names: `module.` and `backbone.`."""
    return {name.replace("module.", "").replace("backbone.", ""): tensor for name, tensor in tensors.items()}


def expected_shapes(config: VJepa2ACConfig) -> dict[str, tuple[int, ...]]:
    """Published names and shapes of all weights."""
    c = config
    linear = {
        "predictor_embed": (c.width, c.dim), "action_encoder": (c.width, STATE_DIM), "state_encoder": (c.width, STATE_DIM),
        "extrinsics_encoder": (c.width, EXTRINSICS_DIM), "predictor_proj": (c.dim, c.width), "predictor_norm": (c.width,),
    }  # fmt: skip
    layer = {
        "norm1": (c.width,), "attn.qkv": (3 * c.width, c.width), "attn.proj": (c.width, c.width), "norm2": (c.width,),
        "mlp.fc1": (c.hidden, c.width), "mlp.fc2": (c.width, c.hidden),
    }  # fmt: skip
    linear |= {f"predictor_blocks.{index}.{name}": shape for index in range(c.depth) for name, shape in layer.items()}
    shapes = {f"{name}.weight": shape for name, shape in linear.items()}
    return shapes | {f"{name}.bias": shape[:1] for name, shape in linear.items()}


def sizes_of(tensors: dict[str, Tensor], *, heads: int = 16) -> VJepa2ACConfig:
    """Reads the sizes out of the weights' shapes; the heads and the grid cannot be seen in them.

    Args:
        tensors: By published names, stripped.
        heads: Attention heads.

    Raises:
        UserError: They are another architecture's.
    """
    embed, hidden = tensors.get("predictor_embed.weight"), tensors.get("predictor_blocks.0.mlp.fc1.weight")
    numbers = [int(match.group(1)) for name in tensors if (match := _BLOCK.match(name))]
    action = tensors.get("action_encoder.weight")
    if embed is None or hidden is None or action is None or embed.ndim != 2 or hidden.ndim != 2 or action.ndim != 2:
        lacking = [name for name in ("predictor_embed", "action_encoder", "predictor_blocks.0.mlp.fc1") if f"{name}.weight" not in tensors]
        some = ", ".join(sorted(tensors)[:3]) or "nothing"
        raise UserError(
            f"weights: not V-JEPA 2-AC's predictor: no matrix {' or '.join(lacking) or 'of the right shape'} among {some}, ...; "
            "give the file vjepa2-ac-vitg.pt"
        )
    return VJepa2ACConfig(
        dim=embed.shape[1], width=embed.shape[0], depth=max(numbers) + 1, heads=heads, hidden=hidden.shape[0], rows=1, columns=1
    )


def check_names(tensors: dict[str, Tensor], config: VJepa2ACConfig) -> None:
    """Refuses weights that are not exactly those of this size.

    Args:
        tensors: By published names, stripped.
        config: The size.

    Raises:
        UserError: Names, shapes, dtypes or values are wrong; all that is, in one line.
    """
    expected = expected_shapes(config)
    faults = [f"{name} is missing" for name in sorted(expected.keys() - tensors.keys())]
    faults += [f"{name} is unknown" for name in sorted(tensors.keys() - expected.keys())]
    for name in sorted(expected.keys() & tensors.keys()):
        tensor = tensors[name]
        if tuple(tensor.shape) != expected[name] or not tensor.dtype.is_floating_point:
            dtype = str(tensor.dtype).removeprefix("torch.")
            faults.append(f"{name} is {dtype} {list(tensor.shape)}, must be floats {list(expected[name])}")
        elif not bool(torch.isfinite(tensor).all()):
            faults.append(f"{name} holds values that are not finite")
    if faults:
        raise UserError(f"weights: {len(faults)} faults: {'; '.join(faults)}; give V-JEPA 2-AC's own predictor, whole")


def ours_of(name: str) -> str:
    """Our name of a published weight."""
    stem, _, kind = name.rpartition(".")
    if match := _BLOCK.match(name):
        return f"blocks.{match.group(1)}.{_LAYER[stem[match.end() :]]}.{kind}"
    return f"{_TOP[stem]}.{kind}"


def translated(tensors: dict[str, Tensor], config: VJepa2ACConfig) -> dict[str, Tensor]:
    """Weights by our names and in our layout, float32; of checked weights by published names."""
    within = halved(config.head_width)
    head = torch.arange(config.heads)[:, None] * config.head_width
    one = (head + within).flatten()  # queries or keys
    order = torch.cat([one, config.width + one, torch.arange(2 * config.width, 3 * config.width)])
    mine = {}
    for name, tensor in tensors.items():
        wide = tensor.to(torch.float32)
        mine[ours_of(name)] = wide[order] if ".attn.qkv." in name else wide.contiguous()
    return mine
