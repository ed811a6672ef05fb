"""Progress of commands that train on cached latents: first frames are encoded, then steps are taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self


class TrainingBar:
    """Progress on standard error; without a terminal, a line now and then."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._console = Console(stderr=True, quiet=quiet)
        columns: Sequence[Any] = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=self._console, refresh_per_second=2)
        self._task = self._bar.add_task("train", total=1, figures="", visible=False)
        self._total = 1

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def encoding(self, split: str) -> None:
        """Begins the encoding of a split."""
        self._next(f"encode {split} episodes", 1)

    def encoded(self, done: int, total: int) -> None:
        """Episodes encoded so far."""
        self._bar.update(self._task, completed=done, total=total)

    def start(self, steps: int) -> None:
        """Begins training."""
        self._total = steps
        self._next("train", steps)

    def advance(self, step: int, figures: str, *, milestone: bool) -> None:
        """Shows figures; without a terminal, on milestones only."""
        self._bar.update(self._task, completed=step, figures=figures)
        if milestone and not self._console.is_terminal:
            self.note(f"step {step}/{self._total} {figures}")

    def _next(self, description: str, total: int) -> None:
        self._bar.remove_task(self._task)
        self._task = self._bar.add_task(description, total=total, figures="")
