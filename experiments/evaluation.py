"""Closed-loop evaluation: several methods, the same goals, the same seeds.

    for every goal k:   for every method:   reset(seed + k, goal k)  ->  act ... step ... until the episode ends  ->  EpisodeRecord

A method that plans is given the observation and the goal's pixels, and what is public about the environment (`EnvInfo`). It never holds
the environment, its info or its reward. The oracle does, and says so in its role.

Letters in array names: V camera views, T steps of the episode, A action dimensions.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goalward import UserError
from goalward.envs.base import EnvInfo
from goalward.experiments.journal import Journal
from goalward.experiments.results import Decision, EpisodeRecord, finite_json

Observation = Mapping[str, Any]
Action = NDArray[np.float32]
Policy = Callable[[Observation], Action]


class EpisodeFailed(RuntimeError):
    """A method could not act; the episode ends as failed, with this sentence as its label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeStart:
    """All that a method is told when an episode begins."""

    goal_pixels: NDArray[np.uint8]
    """Goal image of every camera, uint8 [V, height, width, 3]."""
    seed: int
    """Seed of everything random in the method."""
    info: EnvInfo
    """What is public about the environment: cameras, action limits, workspace, period."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Detector:
    """Success as a calibrated model sees it."""

    energy: float
    """Latent distance at and below which a frame counts as being at the goal."""
    steps: int
    """So many frames running must be there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One way to act, evaluated beside the others."""

    name: str
    """Shown in tables."""
    role: str
    """`planner`, `reference` or `privileged reference`."""
    begin: Callable[[EpisodeStart], Policy]
    """Makes the policy of one episode."""
    timed: bool = False
    """True when the time of its decisions is worth reporting."""
    energies: Callable[[NDArray[np.uint8], NDArray[np.uint8]], Sequence[float]] | None = None
    """Latent distances [T+1] of frames uint8 [T+1, V, h, w, 3] to a goal uint8 [V, h, w, 3]; called after the episode, untimed."""
    explain: Callable[[Policy], Decision] | None = None
    """Tells how a policy's last action came about."""
    detector: Detector | None = None
    """How the method tells from energies that a goal is reached, if it can."""


def hold_method() -> Method:
    """Sends the action nearest to zero: what success costs when nothing is done."""

    def begin(start: EpisodeStart) -> Policy:
        action = np.clip(0.0, start.info.action_low, start.info.action_high).astype(np.float32)
        return lambda _: action

    return Method(name="hold", role="reference", begin=begin)


def random_method() -> Method:
    """Draws every action evenly from the action limits."""

    def begin(start: EpisodeStart) -> Policy:
        rng = np.random.default_rng([start.seed, 0x5EED])  # a stream of its own: the environment uses the bare seed
        return lambda _: rng.uniform(start.info.action_low, start.info.action_high).astype(np.float32)

    return Method(name="random", role="reference", begin=begin)


def oracle_method(env: Any) -> Method:
    """The environment's scripted oracle, which knows the goal's state: the best that the task allows."""
    return Method(name="oracle", role="privileged reference", begin=lambda _: lambda _: env.unwrapped.oracle_action())


def run_episode(
    env: Any,
    method: Method,
    *,
    index: int,
    seed: int,
    split: str,
    warm_up: bool = False,
    realtime: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> EpisodeRecord:
    """Runs one episode of one method.

    Args:
        env: a goal-image environment (see `goalward.envs.base`).
        method: how to act.
        index: number of the goal in the split's manifest.
        seed: seed of the environment and of the method.
        split: manifest.
        warm_up: make one decision first and throw it away: the first of a process also allocates its workspace.
        realtime: the world goes on, with the last reference held, for as long as a timed method decides.
        clock: monotonic seconds.
    """
    observation, info = env.reset(seed=seed, options={"goal_index": index, "split": split})
    goal_id, goal_pixels = str(info["goal_id"]), np.array(info["goal_pixels"])
    goal_pixels.flags.writeable = False
    spec: EnvInfo = env.unwrapped.spec_info
    distances, frames, actions, plan_ms = [float(info["distance_m"])], [observation["pixels"]], [], []
    decisions, waits_s = [], []
    strict = moderate = done = False
    failure: str | None = None
    start = EpisodeStart(goal_pixels=goal_pixels, seed=seed, info=spec)
    if warm_up:
        with contextlib.suppress(EpisodeFailed):
            method.begin(start)(observation)
    policy = method.begin(start)
    while not done:
        began = clock()
        try:
            action = np.asarray(policy(observation), dtype=np.float32)
        except EpisodeFailed as event:
            failure = str(event)
            break
        took_s = clock() - began
        if realtime and method.timed:
            failure = env.unwrapped.wait(took_s)
            if failure is not None:
                break
            waits_s.append(took_s)
        if method.explain is not None:
            decisions.append(method.explain(policy))
        plan_ms.append(took_s * 1e3)
        actions.append(tuple(float(a) for a in action))
        observation, _, terminated, truncated, info = env.step(action)
        frames.append(observation["pixels"])
        distances.append(float(info["distance_m"]))
        strict = strict or bool(info["strict_success"])
        moderate = bool(info["moderate_success"])
        failure = info["failure"]
        done = bool(terminated or truncated) or failure is not None or len(actions) >= spec.max_episode_steps
    energies = None if method.energies is None else tuple(float(e) for e in method.energies(np.stack(frames), goal_pixels))
    raw = EpisodeRecord(
        method=method.name, index=index, goal_id=goal_id, seed=seed, distances_m=tuple(distances), energies=energies,
        actions=tuple(actions), plan_ms=tuple(plan_ms) if method.timed else (), strict=strict and failure is None,
        moderate=moderate and failure is None, steps=len(actions), failure=failure,
        decisions=tuple(decisions), waits_s=tuple(waits_s),
    )  # fmt: skip
    return EpisodeRecord.from_json(finite_json(raw.to_json()))


def evaluate(
    env: Any,
    methods: Sequence[Method],
    *,
    num_episodes: int,
    seed: int,
    split: str,
    journal: Journal,
    realtime: bool = False,
    on_episode: Callable[[EpisodeRecord], None] = lambda _: None,
) -> dict[str, list[EpisodeRecord]]:
    """Evaluates every method on every goal; episodes found in the journal are not run again.

    Episode k starts from `reset(seed=seed + k)` at goal k, whatever ran before it: results do not depend on the order, on the methods
    evaluated beside one, or on an interruption.

    Args:
        env: a goal-image environment.
        methods: unique names.
        num_episodes: goals 0 .. num_episodes - 1 of the manifest.
        seed: base seed.
        split: manifest.
        journal: an open journal.
        realtime: the world goes on while timed methods decide; see `run_episode`.
        on_episode: called after every episode, also for those of the journal.

    Returns:
        Name of the method -> its episodes in order.

    Raises:
        UserError: two methods of one name.
    """
    names = [method.name for method in methods]
    if len(set(names)) != len(names):
        raise UserError(f"methods {names} share a name; give each its own")
    cold = {method.name for method in methods if method.timed}
    for index in range(num_episodes):
        for method in methods:
            record = journal.records.get((method.name, index))
            if record is None:
                cool = method.name in cold
                record = run_episode(env, method, index=index, seed=seed + index, split=split, warm_up=cool, realtime=realtime)
                cold.discard(method.name)
                journal.append(record)
            on_episode(record)
    return {name: [journal.records[name, index] for index in range(num_episodes)] for name in names}
