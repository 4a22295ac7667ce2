"""Blocks of scenes through the model, with the next ones being read and the last one written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from utils.predict import NonFinitePrediction
from utils.predictor import Predictor
from utils.progress import progress
from utils.scenes.blank import read_block
from utils.scenes.plan import Block, ScenePlan
from utils.scenes.store import BlockStore
from utils.tiling import Tile, TileGrid

Item, Result = TypeVar("Item"), TypeVar("Result")
Part = tuple[ScenePlan, Block]

#: Blocks that are read while the model works on another; each takes some 70 MB of memory.
READERS = 2


def predict_blocks(predictor: Predictor, parts: list[Part]) -> None:
    """Predict blocks and keep what the model says.

    A block that cannot be read or kept, or whose prediction is not finite, costs a line, and its
    scene the rest of its blocks.
    """
    read = partial(_read, ignore_blank=predictor.config.ignore_nodata)
    inputs = prefetch(read, parts, READERS)
    if predictor.ranks.is_main:
        inputs = progress(inputs, len(parts), "blocks")
    kept: Future | None = None
    grid_of, grid = None, None
    with predictor.mode(), ThreadPoolExecutor(1, "writer") as writer:
        for (plan, block), pixels in inputs:
            if pixels is None or plan.failure.exists():
                continue
            image, valid = pixels
            if grid_of is not plan:
                grid_of, grid = plan, predictor.grid(plan.raster.grid_shape)
            probability = blend_block(predictor, grid, block, image, valid)
            try:
                predictor.refuse_nan(plan.name, probability)
            except NonFinitePrediction as error:
                plan.fail(str(error))
                continue
            if kept is not None:
                kept.result()  # one block waits to be written, not many
            kept = writer.submit(_keep, plan, block, probability.numpy(), valid)
        if kept is not None:
            kept.result()


def prefetch(
    function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[tuple[Item, Result]]:
    """Each item with its result, in order, while up to `ahead` threads work on the next ones."""
    with ThreadPoolExecutor(ahead, "reader") as pool:
        waiting: deque[tuple[Item, Future]] = deque()
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > ahead:
                first, result = waiting.popleft()
                yield first, result.result()
        for first, result in waiting:
            yield first, result.result()


def blend_block(
    predictor: Predictor, grid: TileGrid, block: Block, image: np.ndarray, valid: np.ndarray
) -> Tensor:
    """The sum of a block's tiles (float32 H x W), each times its weight in the blend of all.

    Tiles without data, and those that are black or white all over, add nothing.
    """
    total = torch.zeros(image.shape[1:])
    pixels, has_data = torch.from_numpy(image), torch.from_numpy(valid)

    def cut(values: Tensor, tile: Tile) -> Tensor:
        """The tile's part of something that shows the block."""
        top, left = tile.top - block.extent.top, tile.left - block.extent.left
        return values[..., top : top + grid.tile_height, left : left + grid.tile_width]

    tiles = [
        tile
        for tile in _tiles(grid, block)
        if cut(has_data, tile).any() and not _is_blank(cut(pixels, tile))
    ]
    answers = predictor.tile_probabilities(cut(pixels, tile) for tile in tiles)
    for tile, values in zip(tiles, answers, strict=True):
        cut(total, tile).addcmul_(values, grid.weights(tile))
    return total


def _tiles(grid: TileGrid, block: Block) -> Iterator[Tile]:
    for row in block.tile_rows:
        for column in block.tile_columns:
            yield Tile(grid.tops[row], grid.lefts[column], row, column)


def _is_blank(image: Tensor) -> bool:
    """Whether the image is 0 or 255 all over, as fill is that no nodata value tells of."""
    fill = int(image[0, 0, 0])
    return fill in (0, 255) and bool((image == fill).all())


def _read(part: Part, ignore_blank: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """The block's image and where it has data; None when its scene has failed."""
    plan, block = part
    if plan.failure.exists():
        return None
    try:
        return read_block(plan.raster, block.extent, ignore_blank)
    except ValueError as error:
        plan.fail(str(error))
        return None


def _keep(plan: ScenePlan, block: Block, probability: np.ndarray, valid: np.ndarray) -> None:
    try:
        BlockStore(plan).write(block, probability, valid)
    except OSError as error:
        plan.fail(f"{plan.name}: {error}")
