"""Do coarse rollouts rank candidates as full ones do, and what do they save?

    python -m goalward.experiments.bench.coarse --env reach

At moments on the way to validation goals, candidates are priced by full rollouts and by coarse ones: every so-manieth token, or the first
layers alone. `kept` is how many of the ten best candidates are among the tenth that a coarse rollout would keep. Random candidates are
those of a search's first iteration, elites those of its last.

Letters: B problems, S candidates, H horizon steps, A action dimensions.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from goalward import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from goalward.planners.base import Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class CoarseCommand:
    """Compare coarse with full rollouts."""

    env: str = "reach"
    """Environment; its shipped model predicts."""
    goals: int = 10
    """Validation goals; three moments on the way to each."""
    candidates: int = 256
    """S."""
    horizon: int = 3
    """H."""
    elite_std: float = 0.15
    """Spread of the elites around the best random candidate, in half ranges of the actions."""
    strides: tuple[int, ...] = (1, 2, 4)
    """Token strides."""
    rounds: int = 30
    """Timed turns of full and coarse rollouts."""
    cpu_time: bool = False
    """Use one thread and count its own time, not the clock's: for a machine that is busy with other things."""

    def __post_init__(self) -> None:
        if self.candidates < 100 or self.goals < 1 or self.horizon < 1 or min(self.strides, default=0) < 1 or self.rounds < 1:
            raise UserError(
                f"candidates={self.candidates}, goals={self.goals}, horizon={self.horizon}, strides={self.strides}, "
                f"rounds={self.rounds}: give at least 100 candidates, and at least 1 of all else"
            )


def run(config: CoarseCommand) -> int:
    """Runs the benchmark and prints a table.

    Returns:
        Exit code 0.
    """
    from rich.console import Console
    from rich.table import Table

    from goalward import load_model
    from goalward.experiments.bench.reach_problems import action_set_of, problem_of, snapshots
    from goalward.planners.actions import half_range_A
    from goalward.planners.methods.evaluation import evaluate
    from goalward.planners.methods.screening import Screening, coarse_cost_BS

    if config.cpu_time:
        torch.set_num_threads(1)
    model = load_model(config.env)
    problem = problem_of(
        model, action_set_of(config.env, model), snapshots(config.env, model, num_goals=config.goals), horizon=config.horizon
    )
    unit_A = half_range_A(problem.action_set)
    generator = torch.Generator().manual_seed(0)
    shape = (problem.num_problems, config.candidates, config.horizon, len(unit_A))
    noise = torch.randn(shape, generator=generator) * unit_A
    random = problem.action_set.project(0.6 * noise, problem.situation)
    full = {"random": evaluate(problem, random, unit_A)}
    best = random.take_along_dim(full["random"].cost_BS.argmin(1)[:, None, None, None], dim=1)
    elites = problem.action_set.project(best + config.elite_std * noise, problem.situation)
    full["elites"] = evaluate(problem, elites, unit_A)
    table = Table(title=f"{config.candidates} candidates, {problem.num_problems} moments, {str(model.dtype).removeprefix('torch.')}")
    for name in ("tokens", "layers", *(f"{kind}: {what}" for kind in full for what in ("Spearman", "kept")), "ms", "of full"):
        table.add_column(name, justify="right")
    depth, num_tokens = model.description.predictor.depth, model.description.num_tokens
    one = problem_of(model, problem.action_set, snapshots(config.env, model, num_goals=1, oracle_steps=(0,)), horizon=config.horizon)
    for stride in config.strides:
        for layers in range(depth, 0, -1):
            screening = Screening(token_stride=stride, num_layers=layers)
            cells = []
            for evaluation in full.values():
                coarse_BS = coarse_cost_BS(problem, evaluation.actions_BSHA, unit_A, screening)
                cells += [f"{spearman(coarse_BS, evaluation.cost_BS):.3f}", f"{kept_of_best(coarse_BS, evaluation.cost_BS):.1f} of 10"]
            with torch.no_grad():
                whole_s, coarse_s = _in_turns(
                    partial(evaluate, one, random[:1], unit_A), partial(coarse_cost_BS, one, random[:1], unit_A, screening), config
                )
            ratio = statistics.median(b / a for a, b in zip(whole_s, coarse_s, strict=True))
            tokens = f"{-(-num_tokens // stride)} of {num_tokens}"
            table.add_row(tokens, f"{layers} of {depth}", *cells, f"{statistics.median(coarse_s) * 1e3:.2f}", f"{ratio:.0%}")
    console = Console(width=140)
    console.print(table)
    console.print(_screening_table(config, one, unit_A))
    return 0


def _screening_table(config: CoarseCommand, problem: Problem, unit_A: Tensor) -> Table:
    """What a search would gain: all candidates coarsely and the best tenth (at least ten, CEM's elites) in full, against all in full."""
    from rich.table import Table

    from goalward.planners.methods.evaluation import evaluate
    from goalward.planners.methods.screening import Screening, screened

    table = Table(title="All layers, the best tenth in full, at least ten candidates")
    for name in ("candidates", "token stride", "all in full ms", "screened ms", "of full"):
        table.add_column(name, justify="right")
    for candidates in (64, 256, 1024):
        noise = torch.randn((1, candidates, config.horizon, len(unit_A)), generator=torch.Generator().manual_seed(0))
        actions = problem.action_set.project(0.6 * unit_A * noise, problem.situation)
        for stride in config.strides:
            whole_s, screened_s = _in_turns(
                partial(evaluate, problem, actions, unit_A),
                partial(screened, problem, actions, unit_A, Screening(token_stride=stride), at_least=10),
                config,
            )
            ratio = statistics.median(b / a for a, b in zip(whole_s, screened_s, strict=True))
            times = (f"{statistics.median(seconds) * 1e3:.2f}" for seconds in (whole_s, screened_s))
            table.add_row(f"{candidates}", f"{stride}", *times, f"{ratio:.0%}")
    return table


def spearman(a_BS: Tensor, b_BS: Tensor) -> float:
    """Mean over problems of the rank correlation (Pearson's, of the ranks; ties are not expected)."""
    ranks = [values.argsort(dim=1).argsort(dim=1).double() for values in (a_BS, b_BS)]
    centred = [rank - rank.mean(dim=1, keepdim=True) for rank in ranks]
    product = (centred[0] * centred[1]).sum(1) / (centred[0].square().sum(1) * centred[1].square().sum(1)).sqrt()
    return float(product.mean())


def kept_of_best(coarse_BS: Tensor, full_BS: Tensor, *, best: int = 10) -> float:
    """How many of the best candidates are in the tenth of least coarse cost, mean over problems."""
    kept = coarse_BS.argsort(dim=1)[:, : -(-coarse_BS.shape[1] // 10)]
    wanted = full_BS.argsort(dim=1)[:, :best]
    return float((kept[:, :, None] == wanted[:, None]).any(1).sum(1).double().mean())


def _in_turns(first: Callable[[], Any], second: Callable[[], Any], config: CoarseCommand) -> tuple[list[float], list[float]]:
    clock = time.thread_time if config.cpu_time else time.perf_counter
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(config.rounds + 2):
        for function, seconds in zip((first, second), taken, strict=True):
            begun_s = clock()
            function()
            seconds.append(clock() - begun_s)
    return taken[0][2:], taken[1][2:]


def main() -> None:
    """Entry point."""
    from goalward.experiments.command_line import parse
    from goalward.experiments.errors import exit_code_of

    sys.exit(exit_code_of(lambda: run(parse(CoarseCommand, prog="coarse", args=sys.argv[1:]))))


if __name__ == "__main__":
    main()
