"""`goalward collect`: records simulated episodes into an episode store."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from goalward import UserError

if TYPE_CHECKING:
    from goalward.datasets.collect import Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectCommand:
    """Record simulated episodes. Run the same command again to go on after an interruption, or with more episodes to add some."""

    env: str = "reach"
    """Environment: `reach`, or `scenes` for passive videos."""
    episodes: int = 500
    """Episodes that the store is to hold in the end."""
    out: Path = Path("data/reach")
    """Folder of the store."""
    workers: int | None = None
    """Processes that simulate; None: one for each CPU core; 0: in this process."""
    seed: int = 0
    """Decides everything random, together with an episode's number."""
    episode_steps: int = 32
    """Actions in an episode."""
    image_size_px: int = 128
    """Height and width of a frame."""
    cameras: tuple[str, ...] = ()
    """Named cameras to record; none given: all that the environment observes by default."""
    appearance: Literal["fixed", "varied"] = "fixed"
    """`varied` redraws lights, textures and camera poses in every episode (video for pretraining)."""
    quiet: bool = False
    """No progress bar."""

    def __post_init__(self) -> None:
        for name, low, high in (("episodes", 1, 1_000_000), ("episode_steps", 1, 100_000), ("seed", 0, 2**32 - 1)):
            if not low <= getattr(self, name) <= high:
                raise UserError(f"{name}={getattr(self, name)} is out of range {low}..{high}")
        if self.workers is not None and not 0 <= self.workers <= 256:
            raise UserError(f"workers={self.workers} is out of range 0..256")


def run(config: CollectCommand) -> int:
    """Runs the command.

    Returns:
        Exit code 0.

    Raises:
        UserError: bad options, a store made with other settings, a full disk, a worker that died. Committed episodes stay.
    """
    from goalward.datasets.collect import collect
    from goalward.datasets.simulate import Recipe
    from goalward.envs.registry import find_env, make_env

    name, entry = find_env(config.env)
    settings = env_settings(config)
    with _Bar(config.quiet) as bar:
        progress = collect(
            config.out,
            make_env=functools.partial(make_env, name, **settings),
            recipe=Recipe(base_seed=config.seed, episode_steps=config.episode_steps, behaviours=entry.behaviours),
            config={"appearance": config.appearance},
            num_episodes=config.episodes,
            num_workers=available_cores() if config.workers is None else config.workers,
            on_progress=bar.update,
        )
    if not config.quiet:
        discarded = f", {progress.discarded} failed attempts discarded" if progress.discarded else ""
        hint = f"look at them with: goalward data info {config.out}"
        print(f"{progress.committed} episodes in {config.out}{discarded}; {hint}", file=sys.stderr)
    return 0


def env_settings(config: CollectCommand) -> dict[str, Any]:
    """Arguments of the environment; only what differs from its own defaults is passed.

    Raises:
        UserError: an option that this environment does not have.
    """
    from goalward.envs.registry import find_env

    name, entry = find_env(config.env)
    settings: dict[str, Any] = {"image_size_px": config.image_size_px}
    if config.cameras:
        settings["cameras"] = config.cameras
    if config.appearance != "fixed":
        settings["appearance"] = config.appearance
    known = inspect.signature(_load(entry.entry_point)).parameters
    for option in settings:
        if option not in known:
            raise UserError(f"environment {name} has no option {option}={settings[option]!r}; leave it out")
    return settings


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load(entry_point: str) -> Any:
    import importlib

    module, _, attribute = entry_point.partition(":")
    return getattr(importlib.import_module(module), attribute)


class _Bar:
    """Progress with episodes per second and the time left, on standard error."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("[bold]collect"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=quiet,
        )
        self._task = self._bar.add_task("collect", total=None, rate="starting")
        self._began_s = 0.0

    def update(self, progress: Progress) -> None:
        """Shows where the collection stands."""
        new = progress.committed - progress.resumed
        if new == 0:
            self._began_s = time.monotonic()
            # what an earlier run did must not count as speed, so it is set before the clock of the bar starts
            self._bar.reset(self._task, total=progress.total, completed=progress.committed, rate="")
            return
        rate = new / max(time.monotonic() - self._began_s, 1e-9)
        self._bar.update(self._task, completed=progress.committed, rate=f"{rate:.1f} episodes/s")

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()
