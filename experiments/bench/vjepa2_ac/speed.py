"""Measures, in one process and turn by turn, what one planned action costs: the public planner, and ours in float32 and in bfloat16.

    python -m goalward.experiments.bench.vjepa2_ac.speed REQUEST.json

Letters: S candidates, H horizon steps, T context frames, N patch tokens, D width, A = 7 action entries.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from goalward.experiments.bench.vjepa2_ac.clock import Products, Spent, extra_mib, seconds
from goalward.experiments.bench.vjepa2_ac.flop import cached_flop, naive_flop
from goalward.experiments.bench.vjepa2_ac.planning import problem_of, public_arguments, their_action
from goalward.experiments.bench.vjepa2_ac.public import PublicCode
from goalward.experiments.bench.vjepa2_ac.rivals import candidate_steps
from goalward.experiments.bench.vjepa2_ac.synthetic import inputs, weights
from goalward.planners.base import PlannerState
from goalward.planners.methods.cem import CEM
from goalward.planners.vjepa2_ac import VJEPA2_AC_PRESETS, VJepa2ACPlanning
from goalward.wm.vjepa2_ac.config import VJepa2ACConfig
from goalward.wm.vjepa2_ac.folder import predictor_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One size with one budget."""

    config: VJepa2ACConfig
    preset: str
    """Name of the settings."""
    budget: tuple[int, int] | None = None
    """Samples and iterations instead of the preset's own: where these would take too long."""

    @property
    def planning(self) -> VJepa2ACPlanning:
        """The settings, with the budget."""
        published = VJEPA2_AC_PRESETS[self.preset]
        if self.budget is None:
            return published
        samples, iterations = self.budget
        return dataclasses.replace(published, num_samples=samples, num_iterations=iterations, num_elites=min(10, samples))


_TINY = VJepa2ACConfig(dim=64, width=64, depth=4, heads=4, hidden=256, rows=4, columns=4)
CASES: dict[str, Case] = {
    "tiny, 16 patches, paper": Case(config=_TINY, preset="paper"),
    "tiny, 16 patches, wrapper": Case(config=_TINY, preset="wrapper"),
    "tiny, 256 patches, paper": Case(config=dataclasses.replace(_TINY, rows=16, columns=16), preset="paper", budget=(80, 1)),
    "tiny, 256 patches, wrapper": Case(config=dataclasses.replace(_TINY, rows=16, columns=16), preset="wrapper", budget=(40, 1)),
    "width 1024, 2 of 24 layers, paper": Case(config=VJepa2ACConfig(depth=2), preset="paper", budget=(8, 1)),
    "width 1024, 2 of 24 layers, wrapper": Case(config=VJepa2ACConfig(depth=2), preset="wrapper", budget=(8, 1)),
}
"""What is measured."""


def measure(public: PublicCode, case: Case, rounds: int) -> dict[str, Any]:
    """Figures of one case; times are medians over the rounds, ratios medians of the rounds' ratios."""
    preset, config, given = case.planning, case.config, weights(case.config)
    window = inputs(config, problems=1, frames=1)
    theirs = public.predictor(config, given, max_frames=8)
    planner = public.planner(theirs, config, public_arguments(preset))
    ours = {str(dtype).removeprefix("torch."): predictor_of(given, config, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}

    def ours_of(name: str) -> Callable[[], Any]:
        def plan() -> Tensor:
            made, _ = CEM(preset.cem_config()).plan(problem_of(ours[name], window, preset), PlannerState.initial([0]))
            return preset.settled(made.actions_BHA)

        return plan

    calls: dict[str, Callable[[], Any]] = {"public": lambda: their_action(planner, window)} | {name: ours_of(name) for name in ours}
    products = {name: Products(getattr(torch, name)) for name in ours}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    rates: dict[str, list[float]] = {name: [] for name in ours}
    for round_number in range(rounds + 1):  # the first warms up
        for name, call in calls.items():
            spent_s = seconds(call)
            rate = products[name].rate() if name in products else 0.0
            if round_number:
                taken[name].append(spent_s)
                if name in rates:
                    rates[name].append(rate)
    size = {"candidates": preset.num_samples, "horizon": preset.horizon}
    needed = preset.num_iterations * cached_flop(config, **size)
    return {
        "samples": preset.num_samples, "iterations": preset.num_iterations, "horizon": preset.horizon,
        "gflop": needed / 1e9, "gflop_public": preset.num_iterations * naive_flop(config, **size) / 1e9,
        "ms": {name: statistics.median(times) * 1e3 for name, times in taken.items()},
        "times_faster": {name: _ratio(taken["public"], taken[name]) for name in ours},
        "gflops_of_products": {name: statistics.median(values) / 1e9 for name, values in rates.items()},
        "share_of_floor": {name: statistics.median(needed / rate / s for rate, s in zip(rates[name], taken[name], strict=True))
                           for name in ours},
        "extra_mib": {name: extra_mib(call) for name, call in calls.items()},
        "public_parts": _parts(public, theirs, calls["public"]),
        "rank_correlation_of_bfloat16": _ranks(ours, window, preset),
    }  # fmt: skip


def _ratio(slow: list[float], fast: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def _parts(public: PublicCode, predictor: Any, plan: Callable[[], Any]) -> dict[str, float]:
    """Where the public planner's time goes: shares of one action."""
    modules = sys.modules["src.models.utils.modules"]
    wrapper = sys.modules["notebooks.utils.world_model_wrapper"]
    with (
        Spent(type(predictor), "forward") as network,
        Spent(modules, "rotate_queries_or_keys") as rotary,
        Spent(modules.F, "scaled_dot_product_attention") as attention,
        Spent(wrapper, "compute_new_pose") as poses,
    ):
        total_s = seconds(plan)
    return {
        "predictor": network.total_s / total_s, "of it rotary": rotary.total_s / total_s, "of it attention": attention.total_s / total_s,
        "poses": poses.total_s / total_s,
    }  # fmt: skip


@torch.no_grad()
def _ranks(ours: dict[str, Any], window: Any, preset: VJepa2ACPlanning, count: int = 40) -> float:
    """Rank correlation (Spearman) of candidates' costs in bfloat16 and in float32."""
    count = min(count, 4 * preset.num_samples)
    generator = torch.Generator().manual_seed(0)
    actions = (torch.rand(1, count, preset.horizon, 7, generator=generator) * 2 - 1) * preset.action_set().high_A
    ranks = []
    for predictor in ours.values():
        problem = problem_of(predictor, window, preset)
        z = predictor.rollout(problem.context, actions)
        cost = (z[0, :, -1] - window.z_goal_BND).abs().mean(dim=(1, 2))
        ranks.append(cost.argsort().argsort().double())
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def main(arguments: list[str]) -> int:
    """Reads the request, writes the result."""
    request = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    torch.set_num_threads(int(request["threads"]))
    public, rounds = PublicCode(Path(request["checkout"])), int(request["rounds"])
    result: dict[str, Any] = {"cases": {}, "candidate_steps": []}
    for name, case in CASES.items():
        if any(part in name for part in request["only"]) or not request["only"]:
            result["cases"][name] = measure(public, case, rounds)
            print(f"{name}: {json.dumps(result['cases'][name]['ms'])}", file=sys.stderr, flush=True)
    if request["rivals"]:
        result["candidate_steps"] = candidate_steps(public, rounds)
    Path(request["result"]).write_text(json.dumps(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
