"""How close rollouts come to the rate of plain matrix products on this machine, and where the rest of the time goes.

    python -m goalward.experiments.bench.rollout
    python -m goalward.experiments.bench.rollout --compiled --skip-scaling

The floating-point operations of a rollout's matrix products are counted from the sizes; operations of all else count nothing. They are
compared with products measured in the same run, in turns with the rollouts: large square ones, and the layers' own shapes. Every figure is
the median over the rounds; ratios are medians of the rounds' ratios, so that whatever else the machine does falls on both.

Letters: S candidates, H horizon steps, T context frames, N tokens, D latent width, A action dimensions, W width inside.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from goalward import UserError
from goalward.experiments.bench.rollout_flop import Shape
from goalward.wm.predictor import LatentPredictor

if TYPE_CHECKING:
    from rich.console import Console

    from goalward.wm.model import WorldModel

FAMILIES = {
    "matrix products": ("mm", "bmm", "addmm", "baddbmm", "gemm", "cutlass", "nvjet"),
    "softmax": ("softmax",),
    "layer norm": ("layer_norm",),
    "GELU and SiLU": ("gelu", "silu"),
    "other elementwise": ("add", "mul", "addcmul", "sub", "div", "add_"),
    "copies": ("copy_", "cat", "stack", "index_select", "clone"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutCommand:
    """Compare rollouts with plain matrix products."""

    model: str = "reach"
    """Shipped model, or folder."""
    device: str = "cpu"
    """Where."""
    candidates: tuple[int, ...] = (64, 256, 1024)
    """S of the first table; the profile takes the middle one."""
    horizon: int = 3
    """H."""
    rounds: int = 30
    """Turns of products and rollouts."""
    compiled: bool = False
    """Also measure compiled rollouts, with the time that compiling takes."""
    skip_scaling: bool = False
    """Leave the scaling tables out."""
    cpu_time: bool = False
    """Use one thread and count its own time, not the clock's: for a machine that is busy with other things."""

    def __post_init__(self) -> None:
        if not self.candidates or min(self.candidates) < 1 or self.horizon < 1 or not 1 <= self.rounds <= 10_000:
            raise UserError(
                f"candidates={self.candidates}, horizon={self.horizon}, rounds={self.rounds}: all must be at least 1, rounds at most 10000"
            )


def run(config: RolloutCommand) -> int:
    """Runs the benchmark and prints tables.

    Returns:
        Exit code 0.
    """
    from rich.console import Console

    from goalward.wm.model import load_model

    if config.cpu_time:
        torch.set_num_threads(1)
    console = Console(width=120, soft_wrap=True)
    for dtype in (torch.bfloat16, torch.float32):
        model = load_model(config.model, config.device, dtype=dtype)
        _throughput(console, config, model)
    model = load_model(config.model, config.device)
    if config.compiled:
        _compiled(console, config, model)
    if not config.skip_scaling:
        _scaling(console, config, model)
    _profile(console, config, model)
    return 0


def _throughput(console: Console, config: RolloutCommand, model: WorldModel) -> None:
    from rich.table import Table

    d = model.description
    table = Table(title=f"{d.num_tokens} tokens, width {d.predictor.width}, {str(model.dtype).removeprefix('torch.')}, {_threads(config)}")
    for name in ("candidates", "GFLOP", "rollout ms", "GFLOP/s", "square products", "own shapes", "of square", "of own shapes"):
        table.add_column(name, justify="right")
    for candidates in config.candidates:
        shape = _shape(model, candidates, config.horizon)
        roll = _rollout_of(model, candidates, config.horizon)
        square, side = _products([(2048, 2048, 2048, 1)], model)
        own, _ = _products(shape.layers(), model)
        rolls_s, squares_s, owns_s = _in_turns([roll, square, own], config)
        rate = [shape.flop() / s for s in rolls_s]
        square_rate = [side / s for s in squares_s]
        own_rate = [shape.linear_flop() / s for s in owns_s]
        table.add_row(
            f"{candidates}",
            f"{shape.flop() / 1e9:.2f}",
            f"{statistics.median(rolls_s) * 1e3:.2f}",
            *(f"{statistics.median(rates) / 1e9:.0f}" for rates in (rate, square_rate, own_rate)),
            *(f"{statistics.median(a / b for a, b in zip(rate, other, strict=True)):.0%}" for other in (square_rate, own_rate)),
        )
    console.print(table)


def _compiled(console: Console, config: RolloutCommand, model: WorldModel) -> None:
    from rich.table import Table

    from goalward.wm.model import load_model

    compiled = load_model(config.model, config.device, compiled=True)
    table = Table(title="Compiled")
    for name in ("candidates", "plain ms", "compiled ms", "ratio", "first call s"):
        table.add_column(name, justify="right")
    for candidates in config.candidates:
        plain, fast = (_rollout_of(m, candidates, config.horizon) for m in (model, compiled))
        begun_s = time.perf_counter()
        fast()
        first_s = time.perf_counter() - begun_s
        plain_s, fast_s = _in_turns([plain, fast], config)
        ratio = statistics.median(b / a for a, b in zip(plain_s, fast_s, strict=True))
        times = (f"{statistics.median(seconds) * 1e3:.2f}" for seconds in (plain_s, fast_s))
        table.add_row(f"{candidates}", *times, f"{ratio:.2f}", f"{first_s:.0f}")
    console.print(table)


def _scaling(console: Console, config: RolloutCommand, model: WorldModel) -> None:
    """Each size alone changes; predictors of other sizes have random weights, which cost the same."""
    from rich.table import Table

    base = _shape(model, sorted(config.candidates)[len(config.candidates) // 2], config.horizon)
    frames = base.config.context_frames
    variants: dict[str, list[tuple[int, Shape]]] = {
        "candidates": [(S, replace(base, candidates=S)) for S in (1, 4, 16, 64, 256, 1024)],
        "horizon": [(H, replace(base, horizon=H)) for H in (1, 2, 3, 5, 10)],
        "tokens": [(N, replace(base, num_tokens=N)) for N in (2, 4, 8, 16, 32)],
        "context frames": [(T, replace(base, config=replace(base.config, context_frames=T))) for T in (1, frames, 4, 8, 16, 32)],
    }
    table = Table(title=f"Scaling, around {base.candidates} candidates, horizon {base.horizon}, {str(model.dtype).removeprefix('torch.')}")
    for name in ("what", "value", "rollout ms", "GFLOP", "GFLOP/s"):
        table.add_column(name, justify="right")
    for what, shapes in variants.items():
        for value, shape in shapes:
            (seconds,) = _in_turns([_random_rollout(shape, model)], replace(config, rounds=min(config.rounds, 10)))
            median_s = statistics.median(seconds)
            table.add_row(what, f"{value}", f"{median_s * 1e3:.2f}", f"{shape.flop() / 1e9:.2f}", f"{shape.flop() / median_s / 1e9:.0f}")
        table.add_section()
    console.print(table)


def _profile(console: Console, config: RolloutCommand, model: WorldModel) -> None:
    """Self time by family of operators, least over repetitions of every single call, so that interruptions do not count."""
    from rich.table import Table
    from torch.profiler import ProfilerActivity, profile

    candidates = sorted(config.candidates)[len(config.candidates) // 2]
    roll = _rollout_of(model, candidates, config.horizon)
    cuda = model.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    calls: dict[tuple[int, str], float] = {}
    roll()
    for _ in range(config.rounds):
        with profile(activities=activities) as trace:
            roll()
        for index, event in enumerate(trace.events()):
            spent_us = float(event.self_device_time_total if cuda else event.self_cpu_time_total)
            calls[index, event.name] = min(spent_us, calls.get((index, event.name), spent_us))
    spent: dict[str, list[float]] = {}
    for (_, name), spent_us in calls.items():
        spent.setdefault(family_of(name), []).append(spent_us)
    total_us = sum(map(sum, spent.values()))
    table = Table(title=f"Where the time goes, {candidates} candidates, {str(model.dtype).removeprefix('torch.')}")
    for name in ("operators", "calls", "ms", "share"):
        table.add_column(name, justify="right")
    for family, times_us in sorted(spent.items(), key=lambda item: -sum(item[1])):
        table.add_row(family, f"{len(times_us)}", f"{sum(times_us) / 1e3:.2f}", f"{sum(times_us) / total_us:.0%}")
    console.print(table)


def family_of(operator: str) -> str:
    """The row of the profile that an operator belongs to; views and Python's own are `dispatch`."""
    name = operator.removeprefix("aten::").lower()
    for family, names in FAMILIES.items():
        if name in names or any(part in name for part in names if len(part) > 4):
            return family
    return "dispatch and views"


def _in_turns(functions: Sequence[Callable[[], Any]], config: RolloutCommand) -> list[list[float]]:
    """Seconds of each function in each round."""
    clock = time.thread_time if config.cpu_time else time.perf_counter

    def wait() -> None:
        if config.device.startswith("cuda"):
            torch.cuda.synchronize()

    for function in functions:
        function()
        function()
    taken: list[list[float]] = [[] for _ in functions]
    for _ in range(config.rounds):
        for function, seconds in zip(functions, taken, strict=True):
            wait()
            begun_s = clock()
            function()
            wait()
            seconds.append(clock() - begun_s)
    return taken


def _products(shapes: list[tuple[int, int, int, int]], model: WorldModel) -> tuple[Callable[[], None], int]:
    """Runs plain products of these shapes; returns their operations too."""
    some = [
        (_draw(rows, inner).to(model.device, model.dtype), _draw(outer, inner).to(model.device, model.dtype), times)
        for rows, inner, outer, times in shapes
    ]

    @torch.inference_mode()
    def multiply() -> None:
        for x, weight, times in some:
            for _ in range(times):
                torch.nn.functional.linear(x, weight)

    return multiply, sum(2 * rows * inner * outer * times for rows, inner, outer, times in shapes)


def _shape(model: WorldModel, candidates: int, horizon: int) -> Shape:
    d = model.description
    return Shape(
        config=d.predictor, num_tokens=d.num_tokens, dim=d.dim, action_dim=len(d.env.action_names), candidates=candidates, horizon=horizon
    )


def _rollout_of(model: WorldModel, candidates: int, horizon: int) -> Callable[[], Tensor]:
    """As a planner calls it: physical actions, no gradient."""
    d = model.description
    context = model.prime(_draw(1, model.context_frames, d.num_tokens, d.dim))
    actions = 0.5 * model.action_high * _draw(1, candidates, horizon, len(d.env.action_names)).to(model.device)

    @torch.no_grad()
    def roll() -> Tensor:
        return model.rollout(context, actions)

    return roll


def _random_rollout(shape: Shape, model: WorldModel) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(0)
    predictor = LatentPredictor(
        shape.config, num_tokens=shape.num_tokens, dim=shape.dim, action_dim=shape.action_dim, generator=generator
    ).to(model.device, model.dtype)
    with torch.no_grad():
        context = predictor.prime(_draw(1, shape.config.context_frames, shape.num_tokens, shape.dim).to(model.device))
    actions = _draw(1, shape.candidates, shape.horizon, shape.action_dim).to(model.device)

    @torch.no_grad()
    def roll() -> Tensor:
        return predictor.rollout(context, actions)

    return roll


def _threads(config: RolloutCommand) -> str:
    return f"{torch.get_num_threads()} threads" if config.device == "cpu" else config.device


def _draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def main() -> None:
    """Entry point."""
    from goalward.experiments.command_line import parse
    from goalward.experiments.errors import exit_code_of

    sys.exit(exit_code_of(lambda: run(parse(RolloutCommand, prog="rollout", args=sys.argv[1:]))))


if __name__ == "__main__":
    main()
