"""`goalward data info | preview | verify`: what an episode store holds, and whether it is whole."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from goalward.datasets.store import EpisodeStore

Split = Literal["all", "train", "validation", "test"]


@dataclass(frozen=True, kw_only=True, slots=True)
class InfoCommand:
    """Print what an episode store holds."""

    path: tyro.conf.Positional[Path]
    """Folder of the store."""
    json: bool = False
    """Print JSON on standard output, and nothing else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreviewCommand:
    """Write a picture or a video of an episode store."""

    path: tyro.conf.Positional[Path]
    """Folder of the store."""
    out: Path = Path("preview.png")
    """`.png`: contact sheet, a row for each episode and camera; `.mp4` or `.gif`: episodes side by side."""
    episodes: int = 6
    """Episodes to show, spread over the split."""
    columns: int = 10
    """Moments in a contact sheet."""
    split: Split = "all"
    """Split to choose from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyCommand:
    """Read every byte of an episode store and compare it with its checksums."""

    path: tyro.conf.Positional[Path]
    """Folder of the store."""
    quiet: bool = False
    """No progress bar."""


DataCommand = (
    Annotated[InfoCommand, tyro.conf.subcommand("info")]
    | Annotated[PreviewCommand, tyro.conf.subcommand("preview")]
    | Annotated[VerifyCommand, tyro.conf.subcommand("verify")]
)


def run(config: InfoCommand | PreviewCommand | VerifyCommand) -> int:
    """Runs one of the commands.

    Returns:
        Exit code: 0, or 2 when `verify` found damage.

    Raises:
        UserError: not a store, or damaged.
    """
    match config:
        case InfoCommand():
            return run_info(config)
        case PreviewCommand():
            return run_preview(config)
        case VerifyCommand():
            return run_verify(config)


def run_info(config: InfoCommand) -> int:
    """Prints a summary; see `InfoCommand`."""
    from goalward.datasets.store import open_store

    summary = summarise(open_store(config.path))
    if config.json:
        print(json.dumps(summary, indent=2, allow_nan=False))
    else:
        _print_tables(summary)
    return 0


def run_preview(config: PreviewCommand) -> int:
    """Writes a picture or a video; see `PreviewCommand`."""
    from goalward.datasets.preview import write_preview
    from goalward.datasets.store import open_store

    split = None if config.split == "all" else config.split
    shown = write_preview(open_store(config.path), config.out, count=config.episodes, columns=config.columns, split=split)
    print(f"{config.out}: episodes {', '.join(map(str, shown))}", file=sys.stderr)
    return 0


def run_verify(config: VerifyCommand) -> int:
    """Checks every byte; see `VerifyCommand`."""
    from rich.console import Console
    from rich.progress import track

    from goalward.datasets.store import open_store

    store = open_store(config.path)
    checks = track(store.damage(), "verify", total=store.num_episodes, console=Console(stderr=True), disable=config.quiet)
    faults = [message for _, message in checks if message is not None]
    for message in faults:
        print(f"error: {message}", file=sys.stderr)
    if faults:
        print(f"error: {len(faults)} of {store.num_episodes} episodes are damaged; collect them again or restore a copy", file=sys.stderr)
        return 2
    print(f"{store.num_episodes} episodes, every byte as recorded; content {store.content_hash}")
    return 0


def summarise(store: EpisodeStore) -> dict[str, Any]:
    """What a store holds, as plain JSON values; reads actions and proprioception, no pixels."""
    from goalward.datasets.splits import SPLITS

    entries = store.entries.values()
    frames = sum(entry.num_steps + 1 for entry in entries)
    decoded = {
        "pixels": frames * len(store.spec.cameras) * store.spec.image_size_px**2 * 3,
        "proprio": frames * len(store.spec.proprio_names) * 4,
        "actions": (frames - store.num_episodes) * len(store.spec.action_names) * 4,
    }
    return {
        "path": str(store.path),
        "content_hash": store.content_hash,
        "spec": store.spec.to_json(),
        "num_episodes": store.num_episodes,
        "num_frames": frames,
        "num_discarded": sum(entry.discarded for entry in entries),
        "duration_s": round((frames - store.num_episodes) * store.spec.dt_s, 3),
        "splits": {split: len(store.indices(split)) for split in SPLITS},
        "behaviours": dict(sorted(Counter(entry.behaviour for entry in entries).items())),
        "bytes_on_disk": store.bytes_on_disk(),
        "bytes_decoded": decoded,
        "action_range": _ranges(store, "actions", store.spec.action_names),
        "proprio_range": _ranges(store, "proprio", store.spec.proprio_names),
    }


def _ranges(store: EpisodeStore, array: str, names: tuple[str, ...]) -> dict[str, list[float]]:
    """Name -> [smallest, largest] over all episodes."""
    import numpy as np

    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for index in store.indices():
        values = getattr(store, array)(index)
        low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
    return {name: [float(a), float(b)] for name, a, b in zip(names, low, high, strict=True)} if store.num_episodes else {}


def _print_tables(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    spec, total = summary["spec"], max(summary["num_episodes"], 1)
    facts = Table(title=summary["path"], show_header=False, title_justify="left")
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    facts.add_row("environment", f"{spec['env_id']}, {1 / spec['dt_s']:g} Hz")
    facts.add_row("cameras", f"{', '.join(spec['cameras'])}, {spec['image_size_px']} px")
    facts.add_row("episodes", f"{summary['num_episodes']} ({summary['num_discarded']} failed attempts discarded)")
    facts.add_row("frames", f"{summary['num_frames']} from each camera, {_duration(summary['duration_s'])}")
    for title, key in (("splits", "splits"), ("behaviours", "behaviours")):
        facts.add_row(title, ", ".join(f"{name} {n} ({100 * n / total:.0f} %)" for name, n in summary[key].items()))
    disk, decoded = sum(summary["bytes_on_disk"].values()), sum(summary["bytes_decoded"].values())
    facts.add_row("on disk", f"{_size(disk)} of {_size(decoded)} ({decoded / max(disk, 1):.1f} times smaller)")
    facts.add_row("made by", ", ".join(f"{name} {version}" for name, version in spec["software"].items()))
    facts.add_row("settings", ", ".join(f"{name}={value}" for name, value in spec["config"].items()))
    facts.add_row("content", summary["content_hash"])
    ranges = Table(title="ranges", title_justify="left")
    for heading in ("entry", "smallest", "largest", "allowed"):
        ranges.add_column(heading, justify="left" if heading == "entry" else "right")
    allowed = {n: f"{a:g} .. {b:g}" for n, a, b in zip(spec["action_names"], spec["action_low"], spec["action_high"], strict=True)}
    for kind in ("action", "proprio"):
        for name, (low, high) in summary[f"{kind}_range"].items():
            ranges.add_row(f"{kind} {name}", f"{low:.4f}", f"{high:.4f}", allowed.get(name, "") if kind == "action" else "")
    console = Console(markup=False, highlight=False)
    console.print(facts)
    console.print(ranges)


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} GB"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
