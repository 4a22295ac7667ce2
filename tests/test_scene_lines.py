"""Road lines traced cell by cell against the graph of the whole mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scene_files import UTM, road_mask
from utils.raster import Raster
from utils.scenes import trace
from utils.scenes.plan import ScenePlan, Wanted, Window, plan_blocks
from utils.scenes.stitch import stitch, thinned
from utils.scenes.store import FULL, NO_DATA, BlockStore
from utils.tiling import TileGrid
from utils.topology.from_mask import mask_to_graph
from utils.vector import RoadLines

TILE = 48


def scene_plan(folder: Path, shape: tuple[int, int], block_px: int, **wanted: object) -> ScenePlan:
    grid = TileGrid(*shape, TILE, 0.25)
    raster = Raster(
        path="scene.tif",
        bands=(1,),
        shape=shape,
        grid_shape=shape,
        transform=UTM["transform"],
        crs_wkt=UTM["crs"],
        limits=None,
        palette=False,
        has_mask=True,
        sides_m=(0.5, 0.5),
    )
    defaults = {"mask": True, "probability": False, "roads": True, "threshold": 0.5}
    return ScenePlan(
        output=folder,
        name="scene",
        fingerprint="",
        raster=raster,
        blocks=plan_blocks(grid.tops, grid.lefts, (TILE, TILE), shape, block_px),
        wanted=Wanted(**defaults | {"join_gap_m": None} | wanted),
        tags=(),
    )


def predicted(plan: ScenePlan, probability: np.ndarray) -> ScenePlan:
    """The plan with blocks as the model would leave them, were this its answer to every tile."""
    grid = TileGrid(*plan.raster.grid_shape, TILE, 0.25)
    for block in plan.blocks:
        total = np.zeros((block.extent.height, block.extent.width), np.float32)
        for tile in grid:
            if tile.row in block.tile_rows and tile.column in block.tile_columns:
                place = Window(tile.top, tile.left, TILE, TILE)
                answer = probability[place.rows, place.columns]
                total[place.within(block.extent)] += answer * grid.weights(tile).numpy()
        valid = ~np.isnan(probability[block.extent.rows, block.extent.columns])
        BlockStore(plan).write(block, np.nan_to_num(total), valid)
    return plan


def traced(plan: ScenePlan, **settings: float) -> RoadLines:
    store = BlockStore(plan)
    for block in plan.blocks:
        trace.trace_cell(store, block).save(plan.lines_file(block))
    return stitch(plan, **settings)


def as_set(lines: list[np.ndarray]) -> set[tuple]:
    both = [(line.round(3).tolist(), line[::-1].round(3).tolist()) for line in lines]
    return {tuple(map(tuple, min(pair))) for pair in both}


@given(
    H=st.integers(1, 160),
    W=st.integers(1, 160),
    tile=st.integers(4, 60),
    overlap=st.floats(0, 0.75),
    block_px=st.integers(1, 120),
)
@settings(max_examples=60, deadline=None)
def test_cells_cover_every_pixel_and_blocks_every_tile_once(H, W, tile, overlap, block_px) -> None:
    grid = TileGrid(H, W, tile, overlap)
    sides = grid.tile_height, grid.tile_width
    blocks = plan_blocks(grid.tops, grid.lefts, sides, (H, W), block_px)
    cells, tiles = np.zeros((H, W), int), np.zeros((len(grid.tops), len(grid.lefts)), int)
    for block in blocks:
        cells[block.cell.rows, block.cell.columns] += 1
        tiles[np.ix_(block.tile_rows, block.tile_columns)] += 1
        assert block.cell.common(block.extent) == block.cell
        for row in (block.tile_rows[0], block.tile_rows[-1]):
            top = grid.tops[row] - block.extent.top
            assert 0 <= top <= block.extent.height - grid.tile_height
    assert (cells == 1).all() and (tiles == 1).all()
    assert len({block.name for block in blocks}) == len(blocks)


@pytest.mark.parametrize(("seed", "block_px"), [(0, 90), (1, 120), (2, 150)])
def test_lines_run_on_across_cells(tmp_path, monkeypatch, seed, block_px) -> None:
    """The whole network, junctions on borders and all, is that of the undivided mask."""
    monkeypatch.setattr(trace, "HALO_PX", 48)
    mask = road_mask(330, 300, seed=seed, num=6)
    plan = predicted(scene_plan(tmp_path, mask.shape, block_px), mask.astype(np.float32))
    assert len(plan.blocks) >= 9
    roads = traced(plan, simplify_px=0)
    whole = mask_to_graph(mask, transform=UTM["transform"], crs=UTM["crs"], simplify_m=0)
    assert len(whole.edges) > 30
    assert roads.crs == whole.crs
    found = [line for line, _ in thinned(plan).measured_lines()]
    assert as_set(found) == as_set([edge.line for edge in whole.edges])

    undivided = scene_plan(tmp_path / "one", mask.shape, 1000)
    assert len(undivided.blocks) == 1
    straight = traced(predicted(undivided, mask.astype(np.float32)), simplify_px=0)
    assert as_set(roads.lines) == as_set(straight.lines) != as_set(found)


def test_width_and_probability_are_means_along_the_line(tmp_path) -> None:
    probability = np.zeros((200, 240), np.float32)
    probability[60:75, :120], probability[60:75, 120:] = 0.6, 0.8
    probability[140:148] = 0.9
    probability[:, 236:] = np.nan
    roads = traced(predicted(scene_plan(tmp_path, (200, 240), 100), probability))
    by_row = sorted(range(2), key=lambda i: -roads.lines[i][0, 1])
    np.testing.assert_allclose(roads.width_m[by_row], [7.5, 4], atol=0.5)
    np.testing.assert_allclose(roads.probability[by_row], [0.7, 0.9], atol=0.01)
    np.testing.assert_allclose(roads.lengths_m()[by_row], [110, 114], atol=2)
    frame = roads.frame(UTM["crs"], None)
    assert list(frame.columns) == ["length_m", "width_m", "probability", "geometry"]


def test_gaps_are_joined_when_asked_for(tmp_path) -> None:
    mask = np.zeros((150, 300), np.float32)
    mask[70:80, :140] = mask[70:80, 160:] = 1
    assert len(traced(predicted(scene_plan(tmp_path / "a", mask.shape, 90), mask)).lines) == 2
    joined = traced(predicted(scene_plan(tmp_path / "b", mask.shape, 90, join_gap_m=15.0), mask))
    assert len(joined.lines) == 1
    assert shapely.linestrings(joined.lines[0]).length == pytest.approx(145, abs=2)


def test_blocks_add_up_to_the_blend(tmp_path) -> None:
    probability = np.random.default_rng(0).random((130, 170), dtype=np.float32)
    probability[20:50, 100:] = np.nan
    plan = predicted(scene_plan(tmp_path, probability.shape, 70), probability)
    store = BlockStore(plan)
    for window in (Window(0, 0, 130, 170), Window(31, 77, 60, 41)):
        values, expected = store.read(window), probability[window.rows, window.columns]
        np.testing.assert_array_equal(values == NO_DATA, np.isnan(expected))
        known = ~np.isnan(expected)
        np.testing.assert_allclose(values[known] / FULL, expected[known], atol=4 / FULL)


def test_blocks_of_one_value_take_no_room(tmp_path) -> None:
    plan = predicted(scene_plan(tmp_path, (200, 200), 100), np.full((200, 200), np.nan, np.float32))
    assert all(path.stat().st_size < 200 for path in BlockStore(plan).folder.iterdir())
    assert (BlockStore(plan).read(Window(0, 0, 200, 200)) == NO_DATA).all()
