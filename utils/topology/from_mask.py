"""Road mask to road graph: skeleton, pixel graph, spur removal, simplification."""

from __future__ import annotations

from collections import Counter

import numpy as np
import skan
from affine import Affine
from scipy.ndimage import map_coordinates
from skimage.morphology import remove_small_holes, skeletonize

from utils.topology.connect import JoinRule, join_gaps
from utils.topology.graph import RoadGraph
from utils.topology.grid import PixelGrid
from utils.topology.sketch import Point, RoadSketch


def mask_to_graph(
    mask: np.ndarray,
    pixel_size_m: float = 1.0,
    *,
    max_hole_m2: float = 25.0,
    min_spur_m: float = 10.0,
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
    for line_px in skeleton_lines(skeletonize(_without_holes(mask, max_hole_m2, grid))):
        sketch.add(grid.to_ground(line_px))
    sketch.merge_chains()
    sketch.drop_spurs(min_spur_m)
    if join is not None:
        along = None if probability is None else lambda ends: _mean_along(probability, grid, ends)
        join_gaps(sketch, join, along)
    return sketch.to_graph(simplify_m, grid.target_crs)


def skeleton_lines(skeleton: np.ndarray) -> list[np.ndarray]:
    """Polylines (K x 2: x, y of pixel centres) between the ends and junctions of a skeleton.

    A junction may be several pixels that touch; their mean becomes the end of all its lines.
    Single pixels are no line.
    """
    if not _has_neighbours(skeleton):  # skan takes no skeleton without a link
        return []
    paths = skan.Skeleton(skeleton, keep_images=False)
    lines = [paths.path_coordinates(i)[:, ::-1] + 0.5 for i in range(paths.n_paths)]  # yx -> xy
    centres = _junction_centres(lines)
    merged = []
    for line in lines:
        ends = [centres.get(tuple(point)) for point in line[[0, -1]]]
        if len(line) == 2 and ends[0] is not None and ends[0] is ends[1]:
            continue  # lies within one junction
        for place, centre in zip((0, -1), ends, strict=True):
            if centre is not None:
                line[place] = centre
        merged.append(line)
    return merged


def _without_holes(mask: np.ndarray, max_hole_m2: float, grid: PixelGrid) -> np.ndarray:
    max_hole_px = int(max_hole_m2 / grid.pixel_size_m**2)
    if not max_hole_px or mask.all():
        return mask
    return remove_small_holes(mask, max_size=max_hole_px, connectivity=1)


def _has_neighbours(skeleton: np.ndarray) -> bool:
    s = skeleton
    return bool(
        (s[1:] & s[:-1]).any()
        or (s[:, 1:] & s[:, :-1]).any()
        or (s[1:, 1:] & s[:-1, :-1]).any()
        or (s[1:, :-1] & s[:-1, 1:]).any()
    )


def _junction_centres(lines: list[np.ndarray]) -> dict[Point, np.ndarray]:
    """The centre of each junction of several pixels, by pixel."""
    num_lines = Counter(tuple(point) for line in lines for point in line[[0, -1]])
    junction: dict[Point, list[Point]] = {}
    for line in lines:
        first, second = (tuple(point) for point in line[[0, -1]])
        if len(line) > 2 or min(num_lines[first], num_lines[second]) < 3:
            continue
        a, b = junction.setdefault(first, [first]), junction.setdefault(second, [second])
        if a is not b:
            a += b
            junction.update(dict.fromkeys(b, a))
    centres = {id(pixels): np.mean(pixels, axis=0) for pixels in junction.values()}
    return {pixel: centres[id(pixels)] for pixel, pixels in junction.items()}


def _mean_along(probability: np.ndarray, grid: PixelGrid, ends: np.ndarray) -> float:
    """Mean probability along a bridge (2 x 2: its ends in metres), a sample per pixel or denser."""
    start, end = grid.to_pixels(ends) - 0.5
    num = 2 + int(np.hypot(*(end - start)))
    x, y = np.linspace(start, end, num).T
    return float(map_coordinates(probability, [y, x], order=1, mode="nearest").mean())
