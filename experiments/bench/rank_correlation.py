"""Does the objective rank plans as the world does? Rank correlation of latent costs with true outcomes, per objective.

    python -m goalward.experiments.bench.rank_correlation --env reach

At moments on the way to validation goals, candidates are priced by the shipped model and every objective, and judged by the true physics:
the distance to the goal after the plan, and its mean along the way. Two kinds of candidates: random ones, and elites, drawn around a good
plan as the last iteration of a search does; telling those apart is what the end of a search needs. The judge sees the simulator; the model
and the objectives see pixels, as always.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from goalward import UserError

METRICS = ("l2", "l1", "cosine")
STEP_WEIGHTS = ("last", "uniform", "linear")
NEAR_M = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class RankCommand:
    """Correlate latent costs with true outcomes."""

    env: str = "reach"
    """Environment; its shipped model predicts."""
    goals: int = 20
    """Validation goals."""
    candidates: int = 64
    """Candidates of each kind at each moment."""
    horizon: int = 3
    """Actions in a plan."""
    elite_std: float = 0.15
    """Spread of the elites around the plan, in half ranges of the actions."""
    seed: int = 0
    """Of the candidates and of the environment."""

    def __post_init__(self) -> None:
        if self.candidates < 8 or self.goals < 2 or self.horizon < 1:
            raise UserError(f"candidates={self.candidates}, goals={self.goals}, horizon={self.horizon}: give at least 8, 2 and 1")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Judged:
    """Candidates of one moment."""

    kind: str
    near: bool
    costs: dict[tuple[str, str], np.ndarray[Any, Any]]
    """Of each objective, by metric and step weights."""
    final_m: np.ndarray[Any, Any]
    """True distance to the goal after the plan."""
    mean_m: np.ndarray[Any, Any]
    """True distance, mean over the steps."""


def run(config: RankCommand) -> int:
    """Runs the benchmark and prints a table.

    Returns:
        Exit code 0.
    """
    from rich.console import Console
    from rich.progress import track

    from goalward import load_model
    from goalward.envs.registry import make_env

    model = load_model(config.env)
    env = make_env(config.env, cameras=model.cameras, image_size_px=model.image_size_px)
    if not hasattr(env.unwrapped, "foresee"):
        raise UserError(f"env: {config.env!r} cannot foresee the outcome of actions; choose reach")
    rng = torch.Generator().manual_seed(config.seed)
    judged = []
    try:
        for goal in track(range(config.goals), description="goals", console=Console(stderr=True)):
            judged += list(_moments(config, model, env, goal, rng))
    finally:
        env.close()
    Console(width=140).print(_table(judged, config))
    return 0


def _moments(config: RankCommand, model: Any, env: Any, goal: int, rng: torch.Generator) -> list[Judged]:
    """Walks toward one goal as the default controller would, and judges candidates at every third step."""
    from goalward.planners.actions import Box
    from goalward.planners.control.controller import make_controller

    observation, info = env.reset(seed=config.seed + goal, options={"goal_index": goal, "split": "validation"})
    spec = env.unwrapped.spec_info
    workspace = (spec.workspace_low_m.tolist(), spec.workspace_high_m.tolist())
    controller = make_controller(model, info["goal_pixels"], workspace=workspace, horizon=config.horizon, seed=goal)
    box = Box.of(model.action_low, model.action_high)
    goal_1GND = model.encode(torch.from_numpy(np.array(info["goal_pixels"]))[None])[:, None]
    found: list[Judged] = []
    done, step = False, 0
    while not done and step < 12:
        action = controller.act(observation)
        plan, ring = controller.last_plan, controller.state.z_1TND
        if step % 3 == 0 and plan is not None and ring is not None:
            shape = (config.candidates, config.horizon, len(spec.action_low))
            half_A = (box.high_A - box.low_A) / 2
            random_SHA = torch.lerp(box.low_A, box.high_A, torch.rand(shape, generator=rng))
            elite_SHA = plan.actions_BHA[0] + config.elite_std * half_A * torch.randn(shape, generator=rng)
            for kind, actions_SHA in (("random", random_SHA), ("elites", elite_SHA.clamp(box.low_A, box.high_A))):
                found.append(_judge(model, env, kind, ring, goal_1GND, actions_SHA, half_A, float(info["distance_m"])))
        observation, _, terminated, truncated, info = env.step(action)
        done, step = bool(terminated or truncated), step + 1
    return found


def _judge(
    model: Any, env: Any, kind: str, ring_1TND: Tensor, goal_1GND: Tensor, actions_SHA: Tensor, unit_A: Tensor, distance_m: float
) -> Judged:
    from goalward.planners.actions import Situation
    from goalward.planners.objectives import LatentDistance, Outcome

    with torch.no_grad():
        z_1SHND = model.rollout(model.prime(ring_1TND), actions_SHA[None])
    outcome = Outcome(z_BSHND=z_1SHND, z_goal_BGND=goal_1GND, actions_BSHA=actions_SHA[None], unit_A=unit_A, situation=Situation())
    costs = {
        (metric, weights): LatentDistance(metric=metric, step_weights=weights).cost(outcome)[0].numpy()  # type: ignore[arg-type]
        for metric in METRICS
        for weights in STEP_WEIGHTS
    }
    truth_SH = np.stack([env.unwrapped.foresee(actions_HA.numpy()) for actions_HA in actions_SHA])
    return Judged(kind=kind, near=distance_m < NEAR_M, costs=costs, final_m=truth_SH[:, -1], mean_m=truth_SH.mean(axis=1))


def _table(judged: list[Judged], config: RankCommand) -> Any:
    from rich.table import Table

    groups = [("random", False), ("random", True), ("elites", False), ("elites", True)]
    counts = {group: sum((j.kind, j.near) == group for j in judged) for group in groups}
    table = Table(title=f"rank correlation with the true {config.env}, mean over moments [95 % bootstrap]; truth: final, mean distance")
    table.add_column("objective")
    for kind, near in groups:
        table.add_column(f"{kind}, {'near' if near else 'far'} ({counts[kind, near]})", justify="right")
    for metric in METRICS:
        for weights in STEP_WEIGHTS:
            cells = []
            for kind, near in groups:
                mine = [j for j in judged if (j.kind, j.near) == (kind, near)]
                truths = ([(j, j.final_m) for j in mine], [(j, j.mean_m) for j in mine])
                cells.append("\n".join(_cell([_spearman(j.costs[metric, weights], true_m) for j, true_m in pairs]) for pairs in truths))
            table.add_row(f"{metric}, {weights}", *cells)
    return table


def _spearman(costs: Any, truth: Any) -> float:
    from goalward.experiments.statistics import rank_correlation

    found = rank_correlation([(float(c), float(t)) for c, t in zip(costs, truth, strict=True)])
    return float("nan") if found is None else found


def _cell(values: list[float]) -> str:
    known = np.array([value for value in values if np.isfinite(value)])
    if not len(known):
        return "-"
    rng = np.random.default_rng(0)
    means = known[rng.integers(0, len(known), (2000, len(known)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{known.mean():.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Entry point."""
    from goalward.experiments.command_line import parse
    from goalward.experiments.errors import exit_code_of

    sys.exit(exit_code_of(lambda: run(parse(RankCommand, prog="rank_correlation", args=sys.argv[1:]))))


if __name__ == "__main__":
    main()
