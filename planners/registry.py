"""The planners by name. A new planner is one file and one line here."""

from __future__ import annotations

import dataclasses
import difflib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from goalward import UserError
from goalward.planners.base import Planner
from goalward.planners.methods.adam import Adam, AdamConfig
from goalward.planners.methods.cem import CEM, CEMConfig
from goalward.planners.methods.cma_es import CMAES, CMAESConfig
from goalward.planners.methods.grasp import GRASP, GRASPConfig
from goalward.planners.methods.hybrid import Hybrid, HybridConfig
from goalward.planners.methods.icem import ICEM, ICEMConfig
from goalward.planners.methods.mppi import MPPI, MPPIConfig
from goalward.planners.methods.random_shooting import RandomShooting, RandomShootingConfig
from goalward.planners.methods.search import Clock


@dataclass(frozen=True, slots=True)
class PlannerEntry:
    """One registered planner."""

    planner: Callable[..., Planner]
    """Class, called with (config, clock=...)."""
    config: type[Any]
    """Its configuration, a frozen dataclass whose defaults are complete."""
    summary: str
    """One line for help texts."""


PLANNERS: Mapping[str, PlannerEntry] = MappingProxyType(
    {
        "random": PlannerEntry(RandomShooting, RandomShootingConfig, "random shooting: the baseline"),
        "cem": PlannerEntry(CEM, CEMConfig, "cross-entropy search: robust, needs no gradient"),
        "icem": PlannerEntry(ICEM, ICEMConfig, "cross-entropy search with coloured noise, a shrinking population and elites that live on"),
        "mppi": PlannerEntry(MPPI, MPPIConfig, "path integral control: the mean of all candidates, weighted by their costs"),
        "cma_es": PlannerEntry(CMAES, CMAESConfig, "covariance matrix adaptation: learns which variables move together"),
        "adam": PlannerEntry(Adam, AdamConfig, "multi-start Adam with projection: for smooth models"),
        "hybrid": PlannerEntry(Hybrid, HybridConfig, "cross-entropy search, then gradient steps that must improve"),
        "grasp": PlannerEntry(GRASP, GRASPConfig, "parallel optimisation of states and actions; experimental, for long horizons"),
    }
)


def find_planner(name: str) -> PlannerEntry:
    """Looks a planner up.

    Raises:
        UserError: Unknown name; near matches are named.
    """
    if name in PLANNERS:
        return PLANNERS[name]
    near = difflib.get_close_matches(str(name), PLANNERS, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(PLANNERS)}"
    raise UserError(f"planner: {name!r} is unknown; {hint}")


def configured(name: str, settings: Mapping[str, Any]) -> Any:
    """A planner's configuration: its defaults, with some fields changed.

    Raises:
        UserError: Unknown planner or field, or a value that the planner refuses.
    """
    default = find_planner(name).config()
    known = {field.name for field in dataclasses.fields(default)}
    if unknown := sorted(set(settings) - known):
        raise UserError(f"planner {name!r} has no {', '.join(unknown)}; its settings are {', '.join(sorted(known))}")
    # JSON has no tuples: a list is one number per action entry.
    return dataclasses.replace(default, **{name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()})


def make_planner(name: str, config: Any = None, *, clock: Clock = time.perf_counter) -> Planner:
    """Makes a planner from its name and its configuration (None: the defaults).

    Raises:
        UserError: Unknown name, or the configuration of another planner.
    """
    entry = find_planner(name)
    if config is not None and not isinstance(config, entry.config):
        raise UserError(f"planner_config: {type(config).__name__} does not fit planner {name!r}; give a {entry.config.__name__}")
    return entry.planner(entry.config() if config is None else config, clock=clock)
