"""Batches for training and whole images for evaluation, as a config and the ranks ask for."""

from __future__ import annotations

import os

import cv2
import torch
from torch.utils.data import DataLoader

from utils.cores import usable_cores
from utils.dataset import TrainCrops, WholeImages, find_pairs
from utils.dataset_check import dataset_problems
from utils.distributed import Ranks, barrier
from utils.memory import keep_freed_memory
from utils.sampler import EpochBatches
from utils.schema import Config

#: More loader processes than this rarely feed a device faster.
MAX_WORKERS = 8


def load_splits(config: Config, ranks: Ranks) -> tuple[DataLoader, WholeImages]:
    """The training batches and the val images.

    Raises ValueError with everything that is wrong with the folder, before the first step.
    """
    if ranks.is_main:
        dataset_problems(config.root_dir, config.dataset_name, ("train", "val"))
    barrier()
    train = find_pairs(config.root_dir, config.dataset_name, "train")
    val = find_pairs(config.root_dir, config.dataset_name, "val")
    return training_batches(config, ranks, train), WholeImages(val, config.ignore_nodata)


def training_batches(config: Config, ranks: Ranks, pairs: list) -> DataLoader:
    """This rank's loader; its `batch_sampler` is told which epoch comes next."""
    crops = TrainCrops(
        pairs,
        config.image_size,
        config.augmentation,
        config.random_seed,
        config.crops_per_image,
        config.ignore_nodata,
    )
    batches = EpochBatches(
        len(crops),
        config.batch_size,
        seed=config.random_seed,
        rank=ranks.rank,
        world=ranks.world,
    )
    workers = default_workers(ranks) if config.num_workers is None else config.num_workers
    return DataLoader(
        crops,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=ranks.device.type == "cuda",
        worker_init_fn=_start_worker,
        # An own generator: the loader must not draw from the sequence that drop path draws from.
        generator=torch.Generator(),
    )


def default_workers(ranks: Ranks) -> int:
    """Loader processes of a rank: its share of the cores, none when the CPU does the training."""
    if ranks.device.type == "cpu":
        return 0
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(1, min(MAX_WORKERS, usable_cores() // local_world))


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism
    torch.set_num_threads(1)
    keep_freed_memory()
