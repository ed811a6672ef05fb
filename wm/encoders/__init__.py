"""Frozen encoders: uint8 frames in, latent tokens out. `load_encoder(name_or_path)` is the one entry point.

- `registry.py`: names -> encoders; a contributor's encoder is one file and one line there.
- `small.py`: the embedded default, a small convolutional network of our own (`goalward pretrain` makes its weights).
- `pixels.py`: small pictures as latents, without weights: what a learned encoder must beat.
- `pretrained.py`: V-JEPA 2, DINOv2, DINOv3, SigLIP 2 through `transformers` (extra `hf`), from a folder or a hub; `families.py` is their
table, `pretrained_folder.py` loads and checks them, `preprocessing.py` and `pooling.py` are what happens before and after.
- `reference.py`: how a trained model names such an encoder without a copy of it.
- `vjepa2_format.py`: Meta's original files, converted once (`goalward convert`; `wm/conversion/` opens them).
- `vit.py`, `vit_folder.py`: a small transformer that is pretrained here and exported in V-JEPA 2's format.
- `folder.py`: the folder an encoder lives in (`encoder.json` + `encoder.safetensors`), written whole or not at all,
checked when read.
"""

from goalward.wm.encoders.folder import load_small_encoder, save_small_encoder
from goalward.wm.encoders.pixels import PixelEncoder, PixelEncoderConfig
from goalward.wm.encoders.pretrained import PretrainedEncoder
from goalward.wm.encoders.registry import ENCODERS, EncoderEntry, load_encoder
from goalward.wm.encoders.small import SmallEncoder, SmallEncoderConfig, SmallEncoderNetwork

__all__ = [
    "ENCODERS",
    "EncoderEntry",
    "PixelEncoder",
    "PixelEncoderConfig",
    "PretrainedEncoder",
    "SmallEncoder",
    "SmallEncoderConfig",
    "SmallEncoderNetwork",
    "load_encoder",
    "load_small_encoder",
    "save_small_encoder",
]
