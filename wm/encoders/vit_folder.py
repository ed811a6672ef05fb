"""Exports a trained vision transformer to V-JEPA 2's transformers format, with a reference that says how many tokens it was trained for.

config.json, model.safetensors, video_preprocessor_config.json    what `VJEPA2Model` reads
README.md                                                         model card, with the licence in its front matter
encoder.json                                                      our reference to the folder it lies in
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from goalward.wm.encoders.folder import JSON_NAME, write_atomically
from goalward.wm.encoders.licences import CARD
from goalward.wm.encoders.pretrained import PretrainedEncoder
from goalward.wm.encoders.pretrained_folder import load_pretrained_encoder
from goalward.wm.encoders.reference import reference_bytes
from goalward.wm.encoders.spec import EncoderSpec, ReadOut
from goalward.wm.encoders.vit import VisionTransformerNetwork
from goalward.wm.encoders.vjepa2_format import write_vjepa2_folder


def export_vision_transformer(
    folder: Path,
    network: VisionTransformerNetwork,
    *,
    licence: str,
    provenance: dict[str, Any],
    card: Callable[[PretrainedEncoder], str] = lambda encoder: f"# {encoder.name}\n",
) -> PretrainedEncoder:
    """Writes the folder, and reads it back as everybody else will.

    Args:
        folder: Made where missing; an encoder already there is replaced.
        network: Trained; its frames were taken whole, and so they are later.
        licence: Of the weights.
        provenance: How they came to be, JSON values.
        card: Writes the model card, in Markdown, for the encoder as it was read back.

    Returns:
        The frozen encoder, through `VJEPA2Model`.

    Raises:
        UserError: The folder cannot be written, or `transformers` is missing.
    """
    (folder / JSON_NAME).unlink(missing_ok=True)
    write_vjepa2_folder(folder, network.state_dict(), network.config.shape, cropped=False)
    front = f"---\nlicense: {licence}\n---\n\n"
    write_atomically(folder / CARD, front.encode())
    encoder = load_pretrained_encoder(EncoderSpec(source=str(folder)), base=ReadOut(tokens=network.config.tokens))
    write_atomically(folder / CARD, (front + card(encoder)).encode())
    write_atomically(folder / JSON_NAME, reference_bytes(encoder, provenance=provenance, here=True))
    return encoder
