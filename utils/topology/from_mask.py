"""Road mask to road graph: skeleton, pixel graph, spur removal, simplification."""

from __future__ import annotations

import numpy as np
from affine import Affine
from scipy.ndimage import label, map_coordinates
from skimage.morphology import skeletonize

from utils.topology.connect import JoinRule, join_gaps
from utils.topology.graph import RoadGraph
from utils.topology.grid import PixelGrid
from utils.topology.skeleton import skeleton_lines
from utils.topology.sketch import RoadSketch

#: Holes up to this size are closed, dead ends and whole roads below this length are dropped.
MAX_HOLE_M2 = 25.0
MIN_SPUR_M = 10.0


def mask_to_graph(
    mask: np.ndarray,
    pixel_size_m: float = 1.0,
    *,
    max_hole_m2: float = MAX_HOLE_M2,
    min_spur_m: float = MIN_SPUR_M,
    simplify_m: float = 1.0,
    join: JoinRule | None = None,
    probability: np.ndarray | None = None,
    transform: Affine | None = None,
    crs: str | None = None,
    target_crs: str | None = None,
) -> RoadGraph:
    """The road graph of a boolean H x W mask, in metres.

    Holes up to `max_hole_m2` are closed first; dead ends shorter than `min_spur_m`, and whole
    roads shorter than that, are dropped; polylines stray up to `simplify_m` from the skeleton
    (Douglas-Peucker). `join` closes gaps, by `probability` (H x W) where the rule asks for it.

    Without `crs`, a pixel's place is its centre times `pixel_size_m`, y pointing down. With the
    `transform` (rasterio's) and `crs` of the raster, places are in `target_crs`, by default
    `crs` itself when metric, else the UTM zone of the mask's centre, and the pixel size is
    measured. Raises ValueError for a mask that is not H x W bool and for impossible settings.
    """
    if mask.ndim != 2 or mask.dtype != bool:
        raise ValueError(f"expected a mask of H x W bool, got {mask.dtype} of shape {mask.shape}")
    if probability is not None and probability.shape != mask.shape:
        raise ValueError(f"probability is {probability.shape}, the mask {mask.shape}")
    if not (min_spur_m >= 0 and simplify_m >= 0 and max_hole_m2 >= 0):
        raise ValueError("max_hole_m2, min_spur_m and simplify_m must be 0 or more")
    grid = PixelGrid.of(mask.shape, pixel_size_m, transform, crs, target_crs)
    sketch = RoadSketch()
    for line_px in skeleton_lines(skeletonize(without_holes(mask, max_hole_m2, grid.pixel_size_m))):
        sketch.add(grid.to_ground(line_px))
    sketch.merge_chains()
    sketch.drop_spurs(min_spur_m)
    if join is not None:
        along = None if probability is None else lambda ends: _mean_along(probability, grid, ends)
        join_gaps(sketch, join, along)
    return sketch.to_graph(simplify_m, grid.target_crs)


def without_holes(mask: np.ndarray, max_hole_m2: float, pixel_size_m: float) -> np.ndarray:
    """The mask (bool H x W) with its holes up to `max_hole_m2` closed."""
    max_hole_px = int(max_hole_m2 / pixel_size_m**2)
    if not max_hole_px or mask.all():
        return mask
    holes, _ = label(~mask)  # of pixels that touch by a side
    closed = np.bincount(holes.ravel()) <= max_hole_px
    closed[0] = False  # the road itself
    return mask | closed[holes]


def _mean_along(probability: np.ndarray, grid: PixelGrid, ends: np.ndarray) -> float:
    """Mean probability along a bridge (2 x 2: its ends in metres), a sample per pixel or denser."""
    start, end = grid.to_pixels(ends) - 0.5
    num = 2 + int(np.hypot(*(end - start)))
    x, y = np.linspace(start, end, num).T
    return float(map_coordinates(probability, [y, x], order=1, mode="nearest").mean())
