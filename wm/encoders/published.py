"""Encoders whose weights others publish: what one gets before anything is downloaded. Parameters are those that are run here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Published:
    """One set of weights on the hub."""

    hub_id: str
    """owner/name; append `@` and the commit."""
    image_px: int
    """Side of the input, pixels."""
    dim: int
    """Latent width D."""
    patches: int
    """Patch tokens of a frame, before pooling."""
    million_parameters: float
    """Of the part that is run."""
    licence: str
    """As its model page or repository says; check it there."""


PUBLISHED = (
    Published("facebook/vjepa2-vitl-fpc64-256", 256, 1024, 256, 303.9, "MIT"),
    Published("facebook/vjepa2-vith-fpc64-256", 256, 1280, 256, 631.6, "MIT"),
    Published("facebook/vjepa2-vitg-fpc64-256", 256, 1408, 256, 1012.2, "MIT"),
    Published("facebook/vjepa2-vitg-fpc64-384", 384, 1408, 576, 1012.2, "MIT"),
    Published("facebook/dinov2-small", 224, 384, 256, 22.1, "Apache-2.0"),
    Published("facebook/dinov2-base", 224, 768, 256, 86.6, "Apache-2.0"),
    Published("facebook/dinov2-large", 224, 1024, 256, 304.4, "Apache-2.0"),
    Published("facebook/dinov2-giant", 224, 1536, 256, 1136.5, "Apache-2.0"),
    Published("facebook/dinov3-vits16-pretrain-lvd1689m", 224, 384, 196, 21.6, "DINOv3-License"),
    Published("facebook/dinov3-vitb16-pretrain-lvd1689m", 224, 768, 196, 85.7, "DINOv3-License"),
    Published("facebook/dinov3-vitl16-pretrain-lvd1689m", 224, 1024, 196, 303.1, "DINOv3-License"),
    Published("google/siglip2-base-patch16-224", 224, 768, 196, 85.8, "Apache-2.0"),
    Published("google/siglip2-large-patch16-256", 256, 1024, 256, 303.4, "Apache-2.0"),
    Published("google/siglip2-so400m-patch14-224", 224, 1152, 256, 412.4, "Apache-2.0"),
)
