"""Where roads would meet that are carried on as straight as they come towards a junction.

The skeleton of a mask is the centre line of its roads except within about half a width of a
junction, a sharp corner or an end: there it gives way to the inner side, makes two junctions of a
crossing, or runs into a corner of the mask. What lies just outside tells where it should lead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

#: How far thinning bends a road at its end, and how much of it is looked at beyond, the longest
#: view first: the longer, the surer a straight road's direction. In half widths; a pixel more.
BENT = 1.1
VIEWS = (4.0, 2.5, 1.25)
#: Least of a road, in half widths and in pixels, that has a direction.
LEAST, LEAST_PX = 1.0, 3.0
#: How far the course may leave the skeleton's pixels, and miss the point that it leads to: in half
#: widths, and that many pixels more.
STRAY, STRAY_PX = 0.05, 0.75
MISS, MISS_PX = 0.25, 0.5
#: No point is moved by more half widths than that; the skeleton passes the inner corner between two
#: roads at about one half width, and seldom nearer than the second.
REACH = 4.0
LEAST_PASS = 0.7
#: As far as that, in half widths, a road's direction is trusted that a long view gives.
FAR = 1.5
#: A point moved off its old surroundings is on the road, or this near to it in half widths.
OFF_ROAD = 0.5
#: Two roads that enclose more run on; it is no corner.
CORNER_RAD = np.radians(120.0)
#: Weight of the old place, against that of a road, along which all roads may run.
STAY = 0.003


class Arm(NamedTuple):
    """A road's straight course: a point of it, and a unit vector away from the road's end."""

    half_m: float
    through: np.ndarray
    along: np.ndarray


@dataclass(frozen=True)
class Surface:
    """The mask: its pixel's side in metres, and whether points (P x 2) are road (bool P)."""

    pixel_m: float
    is_road: Callable[[np.ndarray], np.ndarray]

    def bent_m(self, half_m: float) -> float:
        """How far a road of that half width is bent from its end on."""
        return BENT * half_m + self.pixel_m

    def least_m(self, half_m: float) -> float:
        return max(LEAST * half_m, LEAST_PX * self.pixel_m)

    def miss_m(self, half_m: float) -> float:
        """By how much a road's course may miss a point that it leads to."""
        return MISS * half_m + MISS_PX * self.pixel_m

    def views(self, line: np.ndarray, way_m: np.ndarray, half_m: float) -> list[Arm | None]:
        """The course of a road (K x 2, from the end in question) in each of VIEWS.

        `way_m` is the line's `travelled_m`. None where the road is too short or not straight.
        """
        first_m = self.bent_m(half_m)
        room_m = way_m[-1] - 2 * first_m  # its other end may be bent, too
        if room_m < self.least_m(half_m):
            return [None] * len(VIEWS)
        last_m = [first_m + min(view * half_m + self.pixel_m, room_m) for view in VIEWS]
        first, *ends = way_m.searchsorted([first_m, *last_m]).tolist()
        return [self._course(line[first:end], half_m) for end in ends]

    def _course(self, seen: np.ndarray, half_m: float) -> Arm | None:
        if len(seen) < 3:
            return None
        middle = seen.sum(axis=0) / len(seen)
        x, y = (seen - middle).T
        angle = math.atan2(2 * (x @ y), x @ x - y @ y) / 2  # of the longer axis of inertia
        along = np.array([math.cos(angle), math.sin(angle)])
        stray_m = np.abs(along[0] * y - along[1] * x).max()
        if stray_m > STRAY * half_m + STRAY_PX * self.pixel_m:
            return None
        return Arm(half_m, middle, along if along @ (seen[-1] - seen[0]) > 0 else -along)

    def meeting_point(
        self, roads: Sequence[Sequence[Arm | None]], old: np.ndarray, *, all_meet: bool = False
    ) -> np.ndarray | None:
        """The point in which roads (their `views`) meet instead of in the places `old` (P x 2).

        None when there is no such point near by. Unless `all_meet`, some of three or more roads
        may miss it. The longest view decides.
        """
        by_view = [[arm for arm in arms if arm is not None] for arms in zip(*roads, strict=True)]
        if len(roads) == 2:
            return self._corner(by_view, old)
        most = max(map(len, by_view))
        for may_miss in (False,) if all_meet else (False, True):
            for arms in by_view:
                if may_miss or len(arms) == most:
                    point = self._common_point(arms, old, may_miss)
                    if point is not None:
                        return point
        return None

    def _corner(self, by_view: list[list[Arm]], old: np.ndarray) -> np.ndarray | None:
        """Two roads always have a common point; where it is far off, short views are safer."""
        found = []
        for arms in by_view:
            if len(arms) == 2 and _least_angle(arms) < CORNER_RAD:
                point = self._common_point(arms, old)
                if point is not None:
                    found.append((np.hypot(*(point - old[0])) / arms[0].half_m, point))
        near = [point for moved, point in found if moved < FAR]
        return near[0] if near else min(found, key=lambda pair: pair[0], default=(0, None))[1]

    def _common_point(
        self, arms: list[Arm], old: np.ndarray, may_miss: bool = False
    ) -> np.ndarray | None:
        while len(arms) >= 2:
            half_m = max(arm.half_m for arm in arms)
            point = _nearest_point(arms, old.mean(axis=0))
            missed_m = [abs(cross(arm.along, point - arm.through)) for arm in arms]
            if max(missed_m) <= self.miss_m(half_m):
                return point if self._is_likely(point, arms, old, half_m) else None
            if not may_miss or len(arms) == 2:
                return None
            arms = [arm for arm, m in zip(arms, missed_m, strict=True) if m < max(missed_m)]
        return None

    def _is_likely(
        self, point: np.ndarray, arms: list[Arm], old: np.ndarray, half_m: float
    ) -> bool:
        """Ahead of all roads, as far from the old places as thinning leads, and on the road.

        Roads of half width h that enclose an angle have their inner sides meet h / sin(angle / 2)
        from where they meet themselves: as far off, less LEAST_PASS, the skeleton may bend.
        """
        if any((arm.through - point) @ arm.along <= 0 for arm in arms):
            return False
        inner = 1 / np.sin(max(_least_angle(arms), 0.1) / 2)
        moved_m = np.hypot(*(old - point).T).max()
        if moved_m > min(half_m * (inner - LEAST_PASS) + self.pixel_m, REACH * half_m):
            return False
        if moved_m <= half_m:
            return True
        back = old.mean(axis=0) - point
        back *= min(1, OFF_ROAD * half_m / np.hypot(*back))
        return bool(self.is_road((point + back)[None])[0])


def travelled_m(line: np.ndarray) -> np.ndarray:
    """How far each point of a line (K x 2) is from its first, along it."""
    way_m = np.zeros(len(line))
    np.hypot(*(line[1:] - line[:-1]).T).cumsum(out=way_m[1:])
    return way_m


def cross(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """z of the cross product of vectors (..., 2)."""
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]


def _nearest_point(arms: list[Arm], old: np.ndarray) -> np.ndarray:
    """The point with the least sum of squared distances from all courses."""
    across = np.array([np.eye(2) - np.outer(arm.along, arm.along) for arm in arms])
    through = np.array([arm.through for arm in arms])
    left = across.sum(axis=0) + STAY * np.eye(2)
    right = np.einsum("aij,aj->i", across, through) + STAY * old
    return np.linalg.solve(left, right)


def _least_angle(arms: list[Arm]) -> float:
    """Between neighbouring roads, in radians."""
    angles = sorted(np.arctan2(arm.along[1], arm.along[0]) for arm in arms)
    between = [second - first for first, second in pairwise([*angles, angles[0] + 2 * np.pi])]
    return float(min(between))
