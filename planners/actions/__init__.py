"""Action sets: what may be done. `base.py` states the contract; sets are composed by `Intersection`."""

from goalward.planners.actions.ball import Ball
from goalward.planners.actions.base import ActionSet, Situation, center_A, half_range_A, hold_A
from goalward.planners.actions.box import Box
from goalward.planners.actions.gripper import Gripper
from goalward.planners.actions.intersection import Intersection
from goalward.planners.actions.rate_limit import RateLimit
from goalward.planners.actions.workspace import Workspace

__all__ = [
    "ActionSet",
    "Ball",
    "Box",
    "Gripper",
    "Intersection",
    "RateLimit",
    "Situation",
    "Workspace",
    "center_A",
    "half_range_A",
    "hold_A",
]
