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
    if not (image[::BLOCK_PX, ::BLOCK_PX] == fill).all(axis=2).any():
        return none
    cores = cv2.erode(_near(image, fill, 0), _BLOCK, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    if not cv2.countNonZero(cores):
        return none
    flat = _near(image, fill, AREA_TOLERANCE)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(flat, connectivity=4)
    sizes = stats[:, cv2.CC_STAT_AREA]
    has_core = np.zeros(count, bool)
    has_core[parts[cores > 0]] = True
    keep = sizes >= MIN_SHARE_WITHOUT_CORNER * parts.size
    keep[_at_corners(parts)] = True
    keep &= has_core & (sizes >= max(MIN_AREA_PX, MIN_SHARE * parts.size))
    if not keep.any():
        return none
    area = keep[parts].view(np.uint8)
    return (area | (cv2.dilate(area, _BLOCK_AROUND) & _near(image, fill, RIM_TOLERANCE))) > 0


def _near(image: np.ndarray, fill: int, tolerance: int) -> np.ndarray:
    """uint8 H W, 255 where every channel differs from `fill` by `tolerance` or less."""
    low, high = max(0, fill - tolerance), min(255, fill + tolerance)
    return cv2.inRange(image, (low,) * 3, (high,) * 3)


def _at_corners(parts: np.ndarray) -> np.ndarray:
    """Numbers of the parts that come within a block of a corner."""
    ends = slice(None, BLOCK_PX), slice(-BLOCK_PX, None)
    corners = [parts[rows, columns].ravel() for rows in ends for columns in ends]
    return np.unique(np.concatenate(corners))
