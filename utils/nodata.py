"""Blank areas: the white or black that surrounds a scene which does not fill its rectangle.

What tells a blank area from a bright roof or dark water:

- It is exactly 255 (or 0) over whole blocks of 8 x 8 pixels: fill is constant, ground is not.
  A JPEG disturbs fill in the blocks where it meets the ground, and a thin wedge all over. So from
  such a core the area goes on over connected pixels of at least 248 (at most 7), and then by one
  block over pixels of at least 240 (at most 15).
- It reaches a corner. When the ground that a scene shows is convex, as a sensor's footprint is,
  everything that a rectangle cut from it leaves blank touches one of the rectangle's corners. An
  overexposed roof is rarely there. An area that reaches none must make up a quarter of the image.
- It has at least 256 pixels and 0.25 % of the image.

A blank area of exact black over water of exactly 0 in all bands cannot be told from the water;
both are then taken for blank.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

BLOCK_PX = 8
MIN_AREA_PX = 256
MIN_SHARE = 0.0025
MIN_SHARE_WITHOUT_CORNER = 0.25
#: Greatest difference from 255 or 0: of what belongs to an area, and of its disturbed rim.
AREA_TOLERANCE = 7
RIM_TOLERANCE = 15

_BLOCK = np.ones((BLOCK_PX, BLOCK_PX), np.uint8)
_BLOCK_AROUND = np.ones((2 * BLOCK_PX + 1, 2 * BLOCK_PX + 1), np.uint8)


def blank_areas(image: np.ndarray) -> np.ndarray:
    """bool H W, True where `image` (uint8 H W 3) belongs to a blank white or black area."""
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, image.shape
    return _blank(image, 255) | _blank(image, 0)


def _blank(image: np.ndarray, fill: int) -> np.ndarray:
    """The areas of one fill value."""
    none = np.zeros(image.shape[:2], bool)
    # Every block of 8 x 8 has a pixel in this grid: most images end here.
    grid = np.ascontiguousarray(image[::BLOCK_PX, ::BLOCK_PX])
    if not cv2.countNonZero(cv2.inRange(grid, (fill,) * 3, (fill,) * 3)):
        return none
    difference = _difference(image, fill)
    fills = _up_to(difference, 0)
    cores = cv2.erode(fills, _BLOCK, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    if not cv2.countNonZero(cores):
        return none
    area = _areas(_up_to(difference, AREA_TOLERANCE), cores)
    if area is None:
        return none
    return (area | (cv2.dilate(area, _BLOCK_AROUND) & _up_to(difference, RIM_TOLERANCE))) > 0


def _difference(image: np.ndarray, fill: int) -> np.ndarray:
    """uint8 H W: how far the channel that differs most from `fill` does."""
    first, second, third = cv2.split(image)
    if fill == 0:
        return cv2.max(cv2.max(first, second), third)
    return 255 - cv2.min(cv2.min(first, second), third)


def _up_to(difference: np.ndarray, tolerance: int) -> np.ndarray:
    """uint8 H W, 255 where the difference is `tolerance` or less."""
    return cv2.threshold(difference, tolerance, 255, cv2.THRESH_BINARY_INV)[1]


def _areas(flat: np.ndarray, cores: np.ndarray) -> np.ndarray | None:
    """uint8 H W, not 0 in the connected parts of `flat` that are blank areas; None without any.

    Parts at the corners are filled from there, which is quicker than numbering all parts: of
    these there may be thousands.
    """
    min_area = max(MIN_AREA_PX, MIN_SHARE * flat.size)
    kept = np.zeros_like(flat)
    for x, y in _flat_at_corners(flat):
        if flat[y, x] != 255:
            continue  # of a part that was seen
        area, _, _, (left, top, width, height) = cv2.floodFill(flat, None, (x, y), 1)
        box = slice(top, top + height), slice(left, left + width)
        part = cv2.inRange(flat[box], 1, 1)
        if area >= min_area and cv2.countNonZero(part & cores[box]):
            kept[box] |= part
        flat[box][part > 0] = 0
    least = max(min_area, MIN_SHARE_WITHOUT_CORNER * flat.size)
    if cv2.countNonZero(flat) >= least:
        _, parts, stats, _ = cv2.connectedComponentsWithStats(flat, connectivity=4)
        for number in np.flatnonzero(stats[:, cv2.CC_STAT_AREA] >= least):
            part = cv2.inRange(parts, int(number), int(number))
            if number and cv2.countNonZero(part & cores):  # 0 is what is not flat
                kept |= part
    return kept if kept.any() else None


def _flat_at_corners(flat: np.ndarray) -> Iterator[tuple[int, int]]:
    """x and y of the flat pixels within a block of a corner."""
    H, W = flat.shape
    for top in {0, max(0, H - BLOCK_PX)}:
        for left in {0, max(0, W - BLOCK_PX)}:
            for y, x in np.argwhere(flat[top : top + BLOCK_PX, left : left + BLOCK_PX]).tolist():
                yield left + x, top + y
