"""The contract of an environment: what a goal-image task tells the rest of the system.

A task is a Gymnasium environment whose observation is a dictionary

* `pixels` uint8 [V, height, width, 3], one frame a camera, in the order of `EnvInfo.cameras`;
* `proprio` float32 [P], named by `EnvInfo.proprio_names`, SI units;
* `time_s` float64 [], seconds since the reset;

whose action is float32 [A] in physical units (`EnvInfo.action_names`, `action_low`, `action_high`), and whose goal is an image, found
in the reset's `info["goal_pixels"]`. Success is decided by the physical state alone. An environment may have a method `wait(duration_s)`,
which lets the physics go on with the last reference held (see `GoalTask.wait`); evaluation in real time needs it.

Letters in array names: V camera views, A action dimensions, P proprioception dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvInfo:
    """What an environment is; stored with every dataset, checkpoint and result."""

    name: str
    """Short name, e.g. `reach`."""
    version: str
    """Gymnasium id, e.g. `Goalward/Reach-v0`; a change of behaviour is a new id."""
    cameras: tuple[str, ...]
    """Named cameras, in the order of the pixels' first axis."""
    image_size_px: int
    """Height and width of a frame."""
    dt_s: float
    """Control period."""
    action_names: tuple[str, ...]
    """Name and unit of every action entry."""
    action_low: NDArray[np.float32]
    """Smallest action [A]."""
    action_high: NDArray[np.float32]
    """Largest action [A]."""
    proprio_names: tuple[str, ...]
    """Name and unit of every proprioception entry."""
    workspace_low_m: NDArray[np.float32]
    """Lower corner [3] of the box the end effector stays in."""
    workspace_high_m: NDArray[np.float32]
    """Upper corner [3]."""
    max_episode_steps: int
    """Steps until the episode is truncated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GoalSpec:
    """One evaluation problem: a start state and a goal state that the oracle reached from it."""

    id: str
    """Unique within its manifest."""
    start_qpos: tuple[float, ...]
    """Joint positions at the start."""
    goal_qpos: tuple[float, ...]
    """Joint positions in the goal image."""
    start_position_m: tuple[float, float, float]
    """At the start: what has to get to the goal (the end effector, or what is pushed)."""
    goal_position_m: tuple[float, float, float]
    """The same in the goal image; decides success, never shown to a planner."""
