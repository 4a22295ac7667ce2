"""Blank areas: the white or black that surrounds a scene which does not fill its rectangle.

What tells a blank area from a bright roof or dark water:

- It is exactly 255 (or 0) over whole blocks of 8 x 8 pixels: fill is constant, ground is not.
  A JPEG disturbs fill in the blocks where it meets the ground, and a thin wedge all over. So from
  such a core the area goes on over connected pixels of at least 248 (at most 7), and then by one
  block over pixels of at least 240 (at most 15).
- It reaches a corner. When the ground that a scene shows is convex, as a sensor's footprint is,
  everything that a rectangle cut from it leaves blank touches one of the rectangle's corners. An
  overexposed roof is rarely there. An area that reaches none must make up a quarter of the image.
- It has at least 256 pixels.

A blank area of exact black over water of exactly 0 in all bands cannot be told from the water;
both are then taken for blank.
"""

from __future__ import annotations

import cv2
import numpy as np

BLOCK_PX = 8
MIN_AREA_PX = 256
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
    core = _near(image, fill, 0)
    if cv2.countNonZero(core) < BLOCK_PX**2:
        return none  # most images end here
    core = cv2.morphologyEx(core, cv2.MORPH_OPEN, _BLOCK)
    if not cv2.countNonZero(core):
        return none
    area = _parts_with(core, _near(image, fill, AREA_TOLERANCE))
    area |= cv2.dilate(area, _BLOCK_AROUND) & _near(image, fill, RIM_TOLERANCE)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(area, connectivity=8)
    sizes = stats[:, cv2.CC_STAT_AREA]
    keep = sizes >= MIN_SHARE_WITHOUT_CORNER * parts.size
    keep[_at_corners(parts)] = True
    keep &= sizes >= MIN_AREA_PX
    keep[0] = False  # the ground
    return keep[parts]


def _near(image: np.ndarray, fill: int, tolerance: int) -> np.ndarray:
    """uint8 H W, 255 where every channel differs from `fill` by `tolerance` or less."""
    low, high = max(0, fill - tolerance), min(255, fill + tolerance)
    return cv2.inRange(image, (low,) * 3, (high,) * 3)


def _parts_with(core: np.ndarray, area: np.ndarray) -> np.ndarray:
    """The connected parts of `area` that hold pixels of `core`."""
    count, parts = cv2.connectedComponents(area, connectivity=4)
    keep = np.zeros(count, np.uint8)
    keep[parts[core > 0]] = 255
    keep[0] = 0  # opening lets a core reach a few pixels out of its area at the image's border
    return keep[parts]


def _at_corners(parts: np.ndarray) -> np.ndarray:
    """Numbers of the parts that come within a block of a corner; 0, the rest, may be among them."""
    ends = slice(None, BLOCK_PX), slice(-BLOCK_PX, None)
    corners = [parts[rows, columns].ravel() for rows in ends for columns in ends]
    return np.unique(np.concatenate(corners))
