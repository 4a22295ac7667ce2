"""Joining the ends of roads that face each other over a gap, as trees and shadows leave them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from utils.topology.sketch import DeadEnd, RoadSketch

#: An end's direction is that of its last metres: the very last pixels of a skeleton waver.
LOOK_BACK_M = 12.0


@dataclass(frozen=True)
class JoinRule:
    """Which gaps are closed.

    The ends lie at most `join_m` apart, each points to the other within `max_angle_deg`, and the
    mean road probability along the bridge is at least `min_probability` (0: not looked at).
    """

    join_m: float
    max_angle_deg: float = 30.0
    min_probability: float = 0.0

    def __post_init__(self) -> None:
        if not self.join_m > 0:
            raise ValueError(f"join_m must be a positive number of metres, got {self.join_m}")
        if not 0 < self.max_angle_deg <= 90:
            raise ValueError(f"max_angle_deg must be in (0, 90], got {self.max_angle_deg}")
        if not 0 <= self.min_probability <= 1:
            raise ValueError(f"min_probability must be in [0, 1], got {self.min_probability}")


def read_join_rule(text: str) -> JoinRule:
    """The rule of a command line's --connect: METRES[,DEGREES[,PROBABILITY]].

    Raises ValueError for anything else, and for numbers that no rule can have.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3:
        raise ValueError(f"--connect: expected METRES[,DEGREES[,PROBABILITY]], got {text!r}")
    try:
        return JoinRule(*numbers)
    except ValueError as error:
        raise ValueError(f"--connect: {error}") from None


def join_gaps(
    sketch: RoadSketch,
    rule: JoinRule,
    mean_probability: Callable[[np.ndarray], float] | None = None,
) -> int:
    """Close the gaps of a sketch that a rule allows, the shortest first; how many were closed.

    An end is joined once. `mean_probability` tells the mean along a bridge (2 x 2: its ends, in
    metres); it is needed when the rule has a `min_probability`.
    """
    if rule.min_probability and mean_probability is None:
        raise ValueError("min_probability needs a probability map to look at")
    ends = sketch.dead_ends()
    if len(ends) < 2:
        return 0
    points = np.array([end.point for end in ends])
    pairs = KDTree(points).query_pairs(rule.join_m, output_type="ndarray")
    gap_m = np.hypot(*(points[pairs[:, 0]] - points[pairs[:, 1]]).T)
    joined: set[int] = set()
    for first, second in pairs[np.argsort(gap_m, kind="stable")].tolist():
        bridge = points[[first, second]]
        if joined & {first, second} or not _facing(ends[first], ends[second], rule.max_angle_deg):
            continue
        if rule.min_probability and mean_probability(bridge) < rule.min_probability:
            continue
        sketch.add(bridge)
        joined |= {first, second}
    sketch.merge_chains()
    return len(joined) // 2


def _facing(first: DeadEnd, second: DeadEnd, max_angle_deg: float) -> bool:
    bridge = np.subtract(second.point, first.point)
    least = math.cos(math.radians(max_angle_deg)) * np.hypot(*bridge)
    return bool(_outward(first) @ bridge >= least and _outward(second) @ -bridge >= least)


def _outward(end: DeadEnd) -> np.ndarray:
    """Unit vector in which the road leaves its dead end."""
    back_m = np.hypot(*np.diff(end.line[::-1], axis=0).T).cumsum()
    looked_at = end.line[::-1][: 2 + int(np.searchsorted(back_m, LOOK_BACK_M))]
    direction = looked_at[0] - looked_at[-1]
    return direction / max(np.hypot(*direction), 1e-12)
