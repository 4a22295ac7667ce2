"""How long a training is: so many epochs, or optimiser steps, or minutes."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from utils.distributed import Ranks, broadcast_object
from utils.schema import Config

if TYPE_CHECKING:
    from utils.training import Training


def fit_epochs(config: Config, batches_per_epoch: int) -> Config:
    """The config with the epochs that its `max_steps` take; the last of them may be cut."""
    if config.max_steps is None:
        return config
    epochs = math.ceil(config.max_steps / _steps_per_epoch(config, batches_per_epoch))
    return config.model_copy(update={"epochs": epochs})


def batches_in(config: Config, epoch: int, batches_per_epoch: int) -> int:
    """A rank's batches in an epoch (from 1): all of them but where `max_steps` end before."""
    if config.max_steps is None:
        return batches_per_epoch
    steps_before = (epoch - 1) * _steps_per_epoch(config, batches_per_epoch)
    return min(batches_per_epoch, (config.max_steps - steps_before) * config.gradient_accumulation)


def has_ended(training: Training, batches_per_epoch: int, watch: Stopwatch) -> bool:
    """Whether a run that is continued has nothing left to train, and its last evaluation behind it.

    An epoch that steps or minutes cut stays the one in work: with more of them it goes on.
    """
    config, progress = training.config, training.progress
    evaluated = any((r["epoch"], r["split"]) == (progress.epoch, "val") for r in training.history)
    if watch.is_over:
        return evaluated or not progress.batches
    end = batches_in(config, progress.epoch, batches_per_epoch)
    return progress.epoch > config.epochs or (evaluated and progress.batches >= end)


def _steps_per_epoch(config: Config, batches_per_epoch: int) -> int:
    return math.ceil(batches_per_epoch / config.gradient_accumulation)


class Stopwatch:
    """Counts the seconds of training, of all ranks the first one's; what else is done is not in it.

    `seconds` are those of earlier sittings and of this one.
    """

    def __init__(self, seconds: float, max_minutes: float | None, ranks: Ranks) -> None:
        self.seconds = seconds
        self._limit = None if max_minutes is None else 60 * max_minutes
        self._shared = self._limit is not None and ranks.world > 1
        self._since = time.monotonic()

    def start(self) -> None:
        self._since = time.monotonic()

    def lap(self) -> None:
        """Add the time since the last lap or start. With a limit every rank calls it together."""
        now = time.monotonic()
        self.seconds += now - self._since
        self._since = now
        if self._shared:
            self.seconds = broadcast_object(self.seconds)

    @property
    def share(self) -> float | None:
        """How much of the limit is gone, up to 1; None without a limit."""
        return None if self._limit is None else min(1.0, self.seconds / self._limit)

    @property
    def is_over(self) -> bool:
        return self.share == 1.0
