"""`goalward reweigh`: makes a task's encoder from a shipped one, in which small objects count beside the arm; without labels."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from goalward import UserError
from goalward.experiments.training_bar import TrainingBar
from goalward.experiments.training_inputs import open_data, software


@dataclass(frozen=True, kw_only=True, slots=True)
class ReweighCommand:
    """Reweigh a frozen encoder for a task: what the arm's own sensors do not explain counts more. Then train with `--encoder OUT`."""

    env: str = "push"
    """Environment of the episodes."""
    data: Path | None = None
    """Episode store; none given: data/<env>."""
    out: Path | None = None
    """Folder for the encoder; none given: runs/<env>-encoder."""
    encoder: str = "goalward-small"
    """Name of an encoder, or the folder `goalward pretrain` wrote."""
    power: float = 0.5
    """How much more the unexplained counts: 0 evens out what the arm explains, 1 is the most."""
    floor: float = 0.01
    """Bounds how far a direction is enlarged: a share of the arm's largest variance."""
    seed: int = 0
    """Of the network that explains latents by the arm's sensors."""
    cache: Path | None = None
    """Folder that keeps encoded frames for the next run; none given: beside the data, <data>-latents."""
    threads: int = 0
    """CPU threads; 0: all cores."""
    quiet: bool = False
    """No progress bar, no summary."""

    def __post_init__(self) -> None:
        """Checks what the library does not."""
        if self.threads < 0:
            raise UserError(f"threads is {self.threads}; must be 0 (all cores) or above")

    @property
    def cameras(self) -> tuple[str, ...]:
        """All in the data."""
        return ()

    @property
    def fraction(self) -> float:
        """All of the episodes."""
        return 1.0


def run(config: ReweighCommand) -> int:
    """Runs the command.

    Returns:
        Exit code 0.

    Raises:
        UserError: any fault of data, encoder, options or disk.
    """
    import torch

    from goalward.wm.encoders import SmallEncoder, load_encoder, save_small_encoder
    from goalward.wm.encoders.folder import JSON_NAME
    from goalward.wm.latents import encode_store
    from goalward.wm.reweighing import ReweighConfig, find_reweighing, reweighed

    settings = ReweighConfig(power=config.power, floor=config.floor, seed=config.seed)
    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    out = config.out or Path("runs") / f"{config.env}-encoder"
    if (out / JSON_NAME).exists():
        raise UserError(f"out: {out} already holds an encoder; choose another --out")
    store = open_data(config)
    encoder = load_encoder(config.encoder)
    if not isinstance(encoder, SmallEncoder):
        raise UserError(f"encoder {config.encoder!r} has no last linear map to fold into; choose goalward-small, or one pretrained")
    cache = config.cache or store.path.parent / f"{store.path.name}-latents"
    # Speeds hardly show in a single frame.
    named = store.spec.proprio_names
    columns = [i for i, name in enumerate(named) if not name.endswith("_s")]
    if not columns:
        raise UserError(f"data: proprioception is {', '.join(named)}: no position or angle to explain latents by")
    with TrainingBar(config.quiet) as bar:
        bar.encoding("train")
        episodes = encode_store(store, encoder, split="train", cache=cache, progress=bar.encoded)
        bar.start(settings.steps)
        found = find_reweighing(
            settings,
            episodes.z_FND,
            episodes.proprio_FP[:, columns],
            report=lambda step, _: bar.advance(step, "", milestone=False),
        )
    made = reweighed(encoder, found.map_DD, name=f"{encoder.name}-{config.env}")
    facts = {
        "objective": "reweighed: what the arm's own sensors do not explain counts more",
        "command": f"goalward reweigh --env {config.env} --encoder {encoder.name} "
        f"--power {config.power:g} --floor {config.floor:g} --seed {config.seed}",
        "encoder": encoder.fingerprint,
        "data": {"env": store.spec.env_id, "sha256": store.content_hash, "episodes": episodes.num_episodes},
        "figures": {
            "sensors": [named[i] for i in columns],
            "explained_before": round(found.explained, 4),
            "gain_of_the_rest": round(found.gain, 3),
        },
        "versions": software(),
    }
    save_small_encoder(out, made, provenance=facts)
    if not config.quiet:
        print(
            f"{out}: the arm's sensors explain {100 * found.explained:.0f} % of the latents' variance in {encoder.name}; "
            f"the rest now weighs {found.gain:.1f} times as much\n"
            f"next: goalward train --env {config.env} --encoder {out}",
            file=sys.stderr,
        )
    return 0
