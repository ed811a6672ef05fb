"""`goalward convert`: turns Meta's original V-JEPA 2 encoder file into a folder of safetensors that `--encoder` takes, once."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from goalward import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertCommand:
    """Convert an original V-JEPA 2 checkpoint (.pt) to transformers format; another process reads its tensors, nothing is executed."""

    checkpoint: Path
    """The file as it was downloaded, such as vitl.pt, vitg-384.pt or vjepa2-ac-vitg.pt."""
    out: Path
    """Folder to write; it must not hold a model yet."""
    entry: str = "encoder"
    """Which entry of the file: encoder, or target_encoder where there is one."""
    heads: int | None = None
    """Attention heads; none given: those of the published widths (16 for ViT-L and ViT-H, 22 for ViT-g)."""
    image_size_px: int | None = None
    """Side of the input; none given: read from the file's positions, else 256. The file vitg-384.pt is one of 384."""
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
    from goalward.wm.encoders.checkpoint_file import read_checkpoint
    from goalward.wm.encoders.pretrained_folder import CONFIG
    from goalward.wm.encoders.tensor_files import SINGLE
    from goalward.wm.encoders.vjepa2_format import meta_encoder, write_vjepa2_folder

    if any((config.out / name).exists() for name in (CONFIG, SINGLE)):
        raise UserError(f"out: {config.out} already holds a model; choose another --out")
    read = read_checkpoint(config.checkpoint, entry=config.entry)
    if config.sha256 and read.sha256 != config.sha256.lower():
        raise UserError(f"sha256: {config.checkpoint} has {read.sha256}, not {config.sha256.lower()}; download it again")
    try:
        tensors, shape = meta_encoder(read.tensors, heads=config.heads, image_px=config.image_size_px)
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
