"""Where failures come from: parts of the planner are replaced, one after another, by ones that cannot err.

    scripted oracle                                            100 %, or the task itself is at fault
    true dynamics, true distance                 - planner     what search, horizon and budget lose
    true dynamics, linear read-out of latents    - perception  what the encoder does not see
    true dynamics, latent distance               - objective   what the metric makes of it
    learned dynamics, latent distance            - model       what predictions lose: this is the planner that is evaluated

All four have the same budget, where the benchmark holds a planner of the budget that the swaps have: `success` is then of that one.
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
    swaps: list[tuple[str, str | None]] = []
    for part, dynamics, objective in CHAIN[:-1]:  # all with the budget of the first, where they can be had
        first = swaps[0][1] if swaps else None
        swaps.append((part, _named(spec, base, dynamics, objective, like=None if first is None else spec.methods[first])))
    last = swaps[-1][1]
    small = None if last is None else _named(spec, base, *CHAIN[-1][1:], like=spec.methods[last], exactly=True)
    swaps.append((CHAIN[-1][0], small or spec.against))
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


_BUDGET = ("num_samples", "num_iterations", "execute_steps", "proposals", "num_proposals", "closed_loop", "family")
"""What swaps may differ in from the planner that is evaluated: the simulator is slow."""


def _named(
    spec: BenchmarkSpec, base: MethodSpec, dynamics: str, objective: str | None, *, like: MethodSpec | None = None, exactly: bool = False
) -> str | None:
    """Name of the method that differs from `base` in these, and perhaps in its budget: that of `like`, if there is such a one."""
    wanted = dataclasses.replace(base, dynamics=dynamics, objective=objective or base.objective)

    def with_budget(of: MethodSpec) -> MethodSpec:
        return dataclasses.replace(wanted, **{field: getattr(of, field) for field in _BUDGET})

    exact = (name for name, method in spec.methods.items() if like is not None and method == with_budget(like))
    near = (name for name, method in spec.methods.items() if not exactly and method == with_budget(method))
    return next(exact, None) or next(near, None)
