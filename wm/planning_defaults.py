"""`planning.json` beside a model: how it is best planned with, as a generation config says it of a language model.

A person writes it, from a curve of success against milliseconds on validation goals, and says in it what it was chosen on; whoever plans
with the model and asks for nothing else gets it. Where there is none, the planners' own defaults hold. Reading believes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goalward import UserError
from goalward.datasets.strict_json import parse, read_regular
from goalward.wm.checkpoint import build_strictly

PLANNING_JSON = "planning.json"
FORMAT = "goalward-planning"
_MAX_BYTES = 2**16
_WITHOUT = {"proposals": "", "num_proposals": 4, "closed_loop": False}
"""What need not be said."""
_STEP_WEIGHTS = ("last", "uniform", "linear", "quartic")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanningDefaults:
    """Everything in `planning.json`."""

    planner: str
    """Registered name."""
    settings: dict[str, Any]
    """Fields of the planner's configuration that differ from its defaults: numbers, and true or false."""
    horizon: int
    """Actions in a plan."""
    step_weights: str
    """Which predicted frames the latent distance counts: last, uniform, linear or quartic."""
    proposals: str
    """Folder of a policy, beside this file, whose chunks the search looks at first; empty: none."""
    num_proposals: int
    """Chunks that are looked at, where there are any."""
    closed_loop: bool
    """Whether proposals are the policy's closed loop in the model's imagination, rather than its chunks."""
    chosen_on: str
    """A sentence: what these settings were chosen on."""

    def __post_init__(self) -> None:
        """Checks what can be checked without the planners."""
        if not 1 <= self.horizon <= 256:
            raise UserError(f"horizon is {self.horizon}; must lie in 1 .. 256")
        if self.step_weights not in _STEP_WEIGHTS:
            raise UserError(f"step_weights is {self.step_weights!r}; choose one of {', '.join(_STEP_WEIGHTS)}")
        if self.proposals in (".", "..") or "/" in self.proposals or "\\" in self.proposals:
            raise UserError(f"proposals is {self.proposals!r}; must be the name of a folder beside {PLANNING_JSON}, or empty")
        if not 1 <= self.num_proposals <= 4096:
            raise UserError(f"num_proposals is {self.num_proposals}; must lie in 1 .. 4096")
        if self.closed_loop and not self.proposals:
            raise UserError("closed_loop is true; it is how proposals are made: name a policy's folder in proposals, or leave it out")
        for name, value in self.settings.items():
            if not isinstance(value, int | float | bool):
                raise UserError(f"settings.{name} is {value!r}; must be a number, true or false")


def read_planning(folder: Path) -> PlanningDefaults | None:
    """Reads a model's planning defaults.

    Returns:
        None where there are none.

    Raises:
        UserError: The file is not what it should be; one line that names everything found.
    """
    path = folder / PLANNING_JSON
    if not path.exists():
        return None
    body = parse(read_regular(path, _MAX_BYTES), path)
    if not isinstance(body, dict) or body.pop("format", None) != FORMAT:
        raise UserError(f'{path}: lacks "format": "{FORMAT}"; mend or delete it')
    faults: list[str] = []
    found: PlanningDefaults | None = build_strictly(PlanningDefaults, _WITHOUT | body, "", faults, source=PLANNING_JSON)
    if found is None:
        raise UserError(f"{path}: {'; '.join(faults)}; mend or delete it")
    return found
