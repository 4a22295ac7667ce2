"""What the model says of a scene, in a file for every block.

Whole numbers from 0 to FULL stand for weighted probabilities. Where blocks overlap, their numbers
add up to the blend of all tiles, whatever the order; a pixel without data is NO_DATA in each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from utils.files import atomic_path
from utils.scenes.plan import Block, Job, ScenePlan, Window

FULL = 60_000
NO_DATA = 65_535
#: Between two looks for a file that another process writes.
LOOK_S = 0.2


class SceneFailed(Exception):
    """Another part of the work on this scene failed, and has said so."""


class BlockStore:
    """The block files of one scene; reading waits for those that are not there yet."""

    def __init__(self, plan: ScenePlan) -> None:
        self.plan = plan
        self.folder = plan.work / "blocks"
        rows = groupby(plan.blocks, lambda block: (block.extent.top, block.extent.height))
        self._rows = {row: list(blocks) for row, blocks in rows}

    def path(self, block: Block) -> Path:
        return self.folder / f"{block.name}.npy"

    def write(self, block: Block, probability: np.ndarray, valid: np.ndarray) -> None:
        """Keep the weighted probability (float32 H x W) of a block, where it is valid."""
        values = probability * np.float32(FULL)
        values = np.rint(values, out=values).clip(0, FULL, out=values).astype(np.uint16)
        values[~valid] = NO_DATA
        if (values == values[0, 0]).all():
            values = values[:1, :1]
        with atomic_path(self.path(block)) as path:
            np.save(path, values)

    def read(self, window: Window) -> np.ndarray:
        """The probabilities of a window, uint16 H x W: 0 to FULL, or NO_DATA."""
        total = np.zeros((window.height, window.width), np.uint16)
        missing = np.zeros(total.shape, bool)
        for block in self._near(window):
            common = window.common(block.extent)
            if common is None:
                continue
            wait_for(self.path(block), self.plan)
            stored = open_memmap(self.path(block), mode="r")
            shape = block.extent.height, block.extent.width
            part = np.broadcast_to(stored, shape)[common.within(block.extent)]
            place = common.within(window)
            missing[place] |= part == NO_DATA
            total[place] += part
        np.minimum(total, FULL, out=total)
        total[missing] = NO_DATA
        return total

    def _near(self, window: Window) -> Iterator[Block]:
        """The blocks in the window's rows."""
        for (top, height), blocks in self._rows.items():
            if top < window.top + window.height and window.top < top + height:
                yield from blocks


def wait_for(path: Path, job: Job | None = None) -> None:
    """Return when the file is there. Raises SceneFailed when the job it is of has failed."""
    while not path.exists():
        if job is not None and job.failure.exists():
            raise SceneFailed(job.name)
        time.sleep(LOOK_S)
