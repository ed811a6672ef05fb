"""`goalward probe`: measures what an encoder's latents hold, against random weights and raw pixels, probed alike."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from goalward import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeCommand:
    """Measure an encoder: collapse diagnostics and linear probes of a position, on held-out episodes."""

    data: Path
    """Episode store with the position among its proprioception."""
    encoder: str = "goalward-small"
    """Name of an encoder, a folder or a hub id, as `goalward train` takes it."""
    target: tuple[str, ...] = ("ee_x_m", "ee_y_m", "ee_z_m")
    """Proprioception entries that the probe reads, metres."""
    max_samples: int = 6_000
    """Bound on the frames of the train split; the other splits get a quarter of it each."""
    pixel_side: int = 16
    """Side to which raw pixels are averaged down for their reference probe."""
    seed: int = 0
    """Of the random encoder and of the episodes taken."""
    threads: int = 0
    """CPU threads; 0: all cores."""
    out: Path | None = None
    """JSON file for the report; None prints only."""
    json: bool = False
    """Print the report as JSON on standard output and nothing else there."""

    def __post_init__(self) -> None:
        """Checks every field."""
        if not self.target:
            raise UserError("target is empty; name at least one proprioception entry")
        if self.max_samples < 8:
            raise UserError(f"max_samples = {self.max_samples}: must be at least 8; use 6000")
        if self.pixel_side < 1:
            raise UserError(f"pixel_side = {self.pixel_side}: must be at least 1; use 16")
        if self.threads < 0:
            raise UserError(f"threads = {self.threads}: must be 0 (all cores) or above")


def run(config: ProbeCommand) -> int:
    """Runs the command.

    Returns:
        Exit code 0.

    Raises:
        UserError: Any fault of encoder, data or options.
    """
    import torch

    from goalward.datasets.store import open_store
    from goalward.wm.encoders import load_encoder
    from goalward.wm.encoders.folder import write_atomically

    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    encoder = load_encoder(config.encoder)
    report = probe_report(config, encoder, open_store(config.data))
    text = json.dumps(report, indent=2, sort_keys=True)
    if config.out is not None:
        write_atomically(config.out, (text + "\n").encode())
    if config.json:
        print(text)
    else:
        _print_table(report)
    return 0


def probe_report(config: ProbeCommand, encoder: Any, store: Any) -> dict[str, Any]:
    """Probes an encoder and its references.

    Args:
        config: Target, bounds, seed.
        encoder: Frozen encoder (`goalward.wm.base.Encoder`).
        store: Episode store (`goalward.datasets.store.EpisodeStore`).

    Returns:
        JSON values: per method the probe's errors in the target's unit, and the encoder's collapse report and
        distance ranking.

    Raises:
        UserError: The store lacks the target, a split, or frames of the encoder's size.
    """
    import torch

    from goalward.wm.encoders.small import SmallEncoder, SmallEncoderNetwork
    from goalward.wm.probe import collapse_report, distance_ranking, encoder_features, pixel_features, ridge_probe

    splits = {name: _load(config, encoder, store, name) for name in ("train", "validation", "test")}

    def features(method: Any) -> dict[str, Any]:
        return {name: (method(pixels), target) for name, (pixels, target) in splits.items()}

    methods = {"encoder": features(lambda pixels: encoder_features(encoder, pixels))}
    if isinstance(encoder, SmallEncoder):
        generator = torch.Generator().manual_seed(config.seed)
        random = SmallEncoder(SmallEncoderNetwork(encoder.config, generator), name="random weights")
        methods["random weights"] = features(lambda pixels: encoder_features(random, pixels))
    methods[f"pixels {config.pixel_side}x{config.pixel_side}"] = features(lambda pixels: pixel_features(pixels, side=config.pixel_side))
    report: dict[str, Any] = {
        "encoder": encoder.name,
        "fingerprint": encoder.fingerprint,
        "data_sha256": store.content_hash,
        "methods": {},
    }
    report["samples"] = {name: len(target) for name, (_, target) in splits.items()}
    report["target"] = list(config.target)
    for name, values in methods.items():
        probe = ridge_probe(values["train"], values["validation"], values["test"])
        ranking = distance_ranking(*values["test"], generator=torch.Generator().manual_seed(config.seed))
        report["methods"][name] = asdict(probe) | {
            "features": values["train"][0].shape[1],
            "distance_rank_correlation": {
                "all": ranking[0],
                "within_10_cm": None if ranking[1] != ranking[1] else ranking[1],
            },
        }
    report["collapse"] = asdict(collapse_report(methods["encoder"]["test"][0]))
    return report


def _load(config: ProbeCommand, encoder: Any, store: Any, split: str) -> tuple[Any, Any]:
    """Reads frames uint8 [K,V,h,w,3] and targets float32 [K,Y] of whole episodes of a split."""
    import numpy as np
    import torch

    names = list(store.spec.proprio_names)
    if missing := [name for name in config.target if name not in names]:
        raise UserError(f"target: {', '.join(missing)} not among the data's proprioception ({', '.join(names)}); choose from those")
    columns = [names.index(name) for name in config.target]
    bound = config.max_samples if split == "train" else max(4, config.max_samples // 4)
    order = np.random.default_rng(config.seed).permutation(np.asarray(list(store.indices(split)), dtype=np.int64))
    pixels, targets, count = [], [], 0
    for index in order:
        if count >= bound:
            break
        episode = store.episode(int(index))
        pixels.append(episode.pixels)
        targets.append(episode.proprio[:, columns])
        count += len(episode.pixels)
    if not pixels:
        raise UserError(f"data has no episode in its {split} split; collect more episodes")
    size = encoder.image_size_px
    if pixels[0].shape[2:] != (size, size, 3):
        raise UserError(
            f"data has frames {list(pixels[0].shape[2:])}: encoder {encoder.name!r} takes [{size}, {size}, 3]; choose data of that size"
        )
    return np.concatenate(pixels)[:bound], torch.from_numpy(np.concatenate(targets)[:bound].astype(np.float32))


def _print_table(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"linear probe of {', '.join(report['target'])} on {report['samples']['test']} held-out frames")
    for title in ("features", "width", "mean error, cm", "p90, cm", "R2", "distance rank corr.", "within 10 cm"):
        table.add_column(title, justify="left" if title == "features" else "right")
    for name, row in report["methods"].items():
        ranking = row["distance_rank_correlation"]
        near = "-" if ranking["within_10_cm"] is None else f"{ranking['within_10_cm']:.3f}"
        errors = (f"{100 * row['mean_error']:.2f}", f"{100 * row['p90_error']:.2f}", f"{row['r2']:.4f}")
        table.add_row(name, str(row["features"]), *errors, f"{ranking['all']:.3f}", near)
    console = Console()
    console.print(table)
    collapse = report["collapse"]
    console.print(
        f"effective rank {collapse['effective_rank']:.1f} of {collapse['width']}, "
        f"participation ratio {collapse['participation_ratio']:.1f}, standard deviation {collapse['std_mean']:.2f} "
        f"(least {collapse['std_min']:.3f}), dead features {collapse['dead_fraction']:.1%}"
    )
