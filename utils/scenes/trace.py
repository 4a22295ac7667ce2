"""The centre lines of the roads in one cell of a scene, such that cells fit together exactly.

A cell is looked at with a halo around it. Thinning is local: a pixel's fate depends on what lies
within about half a road's width, so neighbouring cells see the same skeleton around the border
between them. Every link between two of its pixels belongs to the cell that holds the link's middle:
together the cells have every link once, and the pieces of a line meet in equal coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial import KDTree
from skimage.morphology import skeletonize

from utils.files import atomic_path
from utils.scenes.plan import Block
from utils.scenes.store import FULL, NO_DATA, BlockStore
from utils.topology.from_mask import MAX_HOLE_M2, without_holes
from utils.topology.skeleton import skeleton_lines

#: Wider than any road by far: of areas wider than twice this the middle may be cut at a border.
HALO_PX = 128
#: Junctions are means of pixels: rounded to this part of one, they are equal in every cell.
GRID = 1024

#: What is measured along a line, as sums over its links, each the mean of its two pixels.
MEASURES = ("width_m", "probability", "count")


@dataclass(frozen=True)
class Pieces:
    """Polylines of a cell in pixels of the scene's grid: the points of all, P x 2, and lengths."""

    points: np.ndarray
    sizes: np.ndarray
    sums: np.ndarray  # pieces x MEASURES

    def save(self, path: Path) -> None:
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, points=self.points, sizes=self.sizes, sums=self.sums)

    @classmethod
    def load(cls, path: Path) -> Pieces:
        with np.load(path) as stored:
            return cls(stored["points"], stored["sizes"], stored["sums"])


def trace_cell(store: BlockStore, block: Block) -> Pieces:
    """The pieces of the roads' skeleton whose links lie in the block's cell."""
    plan = store.plan
    window = block.cell.grown(HALO_PX, plan.raster.grid_shape)
    values = store.read(window)
    mask = road(values, plan.wanted.threshold)
    found = []
    if mask.any():
        sides_m = plan.raster.sides_m or (1.0, 1.0)
        mask = without_holes(mask, MAX_HOLE_M2, float(np.sqrt(np.prod(sides_m))))
        skeleton = skeletonize(mask)
        measures = Measures(mask, skeleton, values, sides_m)
        for line in skeleton_lines(skeleton):
            pixels = measures.at(line)
            along = (pixels[1:] + pixels[:-1]) / 2  # so that a line's direction does not matter
            line = np.rint(np.add(line, (window.left, window.top)) * GRID) / GRID
            found += [
                (line[first : last + 1], along[first:last].sum(axis=0))
                for first, last in _owned(line, block.cell)
            ]
    points = [line for line, _ in found] or [np.zeros((0, 2))]
    sizes = np.array([len(line) for line, _ in found], np.int64)
    sums = np.array([sums for _, sums in found]).reshape(-1, len(MEASURES))
    return Pieces(np.concatenate(points), sizes, sums)


def road(values: np.ndarray, threshold: float) -> np.ndarray:
    """bool H x W: where the stored probability reaches the threshold."""
    return (values >= int(np.ceil(threshold * FULL - 1e-6))) & (values != NO_DATA)


def _owned(line: np.ndarray, cell: tuple[int, int, int, int]) -> Iterator[tuple[int, int]]:
    """First and last point of each run of links whose middle lies in the cell."""
    top, left, height, width = cell
    x, y = (line[1:] + line[:-1]).T / 2
    inside = (x >= left) & (x < left + width) & (y >= top) & (y < top + height)
    changes = np.flatnonzero(np.diff(inside, prepend=False, append=False))
    yield from zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True)


class Measures:
    """MEASURES at the pixels of a skeleton (bool H x W).

    The nearest pixel without road lies half a width away, and on average a quarter of a pixel
    more: a skeleton has no place between two pixels.
    """

    def __init__(
        self,
        mask: np.ndarray,
        skeleton: np.ndarray,
        values: np.ndarray,
        sides_m: tuple[float, float],
    ) -> None:
        around = cv2.dilate(mask.view(np.uint8), np.ones((3, 3), np.uint8)).view(bool) & ~mask
        places = np.argwhere(skeleton)
        self._row_length = mask.shape[1]
        self._flat = places @ (self._row_length, 1)
        self._values = np.ones((len(places), len(MEASURES)))
        reach_m = np.zeros(len(places))
        if around.any():
            reach_m = KDTree(np.argwhere(around) * sides_m).query(places * sides_m)[0]
        self._values[:, 0] = np.maximum(0, 2 * reach_m - np.sqrt(np.prod(sides_m)) / 2)
        on_line = values[skeleton]
        self._values[:, 1] = np.where(on_line == NO_DATA, 0, on_line) / FULL

    def at(self, line: np.ndarray) -> np.ndarray:
        """K x MEASURES at the points of a line; 0 at the middle of a junction that is no pixel."""
        flat = line.astype(int) @ (1, self._row_length)
        index = np.searchsorted(self._flat, flat).clip(0, len(self._flat) - 1)
        return self._values[index] * (self._flat[index] == flat)[:, None]
