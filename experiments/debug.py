"""`goalward debug`: the whole chain in miniature, collect -> pretrain -> train -> plan-eval, in under two minutes on two cores.

Every link is the real one with its sizes shrunk; the model that comes out is not a good one. Use it to see that an installation, or a
change, works from end to end.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from goalward import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class DebugCommand:
    """Run the whole chain in miniature: collect, pretrain, train, plan-eval."""

    out: Path = Path("runs/debug")
    """New folder for everything that is made."""
    env: str = "reach"
    """Environment."""
    planner: str = "cem"
    """Planner to evaluate."""
    collect_episodes: int = 80
    """Episodes to record."""
    eval_episodes: int = 3
    """Goals to plan to."""
    image_size_px: int = 64
    """Height and width of a frame."""
    workers: int | None = None
    """Processes that simulate; None: one for each CPU core."""

    def __post_init__(self) -> None:
        """Checks what the parts do not check themselves."""
        if self.collect_episodes < 40:
            raise UserError(f"collect_episodes={self.collect_episodes} is out of range; at least 40 are needed for a validation split")


def run(config: DebugCommand) -> int:
    """Runs the command.

    Returns:
        Exit code 0.

    Raises:
        UserError: the folder holds something already, or a part refuses.
    """
    from goalward.experiments import collect, plan_eval, pretrain, train

    if config.out.exists() and any(config.out.iterdir()):
        raise UserError(f"out={config.out} is not empty; choose a new folder")
    data, encoder, model = (config.out / name for name in ("data", "encoder", "model"))
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {text}", file=sys.stderr)

    say(f"collect: {config.collect_episodes} episodes of {config.env}")
    collect.run(
        collect.CollectCommand(
            env=config.env, episodes=config.collect_episodes, out=data, episode_steps=12, image_size_px=config.image_size_px,
            workers=config.workers,
        )
    )  # fmt: skip
    say("pretrain: an encoder, from the videos alone")
    pretrain.run(pretrain.PretrainCommand(data=(data,), out=encoder, preset="debug"))
    say("train: a predictor on its latents")
    train.run(train.TrainCommand(env=config.env, data=data, encoder=str(encoder), out=model, preset="debug"))
    say("plan-eval: closed loop on held-out goals")
    plan_eval.run(
        plan_eval.PlanEvalCommand(
            env=config.env, planner=config.planner, model=str(model), episodes=config.eval_episodes, num_samples=32, num_iterations=2,
            report=config.out / "report",
        )
    )  # fmt: skip
    say("done")
    return 0
