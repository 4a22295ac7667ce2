"""The streets built so far, and what a new one must know of them: what is near, what lies ahead."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

STEP_M = 6.0  # between the samples of a street
CELL_M = 3  # of the raster in which near samples are looked up, one sample a cell
LOOK_M = 21.0  # a street that has another one this near ahead joins it
CLEARANCE_M = 15.0  # of two streets away from junctions, and of a street from a dead end
JUNCTION_GAP_M = 24.0  # between junctions along a street
MIN_JUNCTION_SINE = 0.55  # of the angle of two streets, 33 degrees


class Joint(NamedTuple):
    """A place on a built street: its number, the position among its samples, and the point."""

    street: int
    position: float
    point: np.ndarray


@dataclass
class Path:
    """A street while it grows: its vertices, and by vertex the joints on streets that it met."""

    points: list[np.ndarray]
    met: dict[int, Joint] = field(default_factory=dict)
    finished: bool = True  # left the world or ended in a junction, not in the open


@dataclass
class Street:
    """Samples `first` to `last` of the map; joints lie at or between them, keyed by position."""

    first: int
    last: int
    main: bool
    joints: dict[float, np.ndarray] = field(default_factory=dict)

    def has_room(self, position: float) -> bool:
        """Whether a junction here keeps its distance from the street's others and from its ends."""
        places = (*self.joints, self.first, self.last)
        return all(abs(place - position) * STEP_M >= JUNCTION_GAP_M for place in places)


class StreetMap:
    """Streets of a world of `side` metres as one list of samples, found through a raster."""

    def __init__(self, side: int) -> None:
        capacity = side * side // 20 + 1000  # far more than streets CLEARANCE_M apart can have
        self.points = np.zeros((capacity, 2))
        self.owner = np.full(capacity, -1)
        self.sample_at = np.full((side // CELL_M + 1, side // CELL_M + 1), -1, np.int32)
        self.used = 0
        self.streets: list[Street] = []

    def build(self, path: Path, *, main: bool) -> int:
        """Add a street, with joints on it and on all that it meets; returns its number."""
        number, first, count = len(self.streets), self.used, len(path.points)
        self.points[first : first + count] = path.points
        self.owner[first : first + count] = number
        cells = (np.asarray(path.points) / CELL_M).astype(int)
        for sample, (x, y) in enumerate(cells, start=first):
            if self.sample_at[y, x] < 0:
                self.sample_at[y, x] = sample
        self.used += count
        self.streets.append(Street(first, first + count - 1, main))
        for vertex, joint in path.met.items():
            self.streets[number].joints[float(first + vertex)] = joint.point
            self.streets[joint.street].joints[joint.position] = joint.point
        return number

    def polyline(self, street: Street) -> tuple[np.ndarray, tuple[int, ...]]:
        """Vertices (N, 2) of a street including its joints, and which of them are joints."""
        samples = map(float, range(street.first, street.last + 1))
        places = sorted({*samples, *street.joints})
        points = [street.joints.get(place, self.points[int(place)]) for place in places]
        joints = tuple(i for i, place in enumerate(places) if place in street.joints)
        return np.array(points), joints

    def near(self, point: np.ndarray, radius_m: float) -> np.ndarray:
        """The samples in a square around a point."""
        x, y = int(point[0] / CELL_M), int(point[1] / CELL_M)
        r = math.ceil(radius_m / CELL_M)
        window = self.sample_at[max(y - r, 0) : y + r + 1, max(x - r, 0) : x + r + 1]
        return window[window >= 0]

    def streets_at(self, point: np.ndarray) -> np.ndarray:
        """The streets of a junction: a street that leaves it may be near them for a while."""
        return np.unique(self.owner[self.near(point, STEP_M + 1)])

    def heading(self, sample: int) -> float:
        tangent = self._tangents(np.array([sample]))[0]
        return math.atan2(tangent[1], tangent[0])

    def obstacle(
        self, here: np.ndarray, ahead: np.ndarray, ignored: np.ndarray, parallel_gap_m: float
    ) -> Joint | bool:
        """What a street meets that goes on from `here` towards the unit vector `ahead`.

        A Joint when it can join a street within LOOK_M, True when something is in the way: a bad
        junction, a street within CLEARANCE_M, or a parallel one within the gap. `ignored` streets
        do not count.
        """
        samples = self.near(here, max(parallel_gap_m, LOOK_M + STEP_M))
        samples = samples[(self.owner[samples][:, None] != ignored).all(axis=1)]
        if not samples.size:
            return False
        hit = self._first_hit(here, ahead, samples)
        if hit is not None:
            return hit if self._can_join(hit, ahead) else True
        offset = self.points[samples] - here
        distance = np.hypot(*offset.T)
        parallel = np.abs(self._tangents(samples) @ ahead) > 0.8
        beside = np.abs(offset @ ahead) < STEP_M
        near = (distance < CLEARANCE_M) | ((distance < parallel_gap_m) & parallel & beside)
        return bool(near.any())

    def _first_hit(self, here: np.ndarray, ahead: np.ndarray, samples: np.ndarray) -> Joint | None:
        """Where the ray of LOOK_M first meets a segment that touches one of the samples."""
        samples = np.unique(np.concatenate([samples, np.maximum(samples - 1, 0)]))
        samples = samples[self.owner[samples] == self.owner[samples + 1]]
        a = self.points[samples] - here
        d = self.points[samples + 1] - self.points[samples]
        cross = ahead[0] * d[:, 1] - ahead[1] * d[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = (a[:, 0] * d[:, 1] - a[:, 1] * d[:, 0]) / cross
            share = (a[:, 0] * ahead[1] - a[:, 1] * ahead[0]) / cross
        valid = (reach > 0) & (reach <= LOOK_M) & (share >= 0) & (share < 1)
        if not valid.any():
            return None
        best = np.flatnonzero(valid)[np.argmin(reach[valid])]
        street = int(self.owner[samples[best]])
        return Joint(street, float(samples[best] + share[best]), here + reach[best] * ahead)

    def _can_join(self, joint: Joint, ahead: np.ndarray) -> bool:
        tangent = self._tangents(np.array([int(joint.position)]))[0]
        sine = abs(tangent[0] * ahead[1] - tangent[1] * ahead[0])
        return sine > MIN_JUNCTION_SINE and self.streets[joint.street].has_room(joint.position)

    def _tangents(self, samples: np.ndarray) -> np.ndarray:
        ahead = np.where(self.owner[samples + 1] == self.owner[samples], samples + 1, samples)
        behind = np.where(ahead == samples, samples - 1, samples)
        step = self.points[ahead] - self.points[behind]
        return step / np.maximum(np.hypot(*step.T), 1e-9)[:, None]
