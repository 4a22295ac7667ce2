"""A connected street network, traced along a direction field from one through road outwards.

Streets are streamlines of a smooth field of directions and of its perpendicular, as in Chen et
al., "Interactive procedural street modeling", SIGGRAPH 2008 (doi:10.1145/1360612.1360702). With
a constant field they form a grid, with a bent one the curved streets of suburbs.
Every street but the first starts on another one, so the network is connected by construction.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from utils.synthetic.canvas import drawable_width
from utils.synthetic.streets import (
    CLEARANCE_M,
    JUNCTION_GAP_M,
    STEP_M,
    Joint,
    Path,
    Street,
    StreetMap,
)
from utils.synthetic.style import SceneStyle
from utils.synthetic.terrain import Land, fractal_noise

MAIN_SPACING_M = 400.0  # of through roads
MIN_STUMP_M = 26.0  # shorter dead ends are not built
PARALLEL_SHARE = 0.45  # of a block: nearer than this no street runs beside another


@dataclass(frozen=True)
class Road:
    """A street as built: its polyline (N, 2) in world metres, with a vertex at every junction."""

    points: np.ndarray
    junctions: tuple[int, ...]  # indices of vertices that other streets share
    width_m: float
    surface: str  # asphalt, worn, concrete or gravel
    main: bool


def draw_network(
    rng: np.random.Generator, side: int, view: tuple[float, float], style: SceneStyle, land: Land
) -> list[Road]:
    """The streets of a world of `side` metres, of which [view[0], view[1]]^2 will be seen."""
    tracer = StreetTracer(rng, side, style, land)
    tracer.start(view)
    tracer.grow(max_streets=side * side // 1500)
    return tracer.roads()


class StreetTracer:
    """Grows streets one after the other, along a pattern of directions."""

    def __init__(self, rng: np.random.Generator, side: int, style: SceneStyle, land: Land) -> None:
        self.rng, self.side, self.style, self.land = rng, side, style, land
        # Less than a right angle off the pattern, so that no street comes back to itself.
        bend = np.clip(style.bend * fractal_noise(rng, side, 300, 1), -1.4, 1.4)
        self.direction = style.angle + bend
        self.map = StreetMap(side)

    def start(self, view: tuple[float, float]) -> None:
        """The first through road, over land as far as possible, by the middle of the view."""
        candidates = []
        for _ in range(6):
            middle = self.rng.uniform(*view, size=2) * 0.5 + sum(view) / 4
            turn = self.rng.integers(0, 4)
            ahead = self._trace(middle, turn, main=True)
            behind = self._trace(middle, turn + 2, main=True)
            candidates.append(behind.points[:0:-1] + ahead.points)
        wet = [sum(self._at(self.land.water, p) for p in points) for points in candidates]
        self.map.build(Path(candidates[int(np.argmin(wet))]), main=True)

    def grow(self, max_streets: int) -> None:
        """Through roads from through roads, then side streets of all, until few more fit."""
        for main in (True, False, False):
            queue = deque(range(len(self.map.streets)))
            while queue and len(self.map.streets) < max_streets:
                parent = queue.popleft()
                for position, turn in self._branches(self.map.streets[parent], main):
                    path = self._branch(parent, position, turn, main)
                    if path is not None:
                        queue.append(self.map.build(path, main=main))

    def roads(self) -> list[Road]:
        """The streets with a vertex at every junction, and their width and surface."""
        return [self._road(street) for street in self.map.streets]

    def _branches(self, street: Street, main: bool) -> list[tuple[int, int]]:
        """Samples at which others may leave a street, and their direction's quarter turn."""
        places = []
        position = street.first + self.rng.uniform(3, 50 if main else 12)
        while position < street.last - 4:
            sample = int(position)
            here = self.map.points[sample]
            off_field = self.map.heading(sample) - self._at(self.direction, here)
            settled = self._at(self.land.settled, here)
            odds = 0.5 if main else 0.92 if settled else 0.6
            for side in self.rng.permutation((-1, 1)):
                turn = round(off_field / (math.pi / 2) + side)
                if self.rng.random() < odds:
                    places.append((sample, turn))
            block = self.style.block_m[turn % 2] * (1 if settled else 2.4)
            spacing = MAIN_SPACING_M if main else block
            position += spacing / STEP_M * math.exp(self.rng.normal(0, self.style.jitter))
        return places

    def _branch(self, parent: int, sample: int, turn: int, main: bool) -> Path | None:
        """A street that leaves `parent` at a sample, None where no good one fits."""
        street, start = self.map.streets[parent], self.map.points[sample]
        if sample not in street.joints and not street.has_room(sample):
            return None
        path = self._trace(start, turn, main=main)
        path.met[0] = Joint(parent, float(sample), start)
        if path.finished:
            return path if len(path.points) * STEP_M > MIN_STUMP_M else None
        return self._trimmed(path)

    def _trimmed(self, path: Path) -> Path | None:
        """A path that ended in the open, cut back to keep its distance from what stopped it."""
        last_met = max(path.met)
        end = len(path.points) - math.ceil(CLEARANCE_M / STEP_M)
        while end > last_met + 1 and self._at(self.land.water, path.points[end - 1]):
            end -= 1
        if (end - 1 - last_met) * STEP_M < MIN_STUMP_M:
            end = last_met + 1
        return Path(path.points[:end], path.met) if end > 1 else None

    def _trace(self, start: np.ndarray, turn: int, *, main: bool) -> Path:
        """Follow the field from `start`, `turn` quarter turns from it, until something stops."""
        path = Path([start])
        ignored, ignored_until = self.map.streets_at(start), JUNCTION_GAP_M
        crescent = self._crescent() if not main else None
        gap = max(PARALLEL_SHARE * self.style.block_m[turn % 2], CLEARANCE_M)
        travelled = 0.0
        while True:
            here = path.points[-1]
            heading = self._at(self.direction, here) + turn * math.pi / 2
            if crescent is not None:
                heading += crescent(travelled)
            ahead = np.array([math.cos(heading), math.sin(heading)])
            if travelled >= ignored_until:
                ignored = ignored[:0]
            met = self.map.obstacle(here, ahead, ignored, gap)
            if met is True or (not met and not main and self._stops(here, here + STEP_M * ahead)):
                path.finished = False
                return path
            if met:
                path.met[len(path.points)] = met
                path.points.append(met.point)
                if crescent or not (main or self.rng.random() < self.style.cross_rate):
                    return path
                ignored, ignored_until = self.map.streets_at(met.point), travelled + JUNCTION_GAP_M
                continue
            path.points.append(np.clip(here + STEP_M * ahead, 0, self.side - 1e-6))
            if self._leaves_world(here + STEP_M * ahead):
                return path
            travelled += STEP_M

    def _crescent(self) -> Callable[[float], float] | None:
        """For some streets, how far they have turned back after so many metres; else None."""
        if self.rng.random() >= self.style.crescent_rate:
            return None
        begin, length = self.rng.uniform(40, 80), self.rng.uniform(70, 130)
        side = self.rng.choice((-math.pi, math.pi))
        return lambda travelled: side * min(max((travelled - begin) / length, 0), 1)

    def _stops(self, here: np.ndarray, there: np.ndarray) -> bool:
        """Whether a side street ends here: at the water, at the edge of a settlement, by chance."""
        if self._leaves_world(there):
            return False
        settled = self.land.settled
        leaves = self._at(settled, here) and not self._at(settled, there)
        rate = 0.6 if leaves else self.style.dead_end_rate * STEP_M
        return self.rng.random() < rate or bool(self._at(self.land.water, there))

    def _leaves_world(self, there: np.ndarray) -> bool:
        return there.min() < 2 or there.max() > self.side - 3

    def _road(self, street: Street) -> Road:
        points, junctions = self.map.polyline(street)
        style, rng = self.style, self.rng
        width = rng.uniform(*(style.main_width_m if street.main else style.local_width_m))
        surface = style.surface if rng.random() < 0.75 else str(rng.choice(["asphalt", "worn"]))
        settled = self._at(self.land.settled, points[len(points) // 2])
        if not street.main and not settled and rng.random() < 0.45:
            width, surface = rng.uniform(6.0, 7.0), "gravel"
        return Road(points, junctions, drawable_width(width), surface, street.main)

    def _at(self, raster: np.ndarray, point: np.ndarray) -> float:
        return raster[int(point[1]), int(point[0])]
