"""Houses, blocks, parking lots and driveways along the streets: much of it in road colours."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np

from utils.synthetic.canvas import rectangle
from utils.synthetic.network import Road
from utils.synthetic.style import Colour, SceneStyle
from utils.synthetic.terrain import Land

ROOFS: dict[str, tuple[Colour, ...]] = {
    "urban": ((92, 92, 94), (128, 126, 122), (176, 174, 170), (208, 206, 202), (112, 96, 86)),
    "pitched": ((84, 82, 84), (106, 98, 92), (124, 90, 78), (146, 140, 132), (74, 70, 70)),
    "dry": ((172, 118, 92), (186, 140, 112), (206, 198, 186), (150, 140, 130), (160, 104, 84)),
}
DRIVEWAYS: tuple[Colour, ...] = ((100, 99, 99), (138, 136, 133), (174, 170, 162))


@dataclass(frozen=True)
class Building:
    """A house in the plane of the ground, in metres."""

    corners: np.ndarray  # (4, 2), the first side is parallel to the ridge
    roof: Colour
    height_m: float
    flat: bool


@dataclass(frozen=True)
class Lot:
    """A parking lot; cars stand in rows along its first side."""

    centre: np.ndarray
    along: np.ndarray
    length_m: float
    depth_m: float
    colour: Colour


@dataclass
class Settlement:
    """What was built; a driveway is its points, its width in metres and its colour."""

    buildings: list[Building] = field(default_factory=list)
    lots: list[Lot] = field(default_factory=list)
    driveways: list[tuple[np.ndarray, float, Colour]] = field(default_factory=list)


class Builder:
    """Places things where neither a road nor another thing is."""

    def __init__(self, rng: np.random.Generator, land: Land, style: SceneStyle) -> None:
        self.rng, self.land, self.style = rng, land, style
        self.taken = land.water.astype(np.uint8)
        self.result = Settlement()

    def settle(self, roads: list[Road]) -> Settlement:
        """Lots and buildings along all roads, and the ways that lead to them."""
        for road in roads:
            cv2.polylines(
                self.taken,
                [np.round(road.points).astype(np.int32)],
                False,
                1,
                round(road.width_m) + 4,
            )
        for road in roads:
            self._line_with_lots(road)
        for road in roads:
            self._line_with_houses(road)
        return self.result

    def _line_with_lots(self, road: Road) -> None:
        rate = {"urban": 0.65, "mixed": 0.4, "suburban": 0.3, "rural": 0.12}[self.style.kind]
        for place, along, outwards in self._frontage(road, 70):
            if self.rng.random() > rate * (1.6 if road.main else 1.0):
                continue
            length, depth = self.rng.uniform(26, 60), self.rng.uniform(20, 42)
            distance = road.width_m / 2 + self.rng.uniform(3, 7) + depth / 2
            centre = place + outwards * distance
            if self._claim(rectangle(centre, along, length, depth)):
                colour = self._jittered(DRIVEWAYS[self.rng.integers(0, len(DRIVEWAYS))], 8)
                self.result.lots.append(Lot(centre, along, length, depth, colour))
                self._driveway(place, centre, 5.0, colour)
                self._block(centre + outwards * (depth / 2 + 14), along)

    def _line_with_houses(self, road: Road) -> None:
        urban = self.style.kind == "urban"
        for place, along, outwards in self._frontage(road, 15 if urban else 21):
            if self.rng.random() > (0.9 if urban else 0.72):
                continue
            if urban and self.rng.random() < 0.35:
                self._block(place + outwards * (road.width_m / 2 + 18), along)
                continue
            length, depth = self.rng.uniform(9, 15), self.rng.uniform(8, 12)
            setback = self.rng.uniform(4, 8) if urban else self.rng.uniform(8, 17)
            centre = place + outwards * (road.width_m / 2 + setback + depth / 2)
            along = _turned(along, self.rng.normal(0, 0.03 if urban else 0.12))
            if self._claim(rectangle(centre, along, length, depth)):
                self._house(centre, along, length, depth)
                if self.rng.random() < 0.75:
                    side = along * length * 0.3 * self.rng.choice((-1, 1))
                    colour = self._jittered(DRIVEWAYS[self.rng.integers(0, len(DRIVEWAYS))], 8)
                    self._driveway(place + side, centre + side, 3.0, colour)

    def _frontage(
        self, road: Road, spacing_m: float
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(place on the centre line, unit vector along, unit vector outwards) on settled land."""
        steps = np.diff(road.points, axis=0)
        lengths = np.hypot(*steps.T)
        ends = np.cumsum(lengths)
        for side in (-1, 1):
            position = self.rng.uniform(0, spacing_m)
            while position < ends[-1]:
                i = int(np.searchsorted(ends, position))
                along = steps[i] / max(lengths[i], 1e-9)
                place = road.points[i] + along * (position - ends[i] + lengths[i])
                position += spacing_m * self.rng.uniform(0.8, 1.5)
                x, y = place.astype(int)
                if self.land.settled[y, x] or self.rng.random() < 0.08:
                    yield place, along, side * np.array([-along[1], along[0]])

    def _block(self, centre: np.ndarray, along: np.ndarray) -> None:
        length, depth = self.rng.uniform(16, 44), self.rng.uniform(14, 26)
        corners = rectangle(centre, along, length, depth)
        if self._claim(corners):
            colours = ROOFS["urban"]
            roof = self._jittered(colours[self.rng.integers(0, len(colours))], 9)
            self.result.buildings.append(Building(corners, roof, self.rng.uniform(5, 16), True))

    def _house(self, centre: np.ndarray, along: np.ndarray, length: float, depth: float) -> None:
        colours = ROOFS["dry" if self.style.season == "dry" else "pitched"]
        roof = self._jittered(colours[self.rng.integers(0, len(colours))], 9)
        corners = rectangle(centre, along, length, depth)
        self.result.buildings.append(Building(corners, roof, self.rng.uniform(4, 7), False))
        if self.rng.random() < 0.4:  # an L-shaped house
            across = np.array([-along[1], along[0]]) * self.rng.choice((-1, 1))
            wing = centre + along * length * self.rng.uniform(-0.25, 0.25) + across * depth * 0.5
            corners = rectangle(wing, across, depth * 0.9, length * 0.45)
            if not self._blocked_by_road(corners):
                self.result.buildings.append(Building(corners, roof, 4.0, False))

    def _driveway(self, a: np.ndarray, b: np.ndarray, width_m: float, colour: Colour) -> None:
        self.result.driveways.append((np.stack([a, b]), width_m, colour))

    def _claim(self, corners: np.ndarray) -> bool:
        """Take this ground if all of it is free and inside the world."""
        low, mask = _rasterised(corners)
        high = low + mask.shape[::-1]
        if low.min() < 0 or high.max() > self.taken.shape[0]:
            return False
        patch = self.taken[low[1] : high[1], low[0] : high[0]]
        if (patch & mask).any():
            return False
        patch |= mask * 2
        return True

    def _blocked_by_road(self, corners: np.ndarray) -> bool:
        low, mask = _rasterised(corners)
        high = low + mask.shape[::-1]
        if low.min() < 0 or high.max() > self.taken.shape[0]:
            return True
        return bool((self.taken[low[1] : high[1], low[0] : high[0]] & mask & 1).any())

    def _jittered(self, colour: Colour, amount: float) -> Colour:
        shift = self.rng.normal(0, amount) + self.rng.normal(0, amount / 4, size=3)
        r, g, b = np.clip(np.array(colour) + shift, 20, 245).astype(int).tolist()
        return r, g, b


def _rasterised(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower corner (x, y) and filled mask (H, W) of a polygon's bounding box."""
    low = np.floor(corners.min(axis=0)).astype(int) - 1
    size = np.ceil(corners.max(axis=0)).astype(int) + 2 - low
    mask = np.zeros((size[1], size[0]), np.uint8)
    cv2.fillConvexPoly(mask, np.round(corners - low).astype(np.int32), 3)
    return low, mask


def _turned(vector: np.ndarray, angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([c * vector[0] - s * vector[1], s * vector[0] + c * vector[1]])
