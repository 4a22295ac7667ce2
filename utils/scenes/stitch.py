"""The pieces of all cells as the roads of the scene."""

from __future__ import annotations

import numpy as np

from utils.scenes.plan import ScenePlan, Window
from utils.scenes.store import BlockStore
from utils.scenes.trace import MEASURES, Pieces, road
from utils.topology.arms import Surface
from utils.topology.connect import JoinRule, join_gaps
from utils.topology.from_mask import MIN_SPUR_M
from utils.topology.grid import PixelGrid
from utils.topology.sketch import RoadSketch
from utils.topology.straighten import straighten
from utils.vector import RoadLines


def stitch(plan: ScenePlan, simplify_px: float = 1.0) -> RoadLines:
    """The roads of a scene whose cells are all traced, in the order of their coordinates.

    Junctions, sharp corners and ends are straightened, gaps up to `join_gap_m` closed, and lines
    simplified to within `simplify_px`.
    """
    ground = plan.raster.ground
    sketch = straighten(thinned(plan), _half_width_m, _surface(plan, ground))
    if plan.wanted.join_gap_m is not None:
        join_gaps(sketch, JoinRule(plan.wanted.join_gap_m))
    roads = [
        (_from_the_left(line), sums)
        for line, sums in sketch.measured_lines(simplify_px * ground.pixel_size_m)
    ]
    roads.sort(key=lambda road: road[0].ravel().tolist())
    sums = np.array([sums for _, sums in roads]).reshape(-1, len(MEASURES))
    means = _means(sums)
    return RoadLines(
        lines=[line for line, _ in roads],
        width_m=means[:, 0],
        probability=means[:, 1],
        crs=ground.target_crs,
    )


def thinned(plan: ScenePlan) -> RoadSketch:
    """The roads as thinning left them, without dead ends and single roads below MIN_SPUR_M."""
    sketch = RoadSketch()
    for block in plan.blocks:
        _add(sketch, Pieces.load(plan.lines_file(block)), plan.raster.ground)
    sketch.merge_chains()
    sketch.drop_spurs(MIN_SPUR_M)
    return sketch


def _means(sums: np.ndarray) -> np.ndarray:
    """Width and probability from sums (..., MEASURES); 0 where nothing was measured."""
    return sums[..., :2] / sums[..., 2:].clip(1e-9)


def _half_width_m(sums: np.ndarray) -> float:
    return _means(sums)[0] / 2


def _surface(plan: ScenePlan, ground: PixelGrid) -> Surface:
    store, (H, W) = BlockStore(plan), plan.raster.grid_shape

    def is_road(points: np.ndarray) -> np.ndarray:
        x, y = np.floor(ground.to_pixels(points)).astype(int).T
        found = (x >= 0) & (x < W) & (y >= 0) & (y < H)
        if found.any():
            x, y = x[found], y[found]
            window = Window(y.min(), x.min(), np.ptp(y) + 1, np.ptp(x) + 1)
            values = store.read(window)[y - window.top, x - window.left]
            found[found] = road(values, plan.wanted.threshold)
        return found

    return Surface(ground.pixel_size_m, is_road)


def _add(sketch: RoadSketch, pieces: Pieces, ground: PixelGrid) -> None:
    points = ground.to_ground(pieces.points)
    lines = np.split(points, np.cumsum(pieces.sizes)[:-1]) if len(pieces.sizes) else []
    for line, sums in zip(lines, pieces.sums, strict=True):
        sketch.add(line, sums)


def _from_the_left(line: np.ndarray) -> np.ndarray:
    return line if line[0].tolist() <= line[-1].tolist() else line[::-1]
