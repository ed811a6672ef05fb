"""`goalward convert`: turns Meta's original V-JEPA 2 files into folders of safetensors, once: an encoder, or V-JEPA 2-AC's predictor."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from goalward import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertCommand:
    """Convert an original V-JEPA 2 checkpoint (.pt) to safetensors; another process reads its tensors, nothing is executed."""

    checkpoint: Path
    """The file as it was downloaded, such as vitl.pt, vitg-384.pt or vjepa2-ac-vitg.pt."""
    out: Path
    """Folder to write; it must not hold a model yet."""
    part: Literal["encoder", "predictor"] = "encoder"
    """encoder: to transformers format; predictor: V-JEPA 2-AC's, out of vjepa2-ac-vitg.pt, for `read_predictor` (docs/vjepa2-ac.md)."""
    entry: str = "encoder"
    """Of the encoder: which entry of the file: encoder, or target_encoder where there is one."""
    heads: int | None = None
    """Attention heads; none given: those of the published widths (16 for ViT-L, ViT-H and the predictor, 22 for ViT-g)."""
    image_size_px: int | None = None
    """Side of the encoder's input; none given: read from the file's positions, else 256. The file vitg-384.pt is one of 384."""
    sha256: str = ""
    """Refuse the file if its SHA-256 is another one."""
    quiet: bool = False
    """Print nothing."""

    def __post_init__(self) -> None:
        """Checks what the library does not."""
        if self.heads is not None and not 1 <= self.heads <= 256:
            raise UserError(f"heads is {self.heads}; must be in 1 .. 256")
        if self.image_size_px is not None and (not 16 <= self.image_size_px <= 2048 or self.image_size_px % 16):
            raise UserError(f"image_size_px is {self.image_size_px}; must be a multiple of 16 in 16 .. 2048")
        if self.sha256 and not re.fullmatch(r"[0-9a-fA-F]{64}", self.sha256):
            raise UserError(f"sha256 is {self.sha256[:80]!r}; must be 64 hexadecimal digits")


def run(config: ConvertCommand) -> int:
    """Runs the command.

    Returns:
        Exit code 0.

    Raises:
        UserError: No such file, another architecture (every tensor named), anything that is not a plain tensor, or a folder in use.
    """
    if config.part == "predictor":
        return _convert_predictor(config)
    from goalward.wm.conversion.tensor_file import read_tensors
    from goalward.wm.encoders.pretrained_folder import CONFIG
    from goalward.wm.encoders.vjepa2_format import meta_encoder, write_vjepa2_folder

    if config.out.exists() and not config.out.is_dir():
        raise UserError(f"out: {config.out} is a file; choose a folder")
    if (config.out / CONFIG).exists():  # written last: weights without it are what a kill left, and are written again
        raise UserError(f"out: {config.out} already holds a model; choose another --out")
    read = read_tensors(config.checkpoint, (config.entry,))
    if config.sha256 and read.sha256 != config.sha256.lower():
        raise UserError(f"sha256: {config.checkpoint} has {read.sha256}, not {config.sha256.lower()}; download it again")
    try:
        tensors, shape = meta_encoder(read.sections[config.entry], heads=config.heads, image_px=config.image_size_px)
    except UserError as error:
        raise UserError(f"checkpoint {config.checkpoint}, entry {config.entry!r}: {error}") from error
    metadata = {"source": config.checkpoint.name, "source_sha256": read.sha256, "entry": config.entry}
    write_vjepa2_folder(config.out, tensors, shape, cropped=True, metadata=metadata)
    if not config.quiet:
        count = sum(value.numel() for value in tensors.values())
        print(
            f"SHA-256 of {config.checkpoint.name}: {read.sha256}\n"
            f"{config.out}: V-JEPA 2 encoder, {count / 1e6:.1f} million parameters, width {shape.width}, {shape.depth} blocks, "
            f"{shape.heads} heads, {shape.image_px} px, {(shape.image_px // shape.patch_px) ** 2} patch tokens a frame\n"
            f"next: goalward encoders --encoder {config.out}",
            file=sys.stderr,
        )
    return 0


def _convert_predictor(config: ConvertCommand) -> int:
    from goalward.wm.conversion.tensor_file import sha256_of
    from goalward.wm.vjepa2_ac.folder import JSON_NAME, convert_predictor

    if config.entry != "encoder" or config.image_size_px is not None:
        raise UserError("entry and image_size_px are of the encoder; leave them out with --part predictor")
    if (config.out / JSON_NAME).exists():
        raise UserError(f"out: {config.out} already holds a predictor; choose another --out")
    if config.sha256 and config.checkpoint.is_file() and (found := sha256_of(config.checkpoint)) != config.sha256.lower():
        raise UserError(f"sha256: {config.checkpoint} has {found}, not {config.sha256.lower()}; download it again")
    made = convert_predictor(config.checkpoint, config.out, heads=config.heads or 16)
    if not config.quiet:
        print(
            f"SHA-256 of {config.checkpoint.name}: {made.source_sha256}\n"
            f"{config.out}: V-JEPA 2-AC predictor, {made.num_parameters / 1e6:.1f} million parameters, width {made.config.width}, "
            f"{made.config.depth} layers, for an encoder of width {made.config.dim}\n"
            "next: docs/vjepa2-ac.md",
            file=sys.stderr,
        )
    return 0
