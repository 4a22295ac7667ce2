"""Road networks traced from masks, with junctions, corners and ends where the roads lead."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from utils.topology.arms import VIEWS, Arm, Surface, cross, travelled_m
from utils.topology.sketch import Point, RoadSketch

#: How far from its road's course, in half widths, thinning leads an end.
ASTRAY = 1.25
#: An end is not moved for less.
ASTRAY_PX = 1.0
#: What the sides of a corner enclose at most where thinning has rounded it.
ROUNDED_RAD = np.radians(135.0)


class Road(NamedTuple):
    """A polyline (K x 2, metres), the way along it (K), its sums, and half of its width."""

    line: np.ndarray
    way_m: np.ndarray
    sums: np.ndarray
    half_m: float

    @property
    def ends(self) -> tuple[Point, Point]:
        start, end = self.line[[0, -1]].tolist()
        return tuple(start), tuple(end)


class Network:
    """Roads by their ends, and where these are to be instead."""

    def __init__(self, roads: list[Road], surface: Surface) -> None:
        self.roads = roads
        self.surface = surface
        self.at: dict[Point, list[tuple[int, list[Arm | None]]]] = defaultdict(list)
        for number, road in enumerate(roads):
            start, end = road.ends
            back = road.line[::-1], road.way_m[-1] - road.way_m[::-1]
            self.at[start].append((number, surface.views(road.line, road.way_m, road.half_m)))
            self.at[end].append((number, surface.views(*back, road.half_m)))
        self.group: dict[Point, tuple[Point, ...]] = {point: (point,) for point in self.at}
        self.moved: dict[Point, np.ndarray] = {}

    def merge_split_junctions(self) -> None:
        """Make one of junctions so close that the road between has no course, if it fits all."""
        links = []
        for road in self.roads:
            length_m, limit_m = road.way_m[-1], 2 * self.surface.bent_m(road.half_m)
            if length_m < limit_m + self.surface.least_m(road.half_m):
                links.append((length_m, road.ends))
        for _, ends in sorted(links):
            first, second = (self.group[end] for end in ends)
            if first is second or min(len(self.at[end]) for end in ends) < 3:
                continue
            both = first + second
            inner, outer = self._roads_of(both)
            if len(inner) >= len(both):  # there is a block between them
                continue
            point = self.surface.meeting_point(outer, np.array(both), all_meet=True)
            if point is not None:
                self.group |= dict.fromkeys(both, both)
                self.moved |= dict.fromkeys(both, point)

    def move_junctions(self) -> None:
        """Move junctions and corners to where their roads lead."""
        for place, roads in self.at.items():
            if len(roads) > 1 and place not in self.moved:
                views = [views for _, views in roads]
                point = self.surface.meeting_point(views, np.array([place]))
                if point is not None:
                    self.moved[place] = point

    def straighten_ends(self) -> None:
        """Let dead ends end in the middle of their road."""
        for place, roads in self.at.items():
            if len(roads) > 1:
                continue
            arm = next((arm for arm in roads[0][1][1:] if arm is not None), None)
            if arm is not None and (end := self._end(np.array(place), arm)) is not None:
                self.moved[place] = end

    def _end(self, place: np.ndarray, arm: Arm) -> np.ndarray | None:
        ahead_m = arm.along @ (arm.through - place)
        astray_m, pixel_m = abs(cross(arm.along, place - arm.through)), self.surface.pixel_m
        if ahead_m <= 0 or not ASTRAY_PX * pixel_m < astray_m <= ASTRAY * arm.half_m:
            return None
        back_m = np.arange(0, min(ahead_m, 2 * arm.half_m), pixel_m / 2)
        points = arm.through + np.outer(back_m - ahead_m, arm.along)
        on_road = self.surface.is_road(points)
        return points[on_road.argmax()] if on_road.any() else None

    def _roads_of(self, places: tuple[Point, ...]) -> tuple[set[int], list[list[Arm | None]]]:
        """The roads between the places, by number, and the views of those that lead away."""
        found = [road for place in places for road in self.at[place]]
        numbers = [number for number, _ in found]
        inner = {number for number in numbers if numbers.count(number) == 2}
        return inner, [views for number, views in found if number not in inner]

    def lines(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Every road with its sums, straight from where thinning bent it to its new ends."""
        for road in self.roads:
            start, end = road.ends
            if start != end and self.group[start] is self.group[end]:
                continue
            way_m, bent_m = road.way_m, self.surface.bent_m(road.half_m)
            kept = np.ones(len(way_m), dtype=bool)
            if start in self.moved:
                kept &= way_m > bent_m
            if end in self.moved:
                kept &= way_m < way_m[-1] - bent_m
            kept[[0, -1]] = False
            first, last = (self.moved.get(place, np.array(place)) for place in (start, end))
            yield np.concatenate([first[None], road.line[kept], last[None]]), road.sums


def straighten(
    sketch: RoadSketch, half_width_m: Callable[[np.ndarray], float], surface: Surface
) -> RoadSketch:
    """The sketch with junctions, sharp corners and ends where the roads' straight parts lead.

    `half_width_m` tells half the width of a road from its sums. What lies further than about half
    a width from them stays, and so does what is too short or too winding to lead anywhere.
    """
    roads = []
    for line, sums in sketch.measured_lines():
        if line[0].tolist() > line[-1].tolist():  # whatever cells a scene was traced in
            line = line[::-1]
        half_m = max(half_width_m(sums), surface.pixel_m)
        way_m = travelled_m(line)
        places = [0, *_corners(line, way_m, half_m, surface), len(line) - 1]
        for first, last in pairwise(places):
            part, part_m = line[first : last + 1], way_m[first : last + 1] - way_m[first]
            roads.append(Road(part, part_m, sums / (len(places) - 1), half_m))
    network = Network(roads, surface)
    network.merge_split_junctions()
    network.move_junctions()
    network.straighten_ends()
    straight = RoadSketch()
    for line, sums in network.lines():
        if len(line) > 2 or not np.array_equal(*line):
            straight.add(line, sums)
    straight.merge_chains()
    return straight


def _corners(line: np.ndarray, way_m: np.ndarray, half_m: float, surface: Surface) -> list[int]:
    """The points of a line (K x 2) at which it turns sharply, at most one in a view."""
    view_m = surface.bent_m(half_m) + VIEWS[-1] * half_m
    first, last = np.searchsorted(way_m, [view_m, way_m[-1] - view_m])
    if first >= last:
        return []
    here_m, here = way_m[first:last], line[first:last]
    onward, returning = (
        np.stack([np.interp(here_m + by_m, way_m, axis) for axis in line.T], axis=1) - here
        for by_m in (view_m, -view_m)
    )
    lengths = np.hypot(*onward.T) * np.hypot(*returning.T)
    sharpness = (onward * returning).sum(axis=1) / np.maximum(lengths, 1e-9)
    corners = []
    while sharpness.max() > np.cos(ROUNDED_RAD):
        sharpest = int(sharpness.argmax())
        corners.append(int(first) + sharpest)
        sharpness[np.abs(here_m - here_m[sharpest]) < view_m] = -1
    return sorted(corners)
