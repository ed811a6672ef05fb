"""What a benchmark consists of: a JSON file that says which methods meet on which tasks, and how often.

    {"format": "goalward-benchmark", "name": "evidence", "seed": 0, "against": "planner",
     "methods": {"planner": {"kind": "planner", "weights": "runs/{env}-{seed}"}, "gcbc": {"kind": "policy", "weights": ...}, ...},
     "cells": [{"envs": ["reach"], "splits": ["test"], "methods": ["planner", "gcbc"], "episodes": 200, "training_seeds": [0, 1, 2]}]}

Reading believes nothing, and there is no code in it: `{env}` and `{seed}` in the weights' names are the only things that are filled in.
"""

from __future__ import annotations

import hashlib
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goalward import UserError
from goalward.datasets.strict_json import canonical, parse, read_regular
from goalward.wm.checkpoint import build_strictly

FORMAT = "goalward-benchmark"
_MAX_BYTES = 2**20
KINDS = ("hold", "random", "oracle", "planner", "policy")
DYNAMICS = ("learned", "true", "persistence", "shuffled")
STEP_WEIGHTS = ("last", "uniform", "linear", "quartic")
OBJECTIVES = ("advised", "latent", "state", "probe", "pixels")


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodSpec:
    """One way to act. What is left out of the file has these defaults."""

    kind: str
    """hold, random, oracle, planner or policy."""
    weights: str = ""
    """Model or policy: a shipped name, or a folder; `{env}` and `{seed}` (of training) are filled in."""
    planner: str = ""
    """Registered name; none given: what the model advises."""
    num_samples: int = 0
    """Candidates; 0: the planner's own number."""
    num_iterations: int = 0
    """Iterations; 0: the planner's own number."""
    horizon: int = 0
    """Actions in a plan; 0: what the model advises."""
    execute_steps: int = 1
    """Actions executed from each plan or chunk."""
    dynamics: str = "learned"
    """learned; true: the simulator itself (privileged); persistence: nothing ever changes; shuffled: predictions of other candidates."""
    objective: str = "advised"
    """advised by the model; latent distance; pixels: decoded; privileged: probe (a linear read-out of the place) and state (the place)."""
    proposals: str = ""
    """Policy whose chunks the planner looks at first, named like `weights`; none given: what the model advises; `none`: none at all."""
    num_proposals: int = 4
    """How many, where there are proposals."""
    closed_loop: bool = False
    """Proposals named here: the policy's closed loop in the model's imagination, rather than its chunks."""
    step_weights: str = "uniform"
    """Which predicted frames the objective `latent` counts: last, uniform, linear or quartic."""
    guidance: float = -1.0
    """Weight of the goal for a policy that has one; negative: the policy's own."""
    data_fraction: float = 1.0
    """Share of the data that the weights were trained on; for the curve of success against data, changes nothing."""
    family: str = ""
    """Name of the curve of success against data that it belongs to; none given: none."""

    @property
    def learns(self) -> bool:
        """Whether it depends on a training seed."""
        return "{seed}" in self.weights or "{seed}" in self.proposals

    @property
    def privileged(self) -> bool:
        """Whether it is told what no robot knows."""
        return self.kind == "oracle" or self.dynamics == "true" or self.objective in ("state", "probe")

    def __post_init__(self) -> None:
        """Checks every field."""
        for field, known in (("kind", KINDS), ("dynamics", DYNAMICS), ("objective", OBJECTIVES), ("step_weights", STEP_WEIGHTS)):
            if getattr(self, field) not in known:
                raise UserError(f"{field} is {getattr(self, field)!r}; choose one of {', '.join(known)}")
        if (self.kind in ("planner", "policy")) != bool(self.weights):
            raise UserError(f"weights is {self.weights!r}; a {self.kind} {'has none' if self.weights else 'needs them'}")
        for field in ("weights", "proposals"):
            _check_template(field, getattr(self, field))
        for field, low, high in (
            ("num_samples", 0, 2**20), ("num_iterations", 0, 10_000), ("horizon", 0, 256), ("execute_steps", 1, 256),
            ("num_proposals", 1, 4096), ("guidance", -1.0, 100.0), ("data_fraction", 0.0, 1.0),
        ):  # fmt: skip
            if not low <= getattr(self, field) <= high:
                raise UserError(f"{field} is {getattr(self, field)}; must lie in {low} .. {high}")
        if self.closed_loop and self.proposals in ("", "none"):
            raise UserError("closed_loop is true; it is how the proposals named here are made: name a policy in proposals, or leave it out")
        if self.step_weights != "uniform" and self.objective != "latent":
            raise UserError(f"step_weights is {self.step_weights!r}; only the objective 'latent' takes it: set objective to 'latent'")
        if self.objective == "state" and self.dynamics != "true":
            raise UserError("objective is 'state'; only true dynamics know the state: set dynamics to 'true'")


@dataclass(frozen=True, kw_only=True, slots=True)
class CellGroup:
    """A block of the table: every method on every split of every task."""

    envs: tuple[str, ...]
    """Short names."""
    splits: tuple[str, ...]
    """As `goalward.envs.splits` names them."""
    methods: tuple[str, ...]
    """Names of methods."""
    episodes: int
    """Episodes in a cell: goals 0 .. episodes - 1."""
    training_seeds: tuple[int, ...] = (0,)
    """Training seeds of those methods that learn."""

    def __post_init__(self) -> None:
        """Checks every field."""
        for field in ("envs", "splits", "methods", "training_seeds"):
            values = getattr(self, field)
            if not values or len(set(values)) != len(values):
                raise UserError(f"{field} is {list(values)}; give one or more, each once")
        if self.episodes < 1:
            raise UserError(f"episodes is {self.episodes}; must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkSpec:
    """A benchmark."""

    name: str
    """For titles."""
    seed: int
    """Base seed: episode k has seed + k, whatever the method."""
    against: str
    """The method that the others are compared with."""
    methods: dict[str, MethodSpec]
    """By name, in the order of the tables."""
    cells: tuple[CellGroup, ...]
    """Blocks; where two name the same cell, the larger number of episodes counts."""

    def __post_init__(self) -> None:
        """Checks that every name is known."""
        for name in (self.against, *(name for group in self.cells for name in group.methods)):
            if name not in self.methods:
                raise UserError(f"method {name!r} is not among methods: {', '.join(self.methods)}")
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}; must be 0 or more")

    @property
    def sha256(self) -> str:
        """Of everything in it."""
        import dataclasses

        return hashlib.sha256(canonical(dataclasses.asdict(self))).hexdigest()


def read_spec(path: Path) -> BenchmarkSpec:
    """Reads a benchmark.

    Raises:
        UserError: It is not what it should be; one line that names everything found.
    """
    body = parse(read_regular(path, _MAX_BYTES), path)
    if not isinstance(body, dict) or body.pop("format", None) != FORMAT:
        raise UserError(f'{path}: lacks "format": "{FORMAT}"; docs/benchmarks.md shows what a benchmark looks like')
    faults: list[str] = []
    methods = body.pop("methods", None)
    groups = body.pop("cells", None)
    made = {
        str(name): build_strictly(MethodSpec, _complete(MethodSpec, raw), f"methods.{name}", faults, source=path.name)
        for name, raw in (methods.items() if isinstance(methods, dict) else ())
    }
    cells = [
        build_strictly(CellGroup, _complete(CellGroup, raw), f"cells[{number}]", faults, source=path.name)
        for number, raw in enumerate(groups if isinstance(groups, list) else ())
    ]
    if not made or not cells:
        faults.append("methods and cells must not be empty")
    for name, kind in (("name", str), ("seed", int), ("against", str)):
        if type(body.get(name)) is not kind:
            faults.append(f"{name} must be {kind.__name__}")
    faults += [f"{name} is unknown" for name in body if name not in ("name", "seed", "against")]
    if faults:
        raise UserError(f"{path}: {'; '.join(faults)}")
    try:
        return BenchmarkSpec(methods=made, cells=tuple(cells), **body)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _complete(kind: Any, raw: Any) -> Any:
    """Adds the defaults of what was left out."""
    import dataclasses

    if not isinstance(raw, dict):
        return raw
    defaults = {field.name: field.default for field in dataclasses.fields(kind) if field.default is not dataclasses.MISSING}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()} | raw


def _check_template(field: str, text: str) -> None:
    try:
        names = {name for _, name, spec, conversion in string.Formatter().parse(text) if name is not None and not spec and not conversion}
        names |= {"?" for _, name, spec, conversion in string.Formatter().parse(text) if spec or conversion}
    except ValueError:
        names = {"?"}
    if names - {"env", "seed"}:
        raise UserError(f"{field} is {text!r}; only {{env}} and {{seed}} may stand in braces")
