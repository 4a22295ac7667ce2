"""Overlapping tiles over an image of any size, and their seamless blending.

The tiles are the product of row positions and column positions, so that the blending weights are
products as well: each axis is normalised by itself, and no map of weight sums is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Tile(NamedTuple):
    """A tile's place in the image, in pixels, and its place in the grid."""

    top: int
    left: int
    row: int
    column: int


class TileGrid:
    """Tiles of `tile` pixels a side that cover an image (H, W), blended by Hann windows.

    Neighbours share at least `overlap` of a tile's side; the last row and column are shifted
    inwards instead of reaching over the edge. An axis shorter than `tile` has one tile of its own
    length. Raises ValueError for sides below one pixel and overlaps outside [0, 1).
    """

    def __init__(self, H: int, W: int, tile: int, overlap: float) -> None:
        if min(H, W, tile) < 1:
            raise ValueError(f"no tiles of {tile} px in an image of {H} x {W} px")
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap {overlap} is not in [0, 1)")
        self.H, self.W = H, W
        self.tile_height, self.tile_width = min(tile, H), min(tile, W)
        self.tops = tile_starts(H, tile, overlap)
        self.lefts = tile_starts(W, tile, overlap)
        self._row_weights = axis_weights(self.tops, self.tile_height, H)
        self._column_weights = axis_weights(self.lefts, self.tile_width, W)

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def __iter__(self) -> Iterator[Tile]:
        for row, top in enumerate(self.tops):
            for column, left in enumerate(self.lefts):
                yield Tile(top, left, row, column)

    def cut(self, image: Tensor, tile: Tile) -> Tensor:
        """The view of this tile in an image (..., H, W)."""
        rows = slice(tile.top, tile.top + self.tile_height)
        return image[..., rows, tile.left : tile.left + self.tile_width]

    def weights(self, tile: Tile) -> Tensor:
        """Blending weights (tile_height, tile_width), float32 > 0; over all tiles they sum to 1."""
        return self._row_weights[tile.row][:, None] * self._column_weights[tile.column]


class TileBlender:
    """Blends the tiles of a grid into one float32 map (H, W) on the CPU, and keeps only that."""

    def __init__(self, grid: TileGrid) -> None:
        self.grid = grid
        self.map = torch.zeros(grid.H, grid.W)

    def add(self, tile: Tile, values: Tensor) -> None:
        """Add a tile's float32 values (tile_height, tile_width); every tile exactly once."""
        self.grid.cut(self.map, tile).addcmul_(values, self.grid.weights(tile))


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """First pixels of the tiles along an axis: evenly stepped, the last one shifted inwards."""
    step = max(1, math.floor(tile * (1 - overlap)))
    last = max(0, length - tile)
    return [*range(0, last, step), last]


def axis_weights(starts: list[int], side: int, length: int) -> Tensor:
    """Hann windows (tiles, side) along an axis, normalised to sum to one at each of its pixels.

    The window is sampled at pixel centres, where it is never zero: a pixel of one tile alone,
    as at the image's border, has weight exactly 1.
    """
    centres = torch.arange(side, dtype=torch.float64) + 0.5
    window = torch.sin(math.pi * centres / side).square()
    total = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        total[start : start + side] += window
    return torch.stack([window / total[s : s + side] for s in starts]).float()
