"""Makes what a cell evaluates: the environment, the method, and the hashes of all that the outcome depends on."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goalward import UserError
from goalward.experiments.benchmark.spec import MethodSpec

if TYPE_CHECKING:
    from goalward.experiments.benchmark.cells import Cell
    from goalward.experiments.evaluation import Method


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A cell, ready to run."""

    env: Any
    """The environment, under the split's variation, with the cameras that the weights were trained on."""
    method: Method
    """How to act, under the cell's name."""
    goals_split: str
    """What `reset` takes as `split`."""


@contextlib.contextmanager
def opened(cell: Cell) -> Iterator[Opened]:
    """Opens a cell; the environment is closed at the end.

    Raises:
        UserError: Weights are missing or do not suit the task; a name is unknown.
    """
    from goalward.envs.splits import find_split
    from goalward.experiments.environments import open_env

    split = find_split(cell.env, cell.split)
    trained = load_weights(cell.method)
    env = open_env(cell.env, trained, variation=split.variation.name)
    try:
        method = dataclasses.replace(_MAKERS[cell.method.kind](cell.method, trained, env), name=cell.name)
        yield Opened(env=env, method=method, goals_split=split.goals_split)
    finally:
        env.close()


def load_weights(method: MethodSpec) -> Any:
    """The world model or policy; None for a method that has none."""
    if method.kind == "planner":
        from goalward.wm.model import load_model

        return load_model(_present(method.weights))
    if method.kind == "policy":
        from goalward.policies import load_policy

        return load_policy(_present(method.weights))
    return None


def cell_hashes(cell: Cell) -> dict[str, str]:
    """SHA-256 of goals and weights: with the method itself and the seed, all that an outcome depends on.

    Raises:
        UserError: The split or the weights are missing.
    """
    from goalward.envs.splits import find_split

    hashes = {"goals": find_split(cell.env, cell.split).sha256}
    for field in ("weights", "proposals"):
        if (name := getattr(cell.method, field)) not in ("", "none"):
            hashes[field] = weights_hash(name)
    return hashes


def weights_hash(name: str) -> str:
    """SHA-256 over the small JSON files of a model or policy and of what belongs to it, which pin its tensors by their own hashes."""
    folder = _folder(_present(name))
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.json")):
        name = path.relative_to(folder).as_posix()
        if not name.startswith("checkpoints/"):  # left by training, and read by nobody else
            digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _folder(name: str) -> Path:
    import goalward.wm
    from goalward.wm.model import shipped_models

    return Path(goalward.wm.__path__[0]) / "weights" / name if name in shipped_models() else Path(name)


def _present(name: str) -> str:
    if not _folder(name).is_dir():
        raise UserError(f"weights {name!r}: no such folder; goalward train and goalward imitate make them (--out {name})")
    return name


def _planner(spec: MethodSpec, model: Any, env: Any) -> Method:
    from goalward.experiments.broken_dynamics import Persistence, ShuffledActions
    from goalward.experiments.oracle_dynamics import oracle_dynamics_method
    from goalward.experiments.planning import ADVISED, chosen_planner, planner_method
    from goalward.policies import load_policy
    from goalward.policies.proposals import advised_proposer, policy_proposer

    planner, config = chosen_planner(
        model, spec.planner or None, num_samples=spec.num_samples or None, num_iterations=spec.num_iterations or None
    )
    horizon = spec.horizon or None
    objective = _objective(spec, model, env)
    broken = {"persistence": Persistence, "shuffled": ShuffledActions}.get(spec.dynamics)
    predicting = model if broken is None else broken(model)  # what proposals are imagined with, too
    proposer: Any = None if spec.proposals == "none" else ADVISED
    if spec.proposals not in ("", "none"):
        policy = load_policy(_present(spec.proposals))
        proposer = policy_proposer(policy, predicting, num_samples=spec.num_proposals, closed_loop=spec.closed_loop)
    if spec.dynamics == "true":
        return oracle_dynamics_method(
            env, model, planner, config, horizon=horizon, objective=objective, execute_steps=spec.execute_steps,
            proposer=advised_proposer(model) if proposer is ADVISED else proposer,
        )  # fmt: skip
    made: Method = planner_method(
        predicting, planner, config, horizon=horizon, execute_steps=spec.execute_steps,
        objective=objective, proposer=proposer,
    )  # fmt: skip
    return made


def _objective(spec: MethodSpec, model: Any, env: Any) -> Any:
    """None: as the model advises; what stands in for the latent distance counts the same steps."""
    if spec.objective == "advised":
        return None
    planning = getattr(model, "planning", None)
    advised: Any = "uniform" if planning is None else planning.step_weights
    if spec.objective == "state":
        from goalward.experiments.oracle_dynamics import true_distance

        return true_distance(env, advised)
    from goalward.planners.objectives import LatentDistance, Objective

    if spec.objective == "latent":
        weights: Any = spec.step_weights
        return Objective(terms=(LatentDistance(step_weights=weights),))
    if spec.objective == "probe":
        from goalward.experiments.readout import ReadoutDistance, task_readout

        return Objective(terms=(ReadoutDistance(readout=task_readout(model, env), step_weights=advised),))
    from goalward.planners.objectives.decoded import DecodedDistance

    return Objective(terms=(DecodedDistance(model=model, step_weights=advised),))


def _policy(spec: MethodSpec, policy: Any, env: Any) -> Method:
    from goalward.experiments.policy_method import policy_method

    return policy_method(policy, execute_steps=spec.execute_steps, guidance=spec.guidance if spec.guidance >= 0 else None)


def _reference(spec: MethodSpec, trained: Any, env: Any) -> Method:
    from goalward.experiments.evaluation import hold_method, oracle_method, random_method

    return oracle_method(env) if spec.kind == "oracle" else {"hold": hold_method, "random": random_method}[spec.kind]()


_MAKERS: dict[str, Callable[[MethodSpec, Any, Any], Method]] = {
    "planner": _planner, "policy": _policy, "hold": _reference, "random": _reference, "oracle": _reference,
}  # fmt: skip
