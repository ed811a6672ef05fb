"""What an evaluation leaves behind: episode records, `results.json`, and how both are read and written.

`results.json`, schema 2:

    schema, command, created            2; the command line; UTC time
    config, env, machine, versions      what ran, on what
    seeds                               {"base": s, "rule": how an episode's seed follows from it}
    hashes                              sha256 of the model, its encoder and the goal manifest
    methods                             list of {"name", "strict": {"rate", "low", "high"}, "moderate": {...},
                                        "plan_ms": {"p50", "p95", "p99"}, "final_distance_m": {"median", "p90"},
                                        "decisions": how plans came about, ...}; null where a figure does not exist
    detection                           success as the controller sees it against the true state, see `detection.py`; null without a
                                        calibrated model
    paired                              exact paired tests of the planner against every reference
    episodes                            every episode of every method, with its distances, energies, actions and decisions
    wall_s, resumed_episodes            duration of this run; episodes taken over from an interrupted one

JSON has no infinities: a figure that is not finite is null.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from goalward import UserError
from goalward.datasets.durable import replace_file
from goalward.experiments.statistics import Rate, compare_paired, percentile

SCHEMA = 2
RESULTS_NAME = "results.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """How one action came about."""

    stop: str
    """Why the search ended (`iterations`, `converged`, `deadline`), or `reused` for an action of an earlier plan."""
    iterations: int
    """Iterations of the search; 0 for a reused plan."""
    surprise: float | None
    """Distance of the observation from what the plan had predicted, in units of the model's typical error; None where not known."""
    surprised: bool
    """Whether that was too much, so that plan and warm start were dropped."""
    success: bool | None
    """Whether the controller held the goal to be reached; None for a model that is not calibrated."""

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Reads a decision.

        Raises:
            ValueError: a field is missing, unknown or of another type.
        """
        kinds = {"stop": str, "iterations": int, "surprise": (float, int, type(None)), "surprised": bool, "success": (bool, type(None))}
        if not isinstance(raw, Mapping) or set(raw) != set(kinds):
            raise ValueError(f"fields of a decision must be {', '.join(kinds)}")
        if wrong := [name for name, kind in kinds.items() if not isinstance(raw[name], kind)]:  # type: ignore[arg-type]
            raise ValueError(f"a decision has a field of a wrong type: {', '.join(wrong)}")
        return cls(**raw)


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeRecord:
    """One episode of one method; enough to redraw it, and to replay it from its actions."""

    method: str
    """Name of the method."""
    index: int
    """Number of the episode; methods are paired by it."""
    goal_id: str
    """Goal in the manifest."""
    seed: int
    """Seed of the environment and of the method."""
    distances_m: tuple[float | None, ...]
    """True distance to the goal before the first and after every step [T+1]; None where the state had diverged."""
    energies: tuple[float | None, ...] | None
    """Mean squared difference between the frame's and the goal image's latents, same instants [T+1]; None for a method without a model."""
    actions: tuple[tuple[float | None, ...], ...]
    """Actions sent to the environment [T][A]; None stands for a number that was not finite."""
    plan_ms: tuple[float, ...]
    """Wall time of every decision [T], encoding and planning together; empty for a method that does not plan."""
    strict: bool
    """Inside the tight tolerance for several steps running, as the environment defines it."""
    moderate: bool
    """Inside the wide tolerance at the end."""
    steps: int
    """Steps taken, T."""
    failure: str | None
    """Why the episode was broken off, or None; a failed episode is no success of either kind."""
    decisions: tuple[Decision, ...] = ()
    """How every action came about [T]; empty for a method that does not tell."""
    waits_s: tuple[float, ...] = ()
    """How long the world went on before every action [T], in real time; empty where it stood still during decisions."""

    @property
    def final_distance_m(self) -> float:
        """Distance at the end; infinite when the episode failed, so that a failure is never a good place to be."""
        last = self.distances_m[-1]
        return math.inf if self.failure is not None or last is None else last

    @property
    def outcome(self) -> str:
        """`failed`, `strict`, `moderate` or `missed`."""
        if self.failure is not None:
            return "failed"
        return "strict" if self.strict else "moderate" if self.moderate else "missed"

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Reads a record.

        Raises:
            ValueError: a field is missing, unknown or of another type.
        """
        names = {field.name for field in fields(cls)}
        found = set(raw) if isinstance(raw, Mapping) else set()
        if found != names:
            raise ValueError(f"fields of an episode differ: {sorted(found ^ names)}")
        try:
            energies = raw["energies"]
            return cls(
                method=str(raw["method"]), index=int(raw["index"]), goal_id=str(raw["goal_id"]), seed=int(raw["seed"]),
                distances_m=tuple(raw["distances_m"]), energies=None if energies is None else tuple(energies),
                actions=tuple(tuple(row) for row in raw["actions"]), plan_ms=tuple(raw["plan_ms"]),
                strict=bool(raw["strict"]), moderate=bool(raw["moderate"]), steps=int(raw["steps"]), failure=raw["failure"],
                decisions=tuple(map(Decision.from_json, raw["decisions"])), waits_s=tuple(map(float, raw["waits_s"])),
            )  # fmt: skip
        except TypeError as error:
            raise ValueError(f"an episode has a field of a wrong type: {error}") from error


def summarise(name: str, episodes: Sequence[EpisodeRecord], *, role: str) -> dict[str, Any]:
    """The entry of one method in `methods`.

    Args:
        name: name of the method.
        episodes: its episodes, at least one.
        role: `planner`, `reference` or `privileged reference`.
    """
    finals = [e.final_distance_m for e in episodes]
    plan_ms = [ms for e in episodes for ms in e.plan_ms]
    steps = [float(e.steps) for e in episodes if e.strict]
    entry = {
        "name": name,
        "role": role,
        "episodes": len(episodes),
        "strict": asdict(Rate.of([e.strict for e in episodes])),
        "moderate": asdict(Rate.of([e.moderate for e in episodes])),
        "final_distance_m": {"median": percentile(finals, 50), "p90": percentile(finals, 90)},
        "steps_to_success": {"median": percentile(steps, 50), "p90": percentile(steps, 90)},
        "plan_ms": {f"p{p}": percentile(plan_ms, p) for p in (50, 95, 99)} | {"calls": len(plan_ms)},
        "failures": sum(e.failure is not None for e in episodes),
        "decisions": count_decisions([decision for e in episodes for decision in e.decisions]),
    }
    cleaned: dict[str, Any] = finite_json(entry)
    return cleaned


def count_decisions(decisions: Sequence[Decision]) -> dict[str, Any] | None:
    """How plans came about: searches and reuses, iterations, why searches stopped, surprises; None where there is nothing to count."""
    if not decisions:
        return None
    planned = [decision for decision in decisions if decision.stop != "reused"]
    iterations = [float(decision.iterations) for decision in planned]
    surprises = [decision.surprise for decision in decisions if decision.surprise is not None]
    return {
        "planned": len(planned),
        "reused": len(decisions) - len(planned),
        "iterations": {"p5": percentile(iterations, 5), "p50": percentile(iterations, 50), "max": max(iterations, default=None)},
        "stop_reasons": dict(sorted(Counter(decision.stop for decision in planned).items())),
        "surprise": {"p50": percentile(surprises, 50), "p99": percentile(surprises, 99)},
        "surprised": sum(decision.surprised for decision in decisions),
    }


def paired_tests(episodes: Mapping[str, Sequence[EpisodeRecord]], *, planner: str) -> list[dict[str, Any]]:
    """Strict success of the planner against every other method, goal by goal."""
    own = [e.strict for e in episodes[planner]]
    return [
        {"method": planner, "against": name, **asdict(compare_paired(own, [e.strict for e in theirs]))}
        for name, theirs in episodes.items()
        if name != planner
    ]


def finite_json(value: Any) -> Any:
    """Copies JSON values, with None for every float that is not finite, and tuples as lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite_json(entry) for entry in value]
    return value


def to_text(results: Mapping[str, Any]) -> str:
    """The text of `results.json`: indented, but with every episode and every list of numbers on one line."""
    head = {key: value for key, value in results.items() if key != "episodes"}
    body = json.dumps(head, indent=1, allow_nan=False)[:-2]
    rows = ",\n".join("  " + json.dumps(episode, allow_nan=False) for episode in results["episodes"])
    return f'{body},\n "episodes": [\n{rows}\n ]\n}}\n'


def write_atomically(path: Path, content: str) -> None:
    """Writes a file that is afterwards either complete or what it was before.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content.encode())


def read_results(path: Path) -> dict[str, Any]:
    """Reads and checks a `results.json`, or the one in a report folder.

    Raises:
        UserError: missing, damaged, or of another schema.
    """
    file = path / RESULTS_NAME if path.is_dir() else path
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); make it with plan-eval") from error
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}); make it anew with plan-eval") from error
    problems = schema_problems(results)
    if problems:
        raise UserError(f"{file} is not a result of plan-eval: {'; '.join(problems)}; make it anew with plan-eval")
    return dict(results)


def schema_problems(results: Any) -> list[str]:
    """Everything that is wrong with a decoded `results.json`; empty when it is sound."""
    if not isinstance(results, Mapping):
        return ["it is not an object"]
    if results.get("schema") != SCHEMA:
        return [f"schema is {results.get('schema')!r}, not {SCHEMA}"]
    problems = [
        f"{key} is missing or not a {kind.__name__}"
        for key, kind in (
            ("config", dict),
            ("env", dict),
            ("seeds", dict),
            ("versions", dict),
            ("hashes", dict),
            ("methods", list),
            ("episodes", list),
        )
        if not isinstance(results.get(key), kind)
    ]
    if problems:
        return problems
    for number, method in enumerate(results["methods"]):
        problems += [f"methods[{number}].{p}" for p in _method_problems(method)]
    for number, episode in enumerate(results["episodes"]):
        try:
            EpisodeRecord.from_json(episode)
        except (ValueError, TypeError) as error:
            problems.append(f"episodes[{number}]: {error}")
    return problems


_FIGURES = {
    "strict": ("rate", "low", "high"),
    "moderate": ("rate", "low", "high"),
    "plan_ms": ("p50", "p95", "p99"),
    "final_distance_m": ("median", "p90"),
}


def _method_problems(method: Any) -> list[str]:
    if not isinstance(method, Mapping) or not isinstance(method.get("name"), str):
        return ["name is missing"]
    problems = []
    for group, names in _FIGURES.items():
        figures = method.get(group)
        for name in names:
            value = figures.get(name, "missing") if isinstance(figures, Mapping) else "missing"
            may_be_null = group in ("plan_ms", "final_distance_m")
            if not (isinstance(value, int | float) and not isinstance(value, bool)) and not (value is None and may_be_null):
                problems.append(f"{group}.{name} is {value!r}")
    return problems
