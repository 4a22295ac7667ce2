"""Which crops make up each batch: a function of seed, epoch and position alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) keys of a rank, in an order that seed and epoch determine.

    A joint batch of world * batch_size crops is cut into contiguous pieces, one a rank: ranks
    together see what one process with the joint batch would. A last incomplete joint batch is left
    out (each epoch leaves out others); a dataset smaller than one is repeated to fill it.
    """

    def __init__(
        self, length: int, batch_size: int, *, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        if length < 1:
            raise ValueError("the training split is empty")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.rank, self.world = rank, world
        self.epoch, self.first_batch, self.end = 1, 0, self.batches_per_epoch

    @property
    def joint_batch(self) -> int:
        """Crops that all ranks together take in one batch."""
        return self.batch_size * self.world

    @property
    def batches_per_epoch(self) -> int:
        return max(1, self.length // self.joint_batch)

    def start_at(self, epoch: int, first_batch: int = 0, end: int | None = None) -> None:
        """Which epoch the next iteration gives, how many of its batches to leave out, and before
        which to end (None: all are given)."""
        self.epoch, self.first_batch = epoch, first_batch
        self.end = self.batches_per_epoch if end is None else end

    def __len__(self) -> int:
        return max(0, self.end - self.first_batch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.length, generator=generator).tolist()
        while len(order) < self.joint_batch:
            order += order
        for batch in range(self.first_batch, self.end):
            start = batch * self.joint_batch + self.rank * self.batch_size
            yield [(self.epoch, index) for index in order[start : start + self.batch_size]]
