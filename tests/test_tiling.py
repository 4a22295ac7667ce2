"""Tiles cover everything, and their weights sum to one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.tiling import TileBlender, TileGrid

grids = st.builds(
    TileGrid,
    H=st.integers(1, 70),
    W=st.integers(1, 70),
    tile=st.integers(5, 40),
    overlap=st.floats(0, 0.8),
)


def blend(grid: TileGrid, image: torch.Tensor) -> torch.Tensor:
    blender = TileBlender(grid)
    for tile in grid:
        blender.add(tile, grid.cut(image, tile))
    return blender.map


@given(grids)
@settings(max_examples=60, deadline=None)
def test_tiles_lie_inside_and_cover_every_pixel(grid: TileGrid) -> None:
    hits = np.zeros((grid.H, grid.W), int)
    places = list(grid)
    assert len(places) == len(grid) == len({(p.top, p.left) for p in places})
    for place in places:
        bottom, right = place.top + grid.tile_height, place.left + grid.tile_width
        assert place.top >= 0 and place.left >= 0 and bottom <= grid.H and right <= grid.W
        hits[place.top : bottom, place.left : right] += 1
    assert hits.min() >= 1


@given(
    length=st.integers(1, 400),
    tile=st.integers(1, 120),
    overlap=st.floats(0, 0.9),
)
@settings(deadline=None)
def test_neighbours_share_at_least_the_overlap(length: int, tile: int, overlap: float) -> None:
    starts = TileGrid(1, length, tile, overlap).lefts
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (tile - steps >= min(tile * overlap, tile - 1) - 1e-9).all()
    assert (steps[:-1] == steps[0]).all() if len(steps) > 1 else True
    assert starts[-1] + tile == length or starts == [0]


@given(grids)
@settings(max_examples=60, deadline=None)
def test_weights_are_positive_and_sum_to_one(grid: TileGrid) -> None:
    total = torch.zeros(grid.H, grid.W, dtype=torch.float64)
    for tile in grid:
        weights = grid.weights(tile)
        assert weights.dtype == torch.float32 and (weights > 0).all()
        grid.cut(total, tile).add_(weights.double())
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)


@given(grids, st.floats(0, 1, width=32))
@settings(max_examples=40, deadline=None)
def test_a_constant_and_any_image_are_reproduced(grid: TileGrid, value: float) -> None:
    constant = torch.full((grid.H, grid.W), value)
    torch.testing.assert_close(blend(grid, constant), constant, rtol=1e-6, atol=1e-7)
    image = torch.rand(grid.H, grid.W, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(blend(grid, image), image, rtol=1e-6, atol=1e-7)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 20), st.floats(0, 0.9))
@settings(deadline=None)
def test_one_tile_is_reproduced_bit_for_bit(H: int, W: int, spare: int, overlap: float) -> None:
    grid = TileGrid(H, W, max(H, W) + spare, overlap)
    assert [tuple(tile) for tile in grid] == [(0, 0, 0, 0)]
    image = torch.rand(H, W)
    assert torch.equal(blend(grid, image), image)


def test_weights_are_normalised_hann_windows() -> None:
    grid = TileGrid(1, 12, 8, 0.5)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(8) + 0.5) / 8)
    assert grid.lefts == [0, 4]
    first = np.concatenate([np.ones(4), hann[4:] / (hann[4:] + hann[:4])])
    tiles = list(grid)
    np.testing.assert_allclose(grid.weights(tiles[0])[0], first, rtol=1e-6)
    np.testing.assert_allclose(grid.weights(tiles[1])[0], first[::-1], rtol=1e-6)


def test_tiles_that_disagree_leave_no_seam() -> None:
    """Where one tile says 0 and its neighbour 1, the blend crosses over in small steps."""
    grid = TileGrid(64, 112, 64, 0.25)
    blender = TileBlender(grid)
    for tile in grid:
        blender.add(tile, torch.full((64, 64), float(tile.column)))
    row = blender.map[20]
    assert row[0] == 0 and row[-1] == 1
    assert (row.diff() >= 0).all() and row.diff().max() < 0.15


@pytest.mark.parametrize(
    ("H", "tile", "overlap", "message"),
    [(0, 8, 0.1, "no tiles"), (9, 0, 0.1, "no tiles"), (9, 8, 1.0, "overlap")],
)
def test_impossible_grids_are_refused(H: int, tile: int, overlap: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TileGrid(H, 9, tile, overlap)
