"""Where failures come from: parts of the planner are replaced, one after another, by ones that cannot err.

    scripted oracle                                            100 %, or the task itself is at fault
    true dynamics, true distance                 - planner     what search, horizon and budget lose
    true dynamics, linear read-out of latents    - perception  what the encoder does not see
    true dynamics, latent distance               - objective   what the metric makes of it
    learned dynamics, latent distance            - model       what predictions lose: this is the planner that is evaluated

Differences of success rates, which may be negative: a part that errs can help, as when the latent distance also counts the arm, and so
leads a hand to the object that the true distance of the object alone does not mention.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from goalward.experiments.benchmark.spec import BenchmarkSpec, MethodSpec

CHAIN = (("planner", "true", "state"), ("perception", "true", "probe"), ("objective", "true", None), ("model", "learned", None))
"""Part, and the dynamics and objective with which it is the last one that may err; None: the objective of the planner that is evaluated."""


def attributions(spec: BenchmarkSpec, rates: Mapping[tuple[str, str, str], float]) -> list[dict[str, Any]]:
    """The shares of every task and split for which all swaps were run.

    Args:
        spec: the benchmark; swaps are those of its methods that differ from `against` in dynamics and objective alone.
        rates: strict success by task, split and method.
    """
    base = spec.methods[spec.against]
    if base.kind != "planner":
        return []
    oracle = next((name for name, method in spec.methods.items() if method.kind == "oracle"), None)
    swaps = [(part, _named(spec, base, dynamics, objective)) for part, dynamics, objective in CHAIN]
    if oracle is None or any(name is None for _, name in swaps):
        return []
    found = []
    for env, split in dict.fromkeys((env, split) for env, split, _ in rates):
        if all((env, split, name) in rates for name in (oracle, *(name for _, name in swaps))):
            levels = [rates[env, split, oracle], *(rates[env, split, str(name)] for _, name in swaps)]
            parts = {"task": 1.0 - levels[0]}
            parts |= {part: before - after for (part, _), before, after in zip(swaps, levels[:-1], levels[1:], strict=True)}
            found.append({"env": env, "split": split, "success": levels[-1], "lost": parts})
    return found


def _named(spec: BenchmarkSpec, base: MethodSpec, dynamics: str, objective: str | None) -> str | None:
    """Name of the method that differs from `base` in these alone; budgets may differ, since the simulator is slow."""
    wanted = dataclasses.replace(base, dynamics=dynamics, objective=objective or base.objective)
    for name, method in spec.methods.items():
        budget = {field: getattr(method, field) for field in ("num_samples", "num_iterations", "proposals", "num_proposals", "family")}
        if dataclasses.replace(wanted, **budget) == method:
            return name if method != base or dynamics == base.dynamics else None
    return None
