"""Kills a collecting run at random moments and checks what is left; prints `n of n`.

    python -m goalward.experiments.bench.kill_collect --env reach --kills 100

After every kill the store must open, hold every episode it held before, and every episode must be whole. At the end the run is let
finish, and must have made what one undisturbed run makes.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from goalward import UserError
from goalward.datasets.manifest import MANIFEST_NAME, EpisodeEntry
from goalward.datasets.store import EpisodeStore, open_store


@dataclass(frozen=True, kw_only=True, slots=True)
class KillCommand:
    """Kill a collecting run (SIGKILL) at random moments; check the store after each."""

    env: str = "reach"
    """Environment to collect from."""
    kills: int = 100
    """Runs to kill."""
    workers: int = 2
    """Workers of each run."""
    episode_steps: int = 4
    """Short episodes make many commits, so that kills fall into them."""
    image_size_px: int = 64
    """Height and width of a frame."""
    seed: int = 0
    """Decides the moments."""
    reference: bool = True
    """Compare the end with an undisturbed run."""

    def __post_init__(self) -> None:
        if not 1 <= self.kills <= 10_000:
            raise UserError(f"kills={self.kills} is out of range 1..10000")


def run(config: KillCommand) -> int:
    """Runs the check.

    Returns:
        Exit code: 0 when every kill left a whole store, else 1.
    """
    rng = np.random.default_rng(config.seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        began = time.monotonic()
        _finish(config, path, 1)  # how long a run takes to its first commit
        startup_s = time.monotonic() - began
        good, entries = 0, dict(open_store(path).entries)
        for number in range(config.kills):
            # half of the kills while the run starts or resumes, half while it commits
            _kill(_command(config, path, 100_000), float(rng.uniform(0.0, 2.0 * startup_s)))
            fault = _fault(path, entries)
            good += fault is None
            print(f"kill {number + 1}: {fault or f'{len(entries)} episodes, all whole'}", flush=True)
        same = True
        if config.reference:
            total = max(entries) + 1
            _finish(config, path, total)
            _finish(config, Path(folder) / "reference", total)
            same = open_store(path).content_hash == open_store(Path(folder) / "reference").content_hash
            print(f"{total} episodes, {'the same as' if same else 'NOT the same as'} those of an undisturbed run")
        print(f"{good} of {config.kills} kills left exactly the committed episodes, and the run continued")
    return 0 if same and good == config.kills else 1


def _command(config: KillCommand, path: Path, episodes: int) -> list[str]:
    options = {
        "env": config.env,
        "episodes": episodes,
        "workers": config.workers,
        "episode-steps": config.episode_steps,
        "image-size-px": config.image_size_px,
        "out": path,
    }
    flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "goalward.experiments.cli", "collect", *flags, "--quiet"]


def _finish(config: KillCommand, path: Path, episodes: int) -> None:
    subprocess.run(_command(config, path, episodes), check=True)


def _kill(command: Sequence[str], delay_s: float) -> None:
    with subprocess.Popen(command) as process:
        time.sleep(delay_s)
        if process.poll() is not None:
            raise RuntimeError(f"the run ended by itself with exit code {process.returncode}")
        process.send_signal(signal.SIGKILL)
        process.wait()


def _fault(path: Path, entries: dict[int, EpisodeEntry]) -> str | None:
    """What is wrong with the store, if anything; notes its new episodes in `entries`."""
    try:
        store = open_store(path)
        lost = [index for index, entry in entries.items() if store.entries.get(index) != entry]
        if lost:
            return f"episodes {lost} are lost or changed"
        _verify_new(store, entries)
    except UserError as error:
        return f"{path / MANIFEST_NAME}: {error}"
    entries |= store.entries
    return None


def _verify_new(store: EpisodeStore, entries: dict[int, EpisodeEntry]) -> None:
    for index in store.indices():
        if index not in entries:
            store.verify(index)


def main() -> None:
    """Entry point."""
    from goalward.experiments.command_line import parse
    from goalward.experiments.errors import exit_code_of

    sys.exit(exit_code_of(lambda: run(parse(KillCommand, prog="kill_collect", args=sys.argv[1:]))))


if __name__ == "__main__":
    main()
