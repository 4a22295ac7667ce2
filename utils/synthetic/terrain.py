"""The ground without its roads: land cover, and the texture of fields, woods, yards, water."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from utils.synthetic.canvas import rgb
from utils.synthetic.style import SceneStyle


@dataclass(frozen=True)
class Land:
    """Land cover of the world, a raster of 1 m: all maps (side, side)."""

    water: np.ndarray  # bool
    settled: np.ndarray  # bool
    wood: np.ndarray  # float32 in 0..1, density of trees
    parcel: np.ndarray  # int32, number of the field
    parcel_edge: np.ndarray  # bool, borders of fields


def fractal_noise(
    rng: np.random.Generator, side: int, wavelength_px: float, octaves: int = 3
) -> np.ndarray:
    """Smooth noise (side, side), float32, of zero mean and unit deviation in expectation."""
    if wavelength_px >= 64:  # long waves need no full resolution
        coarse = fractal_noise(rng, side // 4 + 2, wavelength_px / 4, octaves)
        size = 4 * coarse.shape[0]
        return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)[:side, :side]
    total = np.zeros((side, side), np.float32)
    amplitude, power = 1.0, 0.0
    for _ in range(octaves):
        cells = math.ceil(side / wavelength_px) + 4  # the outermost interpolate to flat borders
        grid = rng.standard_normal((cells, cells), dtype=np.float32)
        size = round(cells * wavelength_px)
        wave = cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
        border = math.ceil(wavelength_px)
        top, left = rng.integers(border, size - side - border + 1, size=2)
        total += amplitude * wave[top : top + side, left : left + side]
        power += amplitude**2 * 0.6  # the interpolation flattens the grid's unit variance
        amplitude *= 0.5
        wavelength_px = max(wavelength_px / 2, 1.0)
    return total / math.sqrt(power)


def draw_land(rng: np.random.Generator, side: int, style: SceneStyle) -> Land:
    """Land cover of a world of `side` metres."""
    water = _water(rng, side, style)
    shore = cv2.dilate(water.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
    settled = _upper_share(fractal_noise(rng, side, 320, 2), style.settled_share) & ~shore
    wood = fractal_noise(rng, side, 170, 4)
    threshold = np.quantile(wood, 1 - min(style.wood_share, 0.9))
    density = np.clip((wood - threshold) * 6, 0, 1)
    density[water] = 0
    parcel = _parcels(rng, side, style.angle + rng.normal(0, 0.3))
    edge = cv2.morphologyEx(parcel.astype(np.float32), cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0
    return Land(water, settled, density.astype(np.float32), parcel, edge)


def paint_ground(rng: np.random.Generator, land: Land, style: SceneStyle) -> np.ndarray:
    """Colour (side, side, 3) float32 in 0..255 of the land without roads and buildings."""
    side = land.water.shape[0]
    palette = style.palette
    patches = fractal_noise(rng, side, 90, 4)
    fine = fractal_noise(rng, side, 2.3, 1) + 0.6 * fractal_noise(rng, side, 9, 2)
    ground = _fields(rng, land, style)
    yards = _blend(_plain(palette.grass, side), palette.soil, 0.18 + 0.22 * patches)
    if style.kind == "urban":
        yards = _blend(yards, (138, 135, 130), 0.34 + 0.35 * fractal_noise(rng, side, 24, 3))
    settled = cv2.GaussianBlur(land.settled.astype(np.float32), (0, 0), 6)
    ground = _blend(ground, yards, settled)
    ground = _blend(ground, palette.floor, cv2.GaussianBlur(land.wood, (0, 0), 3) * 0.9)
    ground *= rgb(1 + 0.07 * patches + 0.065 * fine)
    return _paint_water(rng, ground, land.water, style)


def _water(rng: np.random.Generator, side: int, style: SceneStyle) -> np.ndarray:
    if style.water == "none":
        return np.zeros((side, side), bool)
    height = fractal_noise(rng, side, 330, 3)
    if style.water == "lake":
        return _upper_share(height, rng.uniform(0.05, 0.16))
    # A river is a level line of a bumpy slope, which crosses the world once. Height over steepness
    # is about the distance from it.
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    across = (x - side / 2) * math.cos(angle) + (y - side / 2) * math.sin(angle)
    height = across / 90 + height + rng.uniform(-0.3, 0.3) * side / 90
    steepness = np.hypot(*np.gradient(cv2.GaussianBlur(height, (0, 0), 12))) + 1e-3
    return np.abs(height) / steepness < rng.uniform(9, 22)


def _upper_share(noise: np.ndarray, share: float) -> np.ndarray:
    if share >= 1:
        return np.ones(noise.shape, bool)
    return noise > np.quantile(noise, 1 - share)


def _parcels(rng: np.random.Generator, side: int, angle: float) -> np.ndarray:
    """Numbered rectangles, strips of random width cut at random places, turned by `angle`."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    u = x * math.cos(angle) + y * math.sin(angle) + 2 * side
    v = y * math.cos(angle) - x * math.sin(angle) + 2 * side
    strips = np.cumsum(rng.uniform(50, 150, size=4 * side // 50 + 1))
    column = np.searchsorted(strips, u.ravel()).astype(np.int32)
    # Every strip has its own phase and length of fields.
    length = rng.uniform(80, 240, size=strips.size + 1)[column]
    phase = rng.uniform(0, 240, size=strips.size + 1)[column]
    row = ((v.ravel() + phase) / length).astype(np.int32)
    return ((column * 61 + row * 7) % 1024).reshape(side, side)


def _fields(rng: np.random.Generator, land: Land, style: SceneStyle) -> np.ndarray:
    palette, side = style.palette, land.parcel.shape[0]
    crops = np.array([palette.meadow, *palette.crops, palette.grass], np.float32)
    brightness = rng.normal(1, 0.09, size=(1024, 1)) + rng.normal(0, 0.02, size=(1024, 3))
    colour = crops[rng.integers(0, len(crops), size=1024)] * brightness
    rows = rng.choice([0.0, 0.04, 0.1], size=1024, p=[0.5, 0.3, 0.2]).astype(np.float32)
    turn = rng.choice([0, math.pi / 2], size=1024).astype(np.float32) + np.float32(style.angle)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    parcel = land.parcel
    wave = (2 * math.pi / rng.uniform(3.2, 7.0, size=1024)).astype(np.float32)
    along = x * (wave * np.cos(turn))[parcel] + y * (wave * np.sin(turn))[parcel]
    stripes = rows[parcel] * np.sin(along)
    ground = colour.astype(np.float32)[parcel] * rgb(1 + stripes)
    ground[land.parcel_edge] = np.array(palette.meadow, np.float32) * 0.9
    bare = np.clip(fractal_noise(rng, side, 60, 4) - 1.5, 0, 1)
    return _blend(ground, palette.soil, bare)


def _paint_water(
    rng: np.random.Generator, ground: np.ndarray, water: np.ndarray, style: SceneStyle
) -> np.ndarray:
    if not water.any():
        return ground
    side = water.shape[0]
    mask = water.astype(np.float32)
    bank = cv2.GaussianBlur(mask, (0, 0), 4) * (1 - mask)
    ground = _blend(ground, style.palette.soil, 1.2 * bank)
    colour = _plain(style.palette.water, side)
    colour *= rgb(1 + 0.05 * fractal_noise(rng, side, 60, 3))
    return _blend(ground, colour, cv2.GaussianBlur(mask, (0, 0), 0.8))


def _plain(colour: tuple[int, int, int], side: int) -> np.ndarray:
    return np.full((side, side, 3), colour, np.float32)


def _blend(under: np.ndarray, over: np.ndarray | tuple, alpha: np.ndarray) -> np.ndarray:
    change = np.asarray(over, np.float32) - under
    change *= rgb(np.clip(alpha, 0, 1).astype(np.float32))
    change += under
    return change
