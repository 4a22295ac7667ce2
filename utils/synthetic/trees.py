"""Trees: where they stand, and how their crowns look from above."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from utils.synthetic.canvas import rgb
from utils.synthetic.network import Road
from utils.synthetic.style import SceneStyle
from utils.synthetic.terrain import Land, fractal_noise


@dataclass(frozen=True)
class Trees:
    """N trees: centres (N, 2) in world metres, crown radii in metres, index of the species."""

    centre: np.ndarray
    radius: np.ndarray
    species: np.ndarray


@dataclass(frozen=True)
class Crowns:
    """The trees' layer: colour (side, side, 3) float32 and opacity (side, side) in 0..1."""

    colour: np.ndarray
    opacity: np.ndarray


def plant(
    rng: np.random.Generator,
    land: Land,
    style: SceneStyle,
    roads: list[Road],
    on_road: np.ndarray,
    on_roof: np.ndarray,
) -> Trees:
    """Woods, hedges, gardens and street trees; crowns may hang over roads, trunks do not stand on
    them. `on_road` and `on_roof` are bool (side, side)."""
    side = land.water.shape[0]
    centres = np.concatenate(
        [
            _woods(rng, land),
            _scattered(rng, land, style, side),
            _hedges(rng, land),
            *[_avenue(rng, road) for road in roads if rng.random() < _avenue_rate(style)],
        ]
    )
    inside = ((centres >= 0) & (centres < side)).all(axis=1)
    centres = centres[inside]
    x, y = centres.astype(int).T
    free = ~on_road[y, x] & ~on_roof[y, x] & ~land.water[y, x]
    centres = centres[free]
    radius = np.clip(rng.lognormal(1.25, 0.28, size=len(centres)), 1.8, 7.0)
    stands = fractal_noise(rng, side, 120, 2)  # neighbours are often of one kind
    x, y = centres.astype(int).T
    kinds = len(style.palette.trees)
    species = np.clip(
        (stands[y, x] * 0.9 + rng.normal(0, 0.5, size=len(centres)) + 1.2) * kinds / 2.4,
        0,
        kinds - 1,
    ).astype(int)
    return Trees(centres, radius, species)


def paint_crowns(rng: np.random.Generator, side: int, trees: Trees, style: SceneStyle) -> Crowns:
    """Shaded crowns: every pixel belongs to the nearest tree, and to its crown when close."""
    if not len(trees.centre):
        return Crowns(np.zeros((side, side, 3), np.float32), np.zeros((side, side), np.float32))
    nearest = _nearest_tree(side, trees.centre)
    y, x = np.mgrid[:side, :side].astype(np.float32) + 0.5
    centre = trees.centre.astype(np.float32)
    radius = trees.radius.astype(np.float32)[nearest]
    dx = (x - centre[:, 0][nearest]) / radius
    dy = (y - centre[:, 1][nearest]) / radius
    leaves = rng.standard_normal((side, side), dtype=np.float32)
    leaves = cv2.GaussianBlur(leaves, (0, 0), 0.7) * 2.2
    distance = np.sqrt(dx * dx + dy * dy) + 0.14 * leaves
    opacity = np.clip((1 - distance) * radius + 0.4, 0, 1)
    opaque = np.full(len(style.palette.trees), style.palette.tree_opacity, np.float32)
    opaque[0] = 1.0  # conifers keep their needles
    opacity *= opaque[trees.species][nearest]
    sun = np.float32(style.shadow_direction)
    facing = -(dx * sun[0] + dy * sun[1])
    shade = 0.98 + 0.3 * facing - 0.22 * distance**2 + 0.09 * leaves
    tint = np.array(style.palette.trees, np.float32)[trees.species]
    tint = tint * rng.normal(1, 0.11, size=(len(tint), 1)).astype(np.float32)
    colour = tint.astype(np.float32)[nearest] * rgb(np.clip(shade, 0.35, 1.6))
    return Crowns(colour, opacity)


def _nearest_tree(side: int, centre: np.ndarray) -> np.ndarray:
    """The index of the nearest trunk for every pixel, (side, side)."""
    free = np.ones((side, side), np.uint8)
    x, y = centre.astype(int).T
    free[y, x] = 0
    _, label = cv2.distanceTransformWithLabels(
        free, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    tree_of_label = np.zeros(label.max() + 1, np.int32)
    tree_of_label[label[y, x]] = np.arange(len(centre))
    return tree_of_label[label]


def _jittered_grid(rng: np.random.Generator, side: int, spacing_m: float) -> np.ndarray:
    steps = np.arange(0, side, spacing_m)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    return np.clip(grid + rng.uniform(0, spacing_m, size=grid.shape), 0, side - 1)


def _kept(rng: np.random.Generator, points: np.ndarray, odds: np.ndarray) -> np.ndarray:
    x, y = points.astype(int).T
    return points[rng.random(len(points)) < odds[y, x]]


def _woods(rng: np.random.Generator, land: Land) -> np.ndarray:
    points = _jittered_grid(rng, land.water.shape[0], 5.0)
    return _kept(rng, points, land.wood * 0.8)


def _scattered(rng: np.random.Generator, land: Land, style: SceneStyle, side: int) -> np.ndarray:
    """Garden trees in clumps, and a few in the open country."""
    clumps = np.clip(fractal_noise(rng, side, 40, 3) * 0.5 + 0.6, 0, 1.5)
    gardens = {"urban": 0.13, "suburban": 0.26, "rural": 0.3, "mixed": 0.28}[style.kind]
    if style.season == "dry":
        gardens *= 0.5
    odds = np.where(land.settled, gardens, 0.015) * clumps
    return _kept(rng, _jittered_grid(rng, side, 7.0), odds)


def _hedges(rng: np.random.Generator, land: Land) -> np.ndarray:
    y, x = np.nonzero(land.parcel_edge & ~land.settled)
    hedged = rng.random(1024) < 0.3
    chosen = hedged[land.parcel[y, x]] & (rng.random(len(x)) < 0.06)
    return np.stack([x[chosen], y[chosen]], axis=1) + rng.normal(0, 0.8, size=(chosen.sum(), 2))


def _avenue_rate(style: SceneStyle) -> float:
    return {"urban": 0.6, "suburban": 0.6, "rural": 0.4, "mixed": 0.5}[style.kind]


def _avenue(rng: np.random.Generator, road: Road) -> np.ndarray:
    """Trees beside a stretch of a road, near enough for crowns to hide a part of it."""
    steps = np.diff(road.points, axis=0)
    start, stop = np.sort(rng.uniform(0, 1, size=2))
    count = max(int(np.hypot(*steps.T).sum() * (stop - start) / rng.uniform(6, 14)), 1)
    place = rng.uniform(start, stop, size=count) * (len(steps) - 1e-6)
    i = place.astype(int)
    along = steps[i] / np.maximum(np.hypot(*steps[i].T), 1e-9)[:, None]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) * rng.choice((-1, 1), size=(count, 1))
    offset = road.width_m / 2 + rng.uniform(0.3, 4.0, size=(count, 1))
    return road.points[i] + steps[i] * (place - i)[:, None] + across * offset
