"""Does the objective rank plans as the world does? Rank correlation of latent costs with true outcomes, per objective.

    python -m goalward.experiments.bench.rank_correlation --env reach

At moments on the way to validation goals, candidates are priced by the shipped model and every objective, and judged by the true physics:
the distance to the goal after the plan, and its mean along the way. Three kinds of candidates, all inside the action set: random ones;
elites, drawn around a good plan with a given spread; and the last ones, those that the default planner itself drew in its last iteration.
Telling the latter two apart is what the end of a search needs. The judge sees the simulator; the model and the objectives see pixels, as
always.

Intervals: bootstrap over goals, not over moments, for the moments of one episode are alike (cluster bootstrap: Davison & Hinkley 1997,
"Bootstrap Methods and their Application", section 3.8).

Letters: S candidates, H horizon steps, A action dimensions.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from goalward import UserError
from goalward.planners.objectives import Outcome

METRICS = ("l2", "l1", "cosine")
STEP_WEIGHTS = ("last", "uniform", "linear", "quartic")
NEAR_M = 0.05
KINDS = ("random", "elites", "last")


@dataclass(frozen=True, kw_only=True, slots=True)
class RankCommand:
    """Correlate latent costs with true outcomes."""

    env: str = "reach"
    """Environment; its shipped model predicts."""
    goals: int = 20
    """Validation goals."""
    candidates: int = 64
    """Candidates of each kind at each moment; of the last ones no more than the planner draws."""
    horizon: int | None = None
    """Actions in a plan; none given: what the model advises."""
    dynamics: str = "learned"
    """learned; or true: the objective prices what would truly be seen, so that the model's share in a low correlation shows."""
    elite_std: float = 0.15
    """Spread of the elites around the plan, in half ranges of the actions."""
    max_steps: int = 12
    """Steps that an episode is followed for; every third is judged."""
    seed: int = 0
    """Of the candidates and of the environment."""

    def __post_init__(self) -> None:
        if self.candidates < 8 or self.goals < 2 or self.max_steps < 1 or (self.horizon is not None and self.horizon < 1):
            raise UserError(
                f"candidates={self.candidates}, goals={self.goals}, max_steps={self.max_steps}, horizon={self.horizon}: "
                "give at least 8, 2, 1 and 1"
            )
        if self.dynamics not in ("learned", "true"):
            raise UserError(f"dynamics is {self.dynamics!r}; choose learned or true")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Judged:
    """Candidates of one moment."""

    goal: int
    kind: str
    near: bool
    costs: dict[tuple[str, str], np.ndarray[Any, Any]]
    """Of each objective, by metric and step weights."""
    final_m: np.ndarray[Any, Any]
    """True distance to the goal after the plan."""
    mean_m: np.ndarray[Any, Any]
    """True distance, mean over the steps."""


@dataclass(slots=True, eq=False)
class Listener:
    """A term that costs nothing and remembers what was priced last: the candidates of a search's last iteration."""

    weight: float = 1.0
    """Factor in the objective."""
    heard: Outcome | None = None
    """The latest candidates."""

    def cost(self, outcome: Outcome) -> Tensor:
        """Zero."""
        self.heard = outcome
        return torch.zeros(outcome.actions_BSHA.shape[:2], device=outcome.actions_BSHA.device)


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
    if config.horizon is None:
        config = dataclasses.replace(config, horizon=3 if model.planning is None else model.planning.horizon)
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
    Console(width=190).print(_table(judged, config))
    return 0


def _moments(config: RankCommand, model: Any, env: Any, goal: int, rng: torch.Generator) -> list[Judged]:
    """Walks toward one goal as the default controller would, and judges candidates at every third step."""
    from goalward import make_controller
    from goalward.experiments.oracle_dynamics import TrueDynamics
    from goalward.experiments.planning import action_set_for
    from goalward.planners.actions import Situation, half_range_A
    from goalward.planners.control.observation import position_indices, steered_axes
    from goalward.planners.objectives import LatentDistance, Objective

    observation, info = env.reset(seed=config.seed + goal, options={"goal_index": goal, "split": "validation"})
    spec = env.unwrapped.spec_info
    action_set = action_set_for(model, spec)
    listener = Listener()
    advised: Any = "uniform" if model.planning is None else model.planning.step_weights
    controller = make_controller(
        model, info["goal_pixels"], action_set=action_set, horizon=config.horizon, seed=goal,
        objective=Objective(terms=(LatentDistance(step_weights=advised), listener)),
    )  # fmt: skip
    position, unit_A = position_indices(model.proprio_names, steered_axes(model.action_names)), half_range_A(action_set)
    goal_1GND = model.encode(torch.from_numpy(np.array(info["goal_pixels"]))[None])[:, None]
    predictor = model if config.dynamics == "learned" else TrueDynamics(model, env)
    assert config.horizon is not None
    found: list[Judged] = []
    done, step = False, 0
    while not done and step < config.max_steps:
        listener.heard = None
        action = controller.act(observation)
        plan, ring = controller.last_plan, controller.state.z_1TND
        if step % 3 == 0 and plan is not None and ring is not None and listener.heard is not None:
            shape = (config.candidates, config.horizon, len(spec.action_low))
            measured = [float(observation["proprio"][index]) for index in position]
            situation = Situation(position_BE=torch.tensor([measured], dtype=torch.float64))
            random_SHA = torch.lerp(action_set.low_A, action_set.high_A, torch.rand(shape, generator=rng))
            elite_SHA = plan.actions_BHA[0] + config.elite_std * unit_A * torch.randn(shape, generator=rng)
            last_SHA = listener.heard.actions_BSHA[0, : config.candidates]
            for kind, actions_SHA in zip(KINDS, (random_SHA, elite_SHA, last_SHA), strict=True):
                feasible_SHA = action_set.project(actions_SHA[None], situation)[0]
                costs = _costs(predictor, ring, goal_1GND, feasible_SHA, unit_A)
                truth_SH = np.stack([env.unwrapped.foresee(actions_HA.numpy()) for actions_HA in feasible_SHA])
                found.append(
                    Judged(
                        goal=goal, kind=kind, near=float(info["distance_m"]) < NEAR_M, costs=costs,
                        final_m=truth_SH[:, -1], mean_m=truth_SH.mean(axis=1),
                    )
                )  # fmt: skip
        observation, _, terminated, truncated, info = env.step(action)
        done, step = bool(terminated or truncated), step + 1
    return found


def _costs(
    model: Any, ring_1TND: Tensor, goal_1GND: Tensor, actions_SHA: Tensor, unit_A: Tensor
) -> dict[tuple[str, str], np.ndarray[Any, Any]]:
    """What every objective says, by metric and step weights; [S] each."""
    from goalward.planners.actions import Situation
    from goalward.planners.objectives import LatentDistance

    with torch.no_grad():
        z_1SHND = model.rollout(model.prime(ring_1TND), actions_SHA[None])
    outcome = Outcome(z_BSHND=z_1SHND, z_goal_BGND=goal_1GND, actions_BSHA=actions_SHA[None], unit_A=unit_A, situation=Situation())
    return {
        (metric, weights): LatentDistance(metric=metric, step_weights=weights).cost(outcome)[0].numpy()  # type: ignore[arg-type]
        for metric in METRICS
        for weights in STEP_WEIGHTS
    }


def _table(judged: list[Judged], config: RankCommand) -> Any:
    from rich.table import Table

    table = Table(title=f"rank correlation with the true {config.env}, mean over moments [95 % bootstrap]; truth: final, mean distance")
    table.add_column("objective")
    groups = [[j for j in judged if (j.kind, j.near) == (kind, near)] for kind in KINDS for near in (False, True)]
    for group, name in zip(groups, [f"{kind}, {where}" for kind in KINDS for where in ("far", "near")], strict=True):
        table.add_column(f"{name} ({len(group)})", justify="right")
    for metric in METRICS:
        for weights in STEP_WEIGHTS:
            cells = []
            for group in groups:
                goals = [j.goal for j in group]
                final = [_spearman(j.costs[metric, weights], j.final_m) for j in group]
                mean = [_spearman(j.costs[metric, weights], j.mean_m) for j in group]
                cells.append(f"{_cell(final, goals)}\n{_cell(mean, goals)}")
            table.add_row(f"{metric}, {weights}", *cells)
    # How much the candidates of a kind differ in truth: what there is to rank.
    spread = [f"{100 * float(np.mean([j.final_m.std() for j in group])):.2f} cm" if group else "-" for group in groups]
    table.add_row("true spread (std)", *spread)
    return table


def _spearman(costs: Any, truth: Any) -> float:
    from goalward.experiments.statistics import rank_correlation

    found = rank_correlation([(float(c), float(t)) for c, t in zip(costs, truth, strict=True)])
    return float("nan") if found is None else found


def _cell(values: list[float], goals: list[int]) -> str:
    """Mean over moments, and its interval by resampling goals with all their moments."""
    clusters = [[v for v, g in zip(values, goals, strict=True) if g == goal and np.isfinite(v)] for goal in sorted(set(goals))]
    known = [cluster for cluster in clusters if cluster]
    if not known:
        return "-"
    sums, counts = np.array([sum(cluster) for cluster in known]), np.array([len(cluster) for cluster in known])
    draws = np.random.default_rng(0).integers(0, len(known), (2000, len(known)))
    low, high = np.percentile(sums[draws].sum(axis=1) / counts[draws].sum(axis=1), [2.5, 97.5])
    return f"{sums.sum() / counts.sum():.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Entry point."""
    from goalward.experiments.command_line import parse
    from goalward.experiments.errors import exit_code_of

    sys.exit(exit_code_of(lambda: run(parse(RankCommand, prog="rank_correlation", args=sys.argv[1:]))))


if __name__ == "__main__":
    main()
