"""A connected street network, traced along a direction field from one through road outwards.

Streets are streamlines of a smooth field of directions and of its perpendicular, as in Chen et
al., "Interactive procedural street modeling", SIGGRAPH 2008 (doi:10.1145/1360612.1360702). With
a constant field they form a grid, with a bent one the curved streets of suburbs.
Every street but the first starts on another one, so the network is connected by construction.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from utils.synthetic.canvas import drawable_width
from utils.synthetic.style import SceneStyle
from utils.synthetic.terrain import Land, fractal_noise

STEP_M = 6.0
CELL_M = 3  # of the raster in which near samples are looked up, one sample a cell
LOOK_M = 21.0  # a street that has another one this near ahead joins it
CLEARANCE_M = 15.0  # of two streets away from junctions, and of a street from a dead end
MAIN_SPACING_M = 400.0  # of through roads
JUNCTION_GAP_M = 24.0  # between junctions along a street
MIN_STUMP_M = 26.0  # shorter dead ends are not built


@dataclass(frozen=True)
class Road:
    """A street as built: its polyline (N, 2) in world metres, with a vertex at every junction."""

    points: np.ndarray
    junctions: tuple[int, ...]  # indices of vertices that other streets share
    width_m: float
    surface: str  # asphalt, worn, concrete or gravel
    main: bool


@dataclass
class _Street:
    first: int  # its samples are the slots first..last of the tracer's arrays
    last: int
    main: bool
    joints: dict[float, np.ndarray] = field(default_factory=dict)  # by position among the slots


@dataclass
class _Path:
    """A street while it grows. `met` names the joints: own vertex, other street, its position."""

    points: list[np.ndarray]
    met: list[tuple[int, int, float]]
    finished: bool = True  # left the world or ended in a junction, not in the open


def draw_network(
    rng: np.random.Generator, side: int, view: tuple[float, float], style: SceneStyle, land: Land
) -> list[Road]:
    """The streets of a world of `side` metres, of which [view[0], view[1]]^2 will be seen."""
    tracer = StreetTracer(rng, side, style, land)
    tracer.start(view)
    tracer.grow(max_streets=side * side // 1500)
    return tracer.roads()


class StreetTracer:
    def __init__(self, rng: np.random.Generator, side: int, style: SceneStyle, land: Land) -> None:
        self.rng, self.side, self.style, self.land = rng, side, style, land
        bend = fractal_noise(rng, side, 300, 1)
        self.direction = style.angle + style.bend * np.clip(bend, -1.2, 1.2)
        capacity = side * side // 20 + 1000
        self.points = np.zeros((capacity, 2))
        self.owner = np.full(capacity, -1)
        self.slot_at = np.full((side // CELL_M + 1, side // CELL_M + 1), -1, np.int32)
        self.used = 0
        self.streets: list[_Street] = []

    def start(self, view: tuple[float, float]) -> None:
        """The first through road, over land as far as possible, by the middle of the view."""
        best, least_water = None, math.inf
        for _ in range(6):
            middle = self.rng.uniform(*view, size=2) * 0.5 + sum(view) / 4
            turn = self.rng.integers(0, 4)
            ahead = self._trace(middle, turn, main=True)
            behind = self._trace(middle, turn + 2, main=True)
            points = behind.points[:0:-1] + ahead.points
            wet = sum(self._at(self.land.water, p) for p in points)
            if wet < least_water:
                best, least_water = points, wet
        assert best is not None
        self._build(_Path(best, []), main=True)

    def grow(self, max_streets: int) -> None:
        """Through roads from through roads, then side streets of all, until few more fit."""
        for main in (True, False, False):
            queue = deque(range(len(self.streets)))
            while queue and len(self.streets) < max_streets:
                parent = queue.popleft()
                for position, turn in self._branches(parent, main):
                    path = self._side_street(parent, position, turn, main)
                    if path is not None:
                        queue.append(len(self.streets))
                        self._build(path, main=main)

    def roads(self) -> list[Road]:
        """The streets with a vertex at every junction, and their width and surface."""
        return [self._road(street) for street in self.streets]

    def _branches(self, parent: int, main: bool) -> list[tuple[float, int]]:
        """Places along a street where others may leave, and their direction's quarter turn."""
        street, places = self.streets[parent], []
        position = street.first + self.rng.uniform(3, 50 if main else 12)
        while position < street.last - 4:
            slot = int(position)
            heading = self._heading_of(slot)
            base = self._at(self.direction, self.points[slot])
            settled = self._at(self.land.settled, self.points[slot])
            odds = 0.5 if main else 0.92 if settled else 0.6
            for side in self.rng.permutation((-1, 1)):
                turn = round((heading + side * math.pi / 2 - base) / (math.pi / 2))
                if self.rng.random() < odds:
                    places.append((float(slot), turn))
            block = self.style.block_m[turn % 2] * (1 if settled else 2.4)
            spacing = MAIN_SPACING_M if main else block
            position += spacing / STEP_M * math.exp(self.rng.normal(0, self.style.jitter))
        return places

    def _side_street(self, parent: int, position: float, turn: int, main: bool) -> _Path | None:
        street = self.streets[parent]
        if any(0 < abs(p - position) * STEP_M < JUNCTION_GAP_M for p in street.joints):
            return None
        path = self._trace(self.points[int(position)], turn, main=main)
        path.met.insert(0, (0, parent, position))
        if path.finished:
            return path if len(path.points) * STEP_M > MIN_STUMP_M else None
        return self._trimmed(path)

    def _trimmed(self, path: _Path) -> _Path | None:
        """A path that ended in the open, cut back to keep its distance from what stopped it."""
        last_met = path.met[-1][0]
        end = len(path.points) - math.ceil(CLEARANCE_M / STEP_M)
        while end > last_met + 1 and self._at(self.land.water, path.points[end - 1]):
            end -= 1
        if (end - 1 - last_met) * STEP_M < MIN_STUMP_M:
            end = last_met + 1
        return _Path(path.points[:end], path.met) if end > 1 else None

    def _trace(self, start: np.ndarray, turn: int, *, main: bool) -> _Path:
        """Follow the field from `start`, `turn` quarter turns from it, until something stops."""
        path = _Path([np.array(start, float)], [])
        ignored, ignored_for = self._streets_at(path.points[0]), JUNCTION_GAP_M
        crescent = not main and self.rng.random() < self.style.crescent_rate
        bend_at, bend_over = self.rng.uniform(40, 80), self.rng.uniform(70, 130)
        side = self.rng.choice((-1, 1)) * math.pi
        was_settled = self._at(self.land.settled, path.points[0])
        travelled = 0.0
        while True:
            here = path.points[-1]
            heading = self._at(self.direction, here) + turn * math.pi / 2
            if crescent:
                heading += side * min(max((travelled - bend_at) / bend_over, 0), 1)
            ahead = np.array([math.cos(heading), math.sin(heading)])
            if ignored_for <= 0:
                ignored = ignored[:0]
            found = self._meet(here, ahead, ignored, turn)
            if found == "blocked":
                path.finished = False
                return path
            if found is not None:
                other, position, point = found
                path.points.append(point)
                path.met.append((len(path.points) - 1, other, position))
                if crescent or (not main and self.rng.random() > self.style.cross_rate):
                    return path
                ignored, ignored_for = self._streets_at(point), JUNCTION_GAP_M
                continue
            there = here + STEP_M * ahead
            if not (2 < there[0] < self.side - 3 and 2 < there[1] < self.side - 3):
                path.points.append(np.clip(there, 0, self.side - 1e-6))
                return path
            settled = self._at(self.land.settled, there)
            if not main and self._stops(there, was_settled and not settled):
                path.finished = False
                return path
            path.points.append(there)
            was_settled = settled
            travelled += STEP_M
            ignored_for -= STEP_M

    def _stops(self, there: np.ndarray, leaves_settlement: bool) -> bool:
        if self._at(self.land.water, there):
            return True
        rate = 0.6 if leaves_settlement else self.style.dead_end_rate * STEP_M
        return self.rng.random() < rate

    def _meet(
        self, here: np.ndarray, ahead: np.ndarray, ignored: np.ndarray, turn: int
    ) -> tuple[int, float, np.ndarray] | str | None:
        """The junction ahead (street, position, point), 'blocked' by a bad one, None when free."""
        gap = max(0.45 * self.style.block_m[turn % 2], CLEARANCE_M)
        slots = self._near(here, max(gap, LOOK_M + STEP_M))
        slots = slots[(self.owner[slots][:, None] != ignored).all(axis=1)]
        if not slots.size:
            return None
        hit = self._hit(here, ahead, slots)
        if hit is not None:
            return hit if self._can_join(hit, ahead) else "blocked"
        offset = self.points[slots] - here
        distance = np.hypot(*offset.T)
        along = np.abs(self._tangents(slots) @ ahead)
        beside = np.abs(offset @ ahead) < STEP_M
        near = (distance < CLEARANCE_M) | ((distance < gap) & (along > 0.8) & beside)
        return "blocked" if near.any() else None

    def _hit(
        self, here: np.ndarray, ahead: np.ndarray, slots: np.ndarray
    ) -> tuple[int, float, np.ndarray] | None:
        """Where the ray of LOOK_M first meets a segment that touches one of the slots."""
        slots = np.unique(np.concatenate([slots, np.maximum(slots - 1, 0)]))
        slots = slots[self.owner[slots] == self.owner[slots + 1]]
        a = self.points[slots] - here
        d = self.points[slots + 1] - self.points[slots]
        cross = ahead[0] * d[:, 1] - ahead[1] * d[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = (a[:, 0] * d[:, 1] - a[:, 1] * d[:, 0]) / cross
            share = (a[:, 0] * ahead[1] - a[:, 1] * ahead[0]) / cross
        valid = (reach > 0) & (reach <= LOOK_M) & (share >= 0) & (share < 1)
        if not valid.any():
            return None
        best = np.flatnonzero(valid)[np.argmin(reach[valid])]
        position = float(slots[best] + share[best])
        return int(self.owner[slots[best]]), position, here + reach[best] * ahead

    def _can_join(self, hit: tuple[int, float, np.ndarray], ahead: np.ndarray) -> bool:
        other, position, _ = hit
        street = self.streets[other]
        tangent = self._tangents(np.array([int(position)]))[0]
        steep = abs(tangent[0] * ahead[1] - tangent[1] * ahead[0]) > 0.55
        places = [*street.joints, street.first, street.last]
        return steep and all(abs(p - position) * STEP_M >= JUNCTION_GAP_M for p in places)

    def _build(self, path: _Path, *, main: bool) -> None:
        first, count = self.used, len(path.points)
        self.points[first : first + count] = path.points
        self.owner[first : first + count] = len(self.streets)
        cells = (np.asarray(path.points) / CELL_M).astype(int)
        for slot, (x, y) in enumerate(cells, start=first):
            if self.slot_at[y, x] < 0:
                self.slot_at[y, x] = slot
        self.used += count
        street = _Street(first, first + count - 1, main)
        for own, other, position in path.met:
            street.joints[float(first + own)] = path.points[own]
            self.streets[other].joints[position] = path.points[own]
        self.streets.append(street)

    def _road(self, street: _Street) -> Road:
        places = sorted({*map(float, range(street.first, street.last + 1)), *street.joints})
        points = [street.joints.get(p, self.points[int(p)]) for p in places]
        joints = tuple(i for i, p in enumerate(places) if p in street.joints)
        style, rng = self.style, self.rng
        width = rng.uniform(*(style.main_width_m if street.main else style.local_width_m))
        surface = style.surface if rng.random() < 0.75 else str(rng.choice(["asphalt", "worn"]))
        settled = self._at(self.land.settled, points[len(points) // 2])
        if not street.main and not settled and rng.random() < 0.45:
            width, surface = rng.uniform(6.0, 7.0), "gravel"
        return Road(np.array(points), joints, drawable_width(width), surface, street.main)

    def _streets_at(self, point: np.ndarray) -> np.ndarray:
        """The streets of a junction: a street that leaves it may be near them for a while."""
        return np.unique(self.owner[self._near(point, STEP_M + 1)])

    def _near(self, here: np.ndarray, radius: float) -> np.ndarray:
        x, y = int(here[0] / CELL_M), int(here[1] / CELL_M)
        r = math.ceil(radius / CELL_M)
        window = self.slot_at[max(y - r, 0) : y + r + 1, max(x - r, 0) : x + r + 1]
        return window[window >= 0]

    def _tangents(self, slots: np.ndarray) -> np.ndarray:
        ahead = np.where(self.owner[slots + 1] == self.owner[slots], slots + 1, slots)
        behind = np.where(ahead == slots, slots - 1, slots)
        step = self.points[ahead] - self.points[behind]
        return step / np.maximum(np.hypot(*step.T), 1e-9)[:, None]

    def _heading_of(self, slot: int) -> float:
        tangent = self._tangents(np.array([slot]))[0]
        return math.atan2(tangent[1], tangent[0])

    def _at(self, raster: np.ndarray, point: np.ndarray) -> float:
        return raster[int(point[1]), int(point[0])]
