"""`goalward encoders`: every encoder that is at hand, measured here, and those that others publish."""

from __future__ import annotations

import os
import statistics
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from goalward import UserError

if TYPE_CHECKING:
    from goalward.wm.base import Encoder

_MAX_FRAMES = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodersCommand:
    """List encoders: size of the frames, tokens, width, parameters, licence, and milliseconds a frame on this machine."""

    encoder: tuple[str, ...] = ()
    """Also these: folders or hub ids, with options, as `goalward train --encoder` takes them."""
    device: str = "cpu"
    """Where to measure: cpu, cuda, ..."""
    seconds: float = 1.0
    """How long each is measured at most, after a first frame."""
    threads: int = 0
    """CPU threads; 0: all cores."""
    json: bool = False
    """Print JSON on standard output, and nothing else there."""

    def __post_init__(self) -> None:
        """Checks every field."""
        if not 0 < self.seconds <= 600:
            raise UserError(f"seconds is {self.seconds}; must be above 0 and at most 600")
        if self.threads < 0:
            raise UserError(f"threads is {self.threads}; must be 0 (all cores) or above")


def run(config: EncodersCommand) -> int:
    """Runs the command.

    Returns:
        Exit code 0.

    Raises:
        UserError: An encoder that was named cannot be loaded.
    """
    import torch

    from goalward.experiments.doctor import machine
    from goalward.wm.encoders import ENCODERS, load_encoder
    from goalward.wm.encoders.published import PUBLISHED
    from goalward.wm.model import check_device

    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    device = check_device(config.device)
    here = [described(load_encoder(name, device=device), name, seconds=config.seconds) for name in (*ENCODERS, *config.encoder)]
    published = [
        {
            "encoder": entry.hub_id,
            "frame_px": entry.image_px,
            "tokens": entry.patches,
            "width": entry.dim,
            "parameters": round(1e6 * entry.million_parameters),
            "licence": entry.licence,
        }
        for entry in PUBLISHED
    ]
    if config.json:
        import json

        json.dump({"machine": machine(), "device": str(device), "here": here, "published": published}, sys.stdout, indent=1)
        print()
    else:
        _print(here, published, machine(), str(device))
    return 0


def described(encoder: Encoder, name: str, *, seconds: float) -> dict[str, Any]:
    """One encoder: its facts, and the median time of one frame."""
    import torch

    from goalward.wm.encoders import PretrainedEncoder, SmallEncoder

    size = encoder.image_size_px
    frames = torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    on_gpu = getattr(encoder, "device", torch.device("cpu")).type == "cuda"

    def once() -> float:
        started = time.perf_counter()
        encoder.encode(frames)
        if on_gpu:
            torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - started)

    once()  # the first frame pays for what is prepared once
    times, ends = [once()], time.perf_counter() + seconds
    while time.perf_counter() < ends and len(times) < _MAX_FRAMES:
        times.append(once())
    count = 0
    if isinstance(encoder, PretrainedEncoder):
        count = encoder.origin.num_parameters
    elif isinstance(encoder, SmallEncoder):
        count = sum(value.numel() for value in encoder.state_dict().values())
    return {
        "encoder": name,
        "frame_px": size,
        "tokens": encoder.tokens_per_view,
        "width": encoder.dim,
        "parameters": count,
        "licence": encoder.licence,
        "ms_per_frame": round(statistics.median(times), 3),
        "fingerprint": encoder.fingerprint,
    }


def _print(here: list[dict[str, Any]], published: list[dict[str, Any]], facts: dict[str, Any], device: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.width = max(console.width, 110)  # ids are there to be copied: never broken over lines
    for title, rows, last in (
        (f"Encoders at hand, on {device}, {facts['threads']} threads ({facts['processor']})", here, "ms a frame"),
        ("Published by others: before pooling; give the commit behind the id", published, ""),
    ):
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("encoder", "frame px", "tokens", "width", "M parameters", "licence", *([last] if last else [])):
            table.add_column(column, justify="left" if column in ("encoder", "licence") else "right", no_wrap=column == "encoder")
        for row in rows:
            cells = [row["encoder"], str(row["frame_px"]), str(row["tokens"]), str(row["width"])]
            cells += [f"{row['parameters'] / 1e6:.1f}", row["licence"]]
            table.add_row(*cells, *([f"{row['ms_per_frame']:.2f}"] if last else []))
        console.print(table)
        console.print()
