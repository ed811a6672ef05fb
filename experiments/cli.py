"""The command `goalward`: verbs, each in a module of its own that is imported only when it is called."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from goalward import UserError, __version__
from goalward.experiments.errors import exit_code_of


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: where its options and its `run(options) -> int` are."""

    module: str
    """Module in this folder."""
    command: str
    """Dataclass of its options in that module, or a union of several."""
    about: str
    """One line for `goalward --help`."""


VERBS: dict[str, Verb] = {
    "collect": Verb("collect", "CollectCommand", "record episodes in simulation"),
    "pretrain": Verb("pretrain", "PretrainCommand", "train an encoder on video"),
    "convert": Verb("convert", "ConvertCommand", "turn an original V-JEPA 2 checkpoint into safetensors, once"),
    "encoders": Verb("encoders", "EncodersCommand", "list encoders: width, tokens, licence, milliseconds a frame here"),
    "probe": Verb("probe", "ProbeCommand", "measure what an encoder knows"),
    "reweigh": Verb("reweigh", "ReweighCommand", "make an encoder in which small objects count beside the arm"),
    "train": Verb("train", "TrainCommand", "train a world model's predictor"),
    "imitate": Verb("imitate", "ImitateCommand", "train a policy that imitates, to compare planning with"),
    "calibrate": Verb("calibrate", "CalibrateCommand", "measure what surprises a model and when a goal is reached"),
    "benchmark": Verb("benchmark.command", "BenchmarkCommand", "compare methods on tasks, splits and seeds"),
    "plan-eval": Verb("plan_eval", "PlanEvalCommand", "plan to goal images and report (also the command plan-eval)"),
    "data": Verb("data", "DataCommand", "look into an episode store: info, preview, verify"),
    "debug": Verb("debug", "DebugCommand", "run the whole chain in miniature"),
    "doctor": Verb("doctor", "DoctorCommand", "say what is installed and what is missing"),
}


def usage() -> str:
    """The text of `goalward --help`."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {verb.about}" for name, verb in VERBS.items())
    return f"""goalward {__version__}: plan robot actions toward a goal image with a learned world model

usage: goalward VERB [options]        goalward VERB --help shows the options of a verb

{verbs}

See it work, with the model that is shipped:
  plan-eval --env reach

From nothing to a model of your own:
  goalward collect --env reach --episodes 600 --out data/reach
  goalward train --env reach --data data/reach --out runs/reach
  plan-eval --env reach --model runs/reach
"""


def dispatch(args: Sequence[str]) -> int:
    """Runs a verb.

    Args:
        args: what follows `goalward`.

    Returns:
        Exit code.

    Raises:
        UserError: no such verb, or its own mistakes.
    """
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0
    if args[0] == "--version":
        print(__version__)
        return 0
    name = args[0]
    verb = VERBS.get(name)
    if verb is None:
        near = difflib.get_close_matches(name, VERBS, n=3, cutoff=0.4)
        raise UserError(
            f"unknown verb {name!r}; " + (f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(VERBS)}")
        )
    from goalward.experiments.command_line import parse

    module = importlib.import_module(f"goalward.experiments.{verb.module}")
    return int(module.run(parse(getattr(module, verb.command), prog=f"goalward {name}", args=args[1:])))


def main() -> None:
    """Entry point of the command `goalward`."""
    sys.exit(exit_code_of(lambda: dispatch(sys.argv[1:])))


if __name__ == "__main__":
    main()
