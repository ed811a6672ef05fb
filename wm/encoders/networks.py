"""The encoders that can be trained here, by their configuration; frozen, each lives in a folder of its own format."""

from __future__ import annotations

import torch

from goalward.wm.encoders.small import SmallEncoderConfig, SmallEncoderNetwork
from goalward.wm.encoders.vit import VisionTransformerConfig, VisionTransformerNetwork

TrainableConfig = SmallEncoderConfig | VisionTransformerConfig
TrainableNetwork = SmallEncoderNetwork | VisionTransformerNetwork


def make_network(config: TrainableConfig, generator: torch.Generator | None = None) -> TrainableNetwork:
    """Builds the network of a configuration; `generator` draws its weights."""
    if isinstance(config, VisionTransformerConfig):
        return VisionTransformerNetwork(config, generator)
    return SmallEncoderNetwork(config, generator)
