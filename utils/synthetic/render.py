"""The picture of a scene: ground, paving, shadows, roofs, trees and the sensor, bottom to top."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from utils.synthetic.buildings import Building, Lot, Settlement
from utils.synthetic.canvas import SCALE, Canvas, Layer, rectangle, rgb
from utils.synthetic.network import Road
from utils.synthetic.style import Colour, SceneStyle
from utils.synthetic.terrain import fractal_noise
from utils.synthetic.trees import Crowns, Trees

SURFACES: dict[str, Colour] = {
    "asphalt": (92, 92, 96),
    "worn": (134, 132, 130),
    "concrete": (176, 172, 164),
    "gravel": (172, 156, 130),
}
CARS: tuple[Colour, ...] = (
    (226, 226, 226), (40, 42, 46), (150, 152, 156), (132, 44, 40), (52, 70, 110), (190, 184, 170),
)  # fmt: skip


def draw_label(roads: list[Road], side: int) -> np.ndarray:
    """Road mask (side, side), uint8 0/255: pixels of which at least half is road."""
    canvas = Canvas(side, channels=1)
    for road in roads:
        canvas.line(road.points, road.width_m)
    return np.where(canvas.coverage() >= 0.5, 255, 0).astype(np.uint8)


class Paving:
    """Everything flat and built, on one canvas: verges, drives, lots, roads, markings, cars."""

    def __init__(self, rng: np.random.Generator, side: int, style: SceneStyle) -> None:
        self.rng, self.style = rng, style
        self.canvas = Canvas(side)

    def draw(self, roads: list[Road], settlement: Settlement) -> Layer:
        """All of it, from the ground upwards; main roads lie over others."""
        ordered = sorted(roads, key=lambda road: (road.surface != "gravel", road.main))
        for road in ordered:
            self._verge(road)
        for points, width_m, colour in settlement.driveways:
            self.canvas.line(points, width_m, colour)
        for lot in settlement.lots:
            self._lot(lot)
        for road in ordered:
            tone = np.array(SURFACES[road.surface]) + self.rng.normal(0, 16)
            self.canvas.line(road.points, road.width_m, tuple(tone))
        for road in ordered:
            self._markings(road)
            self._traffic(road)
        return self.canvas.layer()

    def _verge(self, road: Road) -> None:
        if self.style.kind == "urban":
            self.canvas.line(road.points, road.width_m + 6, (158, 154, 146))
        elif self.rng.random() < 0.4:
            self.canvas.line(road.points, road.width_m + 3, self.style.palette.soil)

    def _lot(self, lot: Lot) -> None:
        self.canvas.polygon(rectangle(lot.centre, lot.along, lot.length_m, lot.depth_m), lot.colour)
        across = np.array([-lot.along[1], lot.along[0]])
        filled = self.rng.uniform(0.1, 0.9)
        for row in np.arange(-lot.depth_m / 2 + 4, lot.depth_m / 2 - 2, 8.5):
            for stall in np.arange(-lot.length_m / 2 + 3, lot.length_m / 2 - 2, 2.8):
                if self.rng.random() < filled:
                    centre = lot.centre + across * row + lot.along * stall
                    self._car(centre, across)

    def _markings(self, road: Road) -> None:
        if road.surface == "gravel" or (not road.main and self.rng.random() < 0.7):
            return
        colour = (206, 176, 84) if self.rng.random() < 0.4 else (214, 212, 206)
        if road.main:
            self.canvas.line(road.points, 1 / SCALE, colour)
        else:
            for a, b in zip(road.points[::2], road.points[1::2], strict=False):
                self.canvas.line(np.stack([a, b]), 1 / SCALE, colour)

    def _traffic(self, road: Road) -> None:
        steps = np.diff(road.points, axis=0)
        length = float(np.hypot(*steps.T).sum())
        per_metre = 0.02 if self.style.kind == "urban" else 0.006
        for _ in range(self.rng.poisson(length * per_metre)):
            i = int(self.rng.integers(0, len(steps)))
            along = steps[i] / max(np.hypot(*steps[i]), 1e-9)
            lane = road.width_m * self.rng.choice((-0.25, 0.25, -0.38, 0.38))
            self._car(road.points[i] + lane * np.array([-along[1], along[0]]), along)

    def _car(self, centre: np.ndarray, along: np.ndarray) -> None:
        colour = CARS[self.rng.integers(0, len(CARS))]
        self.canvas.polygon(rectangle(centre, along, 4.4, 1.9), colour)


def draw_roofs(
    rng: np.random.Generator, buildings: Iterable[Building], side: int, style: SceneStyle
) -> Layer:
    """Roofs lit by the sun: two slopes, or a flat roof with what stands on it."""
    canvas = Canvas(side)
    for building in buildings:
        if building.flat:
            _flat_roof(rng, canvas, building)
        else:
            _gable_roof(canvas, building, np.array(style.shadow_direction))
    return canvas.layer()


def _flat_roof(rng: np.random.Generator, canvas: Canvas, building: Building) -> None:
    corners, roof = building.corners, np.array(building.roof, float)
    middle = corners.mean(axis=0)
    canvas.polygon(corners, tuple(roof * 1.12))
    canvas.polygon(middle + (corners - middle) * 0.93, tuple(roof))
    a, b, _, d = corners
    along = (b - a) / np.hypot(*(b - a))
    for _ in range(rng.poisson(2)):  # ventilation
        u, v = rng.uniform(0.15, 0.85, size=2)
        box = rectangle(a + u * (b - a) + v * (d - a), along, 2.6, 2.0)
        canvas.polygon(box, tuple(roof * rng.choice((0.7, 1.3))))


def _gable_roof(canvas: Canvas, building: Building, shadow_direction: np.ndarray) -> None:
    a, b, c, d = building.corners
    ridge = [(b + c) / 2, (a + d) / 2]
    for eaves, outwards in (((a, b), a - d), ((d, c), d - a)):
        facing = -float(outwards @ shadow_direction) / max(np.hypot(*outwards), 1e-9)
        roof = np.array(building.roof) * (1 + 0.2 * facing)
        canvas.polygon(np.stack([*eaves, *ridge]), tuple(roof))


def draw_shadows(
    buildings: list[Building], trees: Trees, crowns: Crowns, side: int, style: SceneStyle
) -> np.ndarray:
    """The share of each pixel in shadow, (side, side) float32 in 0..1."""
    canvas = Canvas(side, channels=1)
    reach = np.array(style.shadow_direction) * style.shadow_length
    for building in buildings:
        moved = building.corners + reach * building.height_m
        hull = cv2.convexHull(np.concatenate([building.corners, moved]).astype(np.float32))
        canvas.polygon(hull[:, 0])
    shadow = canvas.coverage()
    for share in (0.4, 0.8, 1.2):
        dx, dy = reach * 6 * share
        move = np.float32([[1, 0, dx], [0, 1, dy]])
        crown = cv2.warpAffine(crowns.opacity, move, (side, side), flags=cv2.INTER_LINEAR)
        shadow = np.maximum(shadow, crown * 0.9)
    return cv2.GaussianBlur(shadow, (0, 0), 0.6)


def expose(rng: np.random.Generator, scene: np.ndarray, style: SceneStyle) -> np.ndarray:
    """What the sensor makes of it: uint8 RGB of the same size."""
    gain = np.float32(style.gain) * (1 - style.haze) / 255
    veil = np.float32((176, 182, 190)) * style.haze / 255
    scene = cv2.transform(scene, np.column_stack([np.diag(gain), veil]))
    scene = cv2.GaussianBlur(scene, (0, 0), style.blur_px)
    scene = 255 * cv2.pow(np.clip(scene, 0, 1), style.gamma)
    scene += np.float32(style.noise) * rng.standard_normal(scene.shape, dtype=np.float32)
    return np.clip(np.round(scene), 0, 255).astype(np.uint8)


def shade(ground: np.ndarray, shadow: np.ndarray, style: SceneStyle) -> np.ndarray:
    """The ground in the shadow's light, which is the blue of the sky."""
    dark = (1 - style.shadow_strength) * np.float32((0.94, 1.0, 1.1))
    return ground - ground * rgb(shadow) * (1 - dark)


def weather(rng: np.random.Generator, paved: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Patches, stains and grain on the paved share of the ground."""
    side = cover.shape[0]
    stains = 0.05 * fractal_noise(rng, side, 24, 3) + 0.035 * fractal_noise(rng, side, 3, 2)
    return paved * rgb(1 + stains * cover)
