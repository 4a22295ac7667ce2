"""Blocks of a scene without its blank areas, the fill that no nodata value tells of."""

from __future__ import annotations

import numpy as np

from utils.nodata import BLOCK_PX, blank_areas
from utils.raster import Raster, read_window
from utils.scenes.plan import Window

#: A block is looked at with so much around it that its neighbours find the same in it.
HALO_PX = 128


def read_block(raster: Raster, window: Window, ignore_blank: bool) -> tuple[np.ndarray, np.ndarray]:
    """`read_window`; with `ignore_blank` a blank area has no data either (`utils.nodata`)."""
    image, valid = read_window(raster, *window)
    if not ignore_blank or not _has_fill(image, valid):
        return image, valid
    around = window.grown(HALO_PX, raster.grid_shape)
    image, valid = read_window(raster, *around)
    valid &= ~_blank(raster, image)
    rows, columns = window.within(around)
    return np.ascontiguousarray(image[:, rows, columns]), valid[rows, columns]


def _has_fill(image: np.ndarray, valid: np.ndarray) -> bool:
    """Whether there may be a blank area: each has some of these pixels."""
    grid = image[:, ::BLOCK_PX, ::BLOCK_PX]
    fill = (grid == 255).all(axis=0) | (grid == 0).all(axis=0)
    return bool((fill & valid[::BLOCK_PX, ::BLOCK_PX]).any())


def _blank(raster: Raster, image: np.ndarray) -> np.ndarray:
    if raster.limits is not None:
        # 255 is the brightest of the ground there, and only 0 was 0 before the stretch.
        image = np.where(image.any(axis=0), np.uint8(128), np.uint8(0))[None].repeat(3, axis=0)
    return blank_areas(np.ascontiguousarray(image.transpose(1, 2, 0)))  # CHW -> HWC
