"""`plan-eval`: how well, and how fast, a planner reaches goal images; beside references, on the same goals, with intervals.

model + planner + references  ->  episodes (journal)  ->  results.json  ->  replays  ->  report.html  ->  table or JSON on standard output
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goalward import UserError
from goalward.experiments.errors import exit_code_of

if TYPE_CHECKING:
    from goalward.envs.base import EnvInfo
    from goalward.experiments.evaluation import Method
    from goalward.experiments.results import EpisodeRecord

PROG = "plan-eval"
REPORT_NAME = "report.html"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanEvalCommand:
    """Plan to goal images in simulation and report how well it went.

    The planner sees camera frames, the goal image and the arm's own position, never the goal's. It is compared, goal by goal, with holding
    still, with random actions and with the environment's oracle. Killed or interrupted, the same command continues where it stopped.
    """

    env: str = "reach"
    """Environment."""
    planner: str | None = None
    """Planner: random, cem, icem, mppi, cma_es, adam, hybrid, grasp; none given: the model's own choice."""
    episodes: int = 50
    """Number of goals."""
    seed: int = 0
    """Base seed; episode k has seed + k."""
    model: str | None = None
    """Name of a shipped model, or the folder of a checkpoint; none given: the shipped model of the environment."""
    encoder: str | None = None
    """Where the weights of the model's pretrained encoder are now, if they were moved since its training."""
    num_samples: int | None = None
    """Candidates (cem) or starts (adam) per plan; none given: the planner's default."""
    num_iterations: int | None = None
    """Iterations per plan; none given: the planner's default."""
    horizon: int | None = None
    """Actions in a plan; none given: the controller's default."""
    execute_steps: int | None = None
    """Actions executed from each plan at most, as long as nothing surprises; none given: 1."""
    budget_ms: float | None = None
    """Plan by a deadline, this long after the observation; none given: the planner's full budget."""
    realtime: bool = False
    """Let the simulated world go on while the planner thinks."""
    split: str = "test"
    """Goals, test for figures that are published, validation for tuning; and what varies: test-look, -camera, -distractors, -noise, ..."""
    compare: tuple[str, ...] = ()
    """Also run these, on the same goals and seeds: planners by name, policies by the folder `goalward imitate` wrote."""
    references: bool = True
    """Also run hold, random and the oracle."""
    report: Path | None = None
    """Folder for results.json and report.html; none given: reports/<env>-<planner>."""
    max_cards: int = 50
    """Episodes with pictures and a video in the report."""
    device: str = "cpu"
    """Where the model runs: cpu, cuda, ..."""
    json: bool = False
    """Print the content of results.json on standard output, and nothing else there."""

    def __post_init__(self) -> None:
        """Checks every number."""
        counts = ("episodes", "num_samples", "num_iterations", "horizon", "execute_steps")
        for name, low in (*((count, 1) for count in counts), ("max_cards", 3)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise UserError(f"{name} is {value}; must be at least {low}")
        if self.budget_ms is not None and not 0.0 < self.budget_ms < float("inf"):
            raise UserError(f"budget_ms is {self.budget_ms}; must be a positive number of milliseconds")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"seed is {self.seed}; must lie in 0 .. {2**31 - 1}")


def run(config: PlanEvalCommand) -> int:
    """Runs the command.

    Returns:
        Exit code 0.

    Raises:
        UserError: unknown environment, planner or model, a model that does not suit the environment, more episodes than goals.
    """
    # Whatever a library prints while it works must not end up in the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        results, folder = evaluate_and_report(config)
    if config.json:
        from goalward.experiments.results import to_text

        sys.stdout.write(to_text(results))
    else:
        from goalward.experiments.console import print_summary

        print_summary(results, folder / REPORT_NAME)
    sys.stdout.flush()
    return 0


def evaluate_and_report(config: PlanEvalCommand) -> tuple[dict[str, Any], Path]:
    """Evaluates, writes `results.json` and `report.html`, and returns the results and their folder."""
    from goalward.envs.goals import load_manifest
    from goalward.envs.registry import find_env
    from goalward.envs.splits import find_split
    from goalward.experiments.planning import chosen_planner, model_hashes, planner_config, planner_method
    from goalward.experiments.rivals import rival_methods

    env_name, _ = find_env(config.env)
    budget = {"num_samples": config.num_samples, "num_iterations": config.num_iterations}
    if config.planner is not None:  # mistakes come to light before anything is loaded
        planner_config(config.planner, **budget)
    split = find_split(env_name, config.split)
    manifest = load_manifest(env_name, split.goals_split)
    if config.episodes > len(manifest.goals):
        raise UserError(
            f"episodes is {config.episodes}; environment {env_name!r} has {len(manifest.goals)} {config.split} goals; ask for no more"
        )
    env, model = open_env_and_model(config, env_name, variation=split.variation.name)
    try:
        planner, settings = chosen_planner(model, config.planner, **budget)
        folder = config.report or Path("reports") / f"{env_name}-{planner}"
        if config.realtime and not hasattr(env.unwrapped, "wait"):
            raise UserError(f"realtime: environment {env_name!r} cannot go on while the planner thinks; leave --realtime out")
        check_folder(folder)
        method = planner_method(
            model, planner, settings, horizon=config.horizon, execute_steps=config.execute_steps, budget_ms=config.budget_ms
        )
        others, rival_hashes = rival_methods(config.compare, model, env.unwrapped.spec_info, taken=method.name)
        resolved = dataclasses.asdict(config) | {
            "env": env_name,
            "planner": planner,
            "model": config.model or env_name,
            "report": str(folder),
            "planner_config": dataclasses.asdict(settings),
            "goals_split": split.goals_split,
            "variation": dataclasses.asdict(split.variation),
        }
        hashes = model_hashes(config.model or env_name, model) | {"goals": split.sha256} | rival_hashes
        command = command_of(config)
        return evaluate_methods(env, method, others=others, config=resolved, hashes=hashes, folder=folder, command=command), folder
    finally:
        env.close()


def command_of(config: PlanEvalCommand) -> str:
    """The shortest command line that means the same, whoever made the configuration."""
    words = [PROG, "--env", config.env]
    for field in dataclasses.fields(config):
        value, option = getattr(config, field.name), field.name.replace("_", "-")
        if field.name in ("env", "json") or value == field.default:
            continue
        words += [f"--{option}" if value else f"--no-{option}"] if isinstance(value, bool) else [f"--{option}", str(value)]
    return shlex.join(words)


def open_env_and_model(config: PlanEvalCommand, env_name: str, *, variation: str = "none") -> tuple[Any, Any]:
    """The model, and the environment with the cameras that the model was trained on, under a variation.

    Raises:
        UserError: they do not suit one another; every difference is named.
    """
    import goalward
    from goalward.experiments.environments import open_env

    model = goalward.load_model(config.model or env_name, device=config.device, encoder=config.encoder)
    return open_env(env_name, model, variation=variation), model


def evaluate_methods(
    env: Any,
    method: Method,
    *,
    others: Sequence[Method] = (),
    config: dict[str, Any],
    hashes: dict[str, str],
    folder: Path,
    command: str = PROG,
) -> dict[str, Any]:
    """The part that is the same for every environment and every way to plan.

    Args:
        env: a goal-image environment.
        method: what is evaluated.
        others: what it is compared with, beside the references.
        config: resolved configuration with `episodes`, `seed`, `split`, `references` and `max_cards`, and `realtime` where it is wanted;
            stored with the results.
        hashes: what the results depend on.
        folder: of the report.
        command: what makes these results again.

    Returns:
        The content of `results.json`.
    """
    from goalward.experiments.detection import detection_figures
    from goalward.experiments.doctor import machine, versions
    from goalward.experiments.evaluation import evaluate, hold_method, oracle_method, random_method
    from goalward.experiments.journal import Journal, config_key
    from goalward.experiments.results import RESULTS_NAME, SCHEMA, finite_json, paired_tests, summarise, to_text, write_atomically

    references = [hold_method(), random_method(), oracle_method(env)] if config["references"] else []
    methods = [method, *others, *references]
    software = versions()
    env_facts = describe_env(env)
    presentation = ("report", "json", "max_cards")
    identity = {
        "config": {k: v for k, v in config.items() if k not in presentation}, "hashes": hashes, "versions": software, "env": env_facts,
    }  # fmt: skip
    began = time.monotonic()
    with Journal(folder, config_key(identity)) as journal:
        with progress_bar(f"{config['env']} · {method.name}", config["episodes"] * len(methods), planner=method.name) as on_episode:
            episodes = evaluate(
                env,
                methods,
                num_episodes=config["episodes"],
                seed=config["seed"],
                split=config.get("goals_split", config["split"]),
                journal=journal,
                realtime=config.get("realtime", False),
                on_episode=on_episode,
            )
        results: dict[str, Any] = finite_json(
            {
                "schema": SCHEMA,
                "command": command,
                "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "config": config,
                "env": env_facts,
                "machine": machine(),
                "versions": software,
                "seeds": {"base": config["seed"], "rule": "episode k: environment and method both get base + k"},
                "hashes": hashes,
                "methods": [summarise(m.name, episodes[m.name], role=m.role) for m in methods],
                "detection": detection_figures(
                    episodes[method.name],
                    method.detector,
                    tolerance_m=env_facts["strict_tolerance_m"],
                    strict_steps=env_facts["strict_steps"],
                ),
                "paired": paired_tests(episodes, planner=method.name),
                "wall_s": time.monotonic() - began,
                "resumed_episodes": journal.num_resumed,
                "episodes": [record.to_json() for name in episodes for record in episodes[name]],
            }
        )
        write_atomically(folder / RESULTS_NAME, to_text(results))
        # The journal outlives the page: a run killed while it draws need not evaluate again.
        write_atomically(folder / REPORT_NAME, draw_page(env, results, episodes[method.name], config))
        journal.delete()
    return results


def draw_page(env: Any, results: dict[str, Any], episodes: Sequence[EpisodeRecord], config: dict[str, Any]) -> str:
    """Replays the episodes that are shown and builds the page."""
    from goalward.experiments.replay import replay
    from goalward.experiments.report import build_page, choose_episodes
    from goalward.experiments.report_cards import SCENE_PX, try_media

    chosen = choose_episodes(episodes, max_cards=config["max_cards"])
    shown = [*chosen.featured, *chosen.others]
    media, notes, deviation = {}, set(), 0.0
    goals = config.get("goals_split", config["split"])
    with progress_bar("replaying for the report", len(shown)) as advance:
        for index in shown:
            seen = replay(env, episodes[index], split=goals, scene_px=SCENE_PX if index in chosen.featured else None)
            media[index], note = try_media(seen, episodes[index], cameras=results["env"]["cameras"], dt_s=results["env"]["dt_s"])
            notes |= {note} if note else set()
            deviation = max(deviation, seen.deviation_m)
            advance(episodes[index])
    if deviation > 1e-6:
        notes.add(f"Replayed from the recorded actions; the replays deviate by up to {1e3 * deviation:.2g} mm.")
    else:
        notes.add("Replayed from the recorded actions; every replay ended where the evaluation did.")
    return build_page(results, chosen=chosen, media=media, notes=sorted(notes))


def describe_env(env: Any) -> dict[str, Any]:
    """Public facts about an environment, as JSON values; tolerances where it states them."""
    info: EnvInfo = env.unwrapped.spec_info
    facts = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
    facts |= {name: getattr(env.unwrapped, name, None) for name in ("strict_tolerance_m", "strict_steps", "moderate_tolerance_m")}
    return {
        name: value.tolist() if hasattr(value, "tolist") else list(value) if isinstance(value, tuple) else value
        for name, value in facts.items()
    }


def check_folder(folder: Path) -> None:
    """Makes the report folder, before anything is computed that could then not be written.

    Raises:
        UserError: it is a file, or cannot be made or written.
        OSError: it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"report: {folder} is a file; give a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # some file systems have no folders to make
        raise UserError(f"report: {folder} cannot be made; choose another folder") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"report: {folder} cannot be written; choose another folder")


@contextlib.contextmanager
def progress_bar(title: str, total: int, *, planner: str | None = None) -> Iterator[Callable[[EpisodeRecord], None]]:
    """A bar on standard error, with the running success of the planner."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=28), MofNCompleteColumn(), TextColumn("{task.fields[running]}"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    outcomes: list[bool] = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total, running="")

        def advance(record: EpisodeRecord) -> None:
            if record.method == planner:
                outcomes.append(record.strict)
                progress.update(task, running=f"strict {sum(outcomes)}/{len(outcomes)}")
            progress.advance(task)

        yield advance


def main() -> None:
    """Entry point of the command `plan-eval`."""

    def command() -> int:
        from goalward.experiments.command_line import parse

        return run(parse(PlanEvalCommand, prog=PROG, args=sys.argv[1:]))

    sys.exit(exit_code_of(command))


if __name__ == "__main__":
    main()
