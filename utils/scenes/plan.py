"""What has to be done for a scene: its blocks, its settings, and where everything is written.

Plans travel to a helper process that does without torch; no module that they need imports it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from utils.files import atomic_path
from utils.raster import Raster

logger = logging.getLogger(__name__)

#: Side that a block should have, in pixels: large for the disk, small for the memory.
BLOCK_PX = 4096


class Window(NamedTuple):
    """A part of a grid, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        return slice(self.left, self.left + self.width)

    def grown(self, by_px: int, shape: tuple[int, int]) -> Window:
        """With as many pixels more on each side, as far as the grid goes."""
        top, left = max(0, self.top - by_px), max(0, self.left - by_px)
        bottom = min(shape[0], self.top + self.height + by_px)
        right = min(shape[1], self.left + self.width + by_px)
        return Window(top, left, bottom - top, right - left)

    def common(self, other: Window) -> Window | None:
        """What both cover."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom = min(self.top + self.height, other.top + other.height)
        right = min(self.left + self.width, other.left + other.width)
        if top >= bottom or left >= right:
            return None
        return Window(top, left, bottom - top, right - left)

    def within(self, other: Window) -> tuple[slice, slice]:
        """The slices of this window in an array that shows the other one."""
        top, left = self.top - other.top, self.left - other.left
        return slice(top, top + self.height), slice(left, left + self.width)


class Block(NamedTuple):
    """Some rows and columns of tiles, which overlap those of the blocks beside it.

    The cells, each the part of its block from the first tile's corner to where the next block
    begins, cover every pixel once.
    """

    name: str
    extent: Window
    cell: Window
    tile_rows: range
    tile_columns: range


@dataclass(frozen=True)
class Wanted:
    """Which files are written, and how."""

    mask: bool
    probability: bool
    roads: bool
    threshold: float
    join_gap_m: float | None


@dataclass(frozen=True)
class Job:
    """An input's work, of which every process can see how it ended."""

    output: Path
    name: str
    fingerprint: str  # of everything that the result depends on

    @property
    def work(self) -> Path:
        return work_folder(self.output) / self.name

    @property
    def record(self) -> Path:
        """Exists when the work is done: the input's entry of predictions.json."""
        return self.work / "done.json"

    @property
    def failure(self) -> Path:
        """Exists when the work cannot be done."""
        return self.work / "failed"

    def finish(self, **entry: Any) -> None:
        """Note that the work is done, and what there is to say of it."""
        entry = {"name": self.name, "fingerprint": self.fingerprint, **entry}
        with atomic_path(self.record) as path:
            path.write_text(json.dumps(entry), encoding="utf-8")

    def listed(self, files: Iterable[Path]) -> list[str]:
        """Files of the output folder as an entry names them."""
        return [file.relative_to(self.output).as_posix() for file in files]

    def fail(self, message: str) -> None:
        """Note that the work cannot be done, and say why if nobody has."""
        try:
            self.failure.touch(exist_ok=False)
        except FileExistsError:
            return
        logger.error("%s", message)


@dataclass(frozen=True)
class ScenePlan(Job):
    raster: Raster
    blocks: tuple[Block, ...]
    wanted: Wanted
    tags: tuple[tuple[str, str], ...]  # written into the GeoTIFFs

    @property
    def path(self) -> str:
        return self.raster.path

    def lines_file(self, block: Block) -> Path:
        return self.work / "lines" / f"{block.name}.npz"

    def files(self) -> dict[str, Path]:
        """The files that are to come, by kind."""
        folders = {
            "mask": (self.wanted.mask, "mask", ".tif"),
            "prob": (self.wanted.probability, "prob", ".tif"),
            "gpkg": (self.wanted.roads, "roads", ".gpkg"),
            "geojson": (self.wanted.roads, "roads", ".geojson"),
        }
        return {
            kind: self.output / folder / f"{self.name}{suffix}"
            for kind, (wanted, folder, suffix) in folders.items()
            if wanted
        }


def work_folder(output: Path) -> Path:
    """Where unfinished scenes lie; it is gone when all are finished."""
    return output / ".unfinished"


def plan_blocks(
    tops: list[int], lefts: list[int], tile: tuple[int, int], shape: tuple[int, int], block_px: int
) -> tuple[Block, ...]:
    """The blocks of tiles (height, width) that begin at `tops` x `lefts`, row by row."""
    return tuple(
        Block(
            name=f"{row}_{column}",
            extent=Window(top, left, bottom - top, right - left),
            cell=Window(top, left, cell_bottom - top, cell_right - left),
            tile_rows=tile_rows,
            tile_columns=tile_columns,
        )
        for row, (tile_rows, top, bottom, cell_bottom) in enumerate(
            _spans(tops, tile[0], shape[0], block_px)
        )
        for column, (tile_columns, left, right, cell_right) in enumerate(
            _spans(lefts, tile[1], shape[1], block_px)
        )
    )


def _spans(
    starts: list[int], tile: int, length: int, block_px: int
) -> Iterator[tuple[range, int, int, int]]:
    """Of each block along an axis: its tiles, its first pixel, its end, and its cell's end."""
    step = starts[1] - starts[0] if len(starts) > 1 else tile
    num = max(1, 1 + (block_px - tile) // step)
    for first in range(0, len(starts), num):
        tiles = range(first, min(first + num, len(starts)))
        cell_end = starts[tiles.stop] if tiles.stop < len(starts) else length
        yield tiles, starts[first], starts[tiles[-1]] + tile, cell_end
