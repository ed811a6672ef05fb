"""A picture of every task under every variation that can be seen, for the docs: one row a task, the first camera, one episode each.

python -m goalward.experiments.bench.variation_sheet --out docs/images/variations.png
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from goalward import UserError

SEEN = ("none", "region", "look", "camera", "distractors")
"""Noise and delay cannot be seen in one frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SheetCommand:
    """Draw the tasks under their variations."""

    out: Path
    """PNG file."""
    size_px: int = 144
    """Side of a picture."""
    seed: int = 3
    """Of the episodes."""

    def __post_init__(self) -> None:
        """Checks the size."""
        if not 32 <= self.size_px <= 512:
            raise UserError(f"size_px is {self.size_px}; must lie in 32 .. 512")


def sheet(*, size_px: int, seed: int) -> NDArray[np.uint8]:
    """Goal images, uint8 [rows, columns, 3]; a task without a variation leaves its place white."""
    from goalward.envs.registry import ENVS, make_env

    rows = []
    for task, entry in ENVS.items():
        if not entry.goal_splits:
            continue
        pictures = []
        for name in SEEN:
            split = "validation-region" if name == "region" else "validation"
            picture = np.full((size_px, size_px, 3), 255, dtype=np.uint8)
            if split in entry.goal_splits:
                env = make_env(task, variation=name, image_size_px=size_px)
                _, info = env.reset(seed=seed, options={"goal_index": 1, "split": split})
                picture = info["goal_pixels"][0]
                env.close()
            pictures.append(np.pad(picture, ((2, 2), (2, 2), (0, 0)), constant_values=255))
        rows.append(np.concatenate(pictures, axis=1))
    return np.concatenate(rows)


def run(config: SheetCommand) -> int:
    """Runs the command."""
    import imageio.v3 as iio

    iio.imwrite(config.out, sheet(size_px=config.size_px, seed=config.seed))
    print(f"{config.out}: columns are {', '.join(SEEN)}")
    return 0


def main() -> None:
    """Entry point."""
    from goalward.experiments.command_line import parse
    from goalward.experiments.errors import exit_code_of

    sys.exit(exit_code_of(lambda: run(parse(SheetCommand, prog="variation_sheet", args=sys.argv[1:]))))


if __name__ == "__main__":
    main()
