"""What `plan-eval --compare` runs beside the planner: other planners by name, policies by folder."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goalward import UserError

if TYPE_CHECKING:
    from goalward.experiments.evaluation import Method


def rival_methods(names: Sequence[str], model: Any, info: Any, *, taken: str) -> tuple[list[Method], dict[str, str]]:
    """Makes the methods.

    Args:
        names: registered planners, and folders that `goalward imitate` wrote.
        model: the world model that planners plan with; policies must see through its encoder.
        info: `EnvInfo` of the environment.
        taken: name of the method that they are compared with.

    Returns:
        The methods, and hashes of what they depend on.

    Raises:
        UserError: a name is neither, a policy does not suit the environment or sees through another encoder, or two share a name.
    """
    from goalward.experiments.benchmark.methods import weights_hash
    from goalward.experiments.planning import planner_config, planner_method
    from goalward.experiments.policy_method import policy_method
    from goalward.planners.registry import PLANNERS
    from goalward.policies import load_policy

    methods: list[Method] = []
    hashes = {}
    for name in names:
        if Path(name).is_dir():
            policy = load_policy(name)
            policy.check_env(info)
            if policy.description.encoder.fingerprint != model.description.encoder.fingerprint:
                raise UserError(f"compare: {name} sees through another encoder than the world model; train one of them again")
            methods.append(policy_method(policy, name=Path(name).resolve().name))
            hashes[f"compare {methods[-1].name}"] = weights_hash(name)
        elif name in PLANNERS:
            method = planner_method(model, name, planner_config(name, num_samples=None, num_iterations=None))
            methods.append(dataclasses.replace(method, role="compared"))
        else:
            near = difflib.get_close_matches(name, PLANNERS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"planners are {', '.join(PLANNERS)}; policies are folders"
            raise UserError(f"compare: {name!r} is neither a planner nor a folder of a policy; {hint}")
    known = [taken, "hold", "random", "oracle", *(method.name for method in methods)]
    if twice := next((name for name in known if known.count(name) > 1), None):
        raise UserError(f"compare: two methods are called {twice}; leave one out, or rename its folder")
    return methods, hashes
