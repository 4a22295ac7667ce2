"""One epoch of training and one evaluation. A model is known here by its contract alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp import autocast
from torch.utils.data import Dataset

from model.base import RoadModel, normalise
from utils.distributed import Ranks, all_gather_objects, any_rank, gather_in_order
from utils.image_scores import Scoring, score_image, score_split
from utils.losses import RoadLoss
from utils.predict import naming, predict
from utils.training import Training


class NonFiniteLoss(ArithmeticError):
    """The loss or its gradient became NaN or infinite; the message names the batch's files."""


class Stopped(Exception):
    """A stop was asked for and everything up to the last whole step is in the state."""


def train_one_epoch(
    training: Training,
    batches: Iterable[dict[str, Any]],
    *,
    remaining: int,
    after_step: Callable[[], None] = lambda: None,
    stop_asked: Callable[[], bool] = lambda: False,
    time_is_up: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Train on the `remaining` batches of the epoch; return the mean of each loss over the epoch.

    `after_step` is called after every optimiser step, for checkpoints; where `time_is_up` then
    answers true, on all ranks alike, the epoch ends. Raises NonFiniteLoss, and Stopped when
    `stop_asked` answers true on any rank, after a whole step.
    """
    training.network.train()
    group: list[dict[str, Any]] = []
    for number, batch in enumerate(batches, start=1):
        group.append(batch)
        if len(group) == training.config.gradient_accumulation or number == remaining:
            _train_step(training, group)
            group = []
            after_step()
            if any_rank(stop_asked(), training.ranks.device):
                raise Stopped
            if time_is_up():
                break
    progress = training.progress
    return {name: total / progress.batches for name, total in progress.sums.items()}


def _train_step(training: Training, group: list[dict[str, Any]]) -> None:
    """One optimiser step on the mean gradient of a group of batches."""
    training.optimizer.zero_grad(set_to_none=True)
    for position, batch in enumerate(group, start=1):
        _backward(training, batch, share=1 / len(group), last=position == len(group))
    scaler = training.scaler
    if training.config.max_norm is not None:
        scaler.unscale_(training.optimizer)  # the norm is that of the true gradient
        norm = nn.utils.clip_grad_norm_(training.model.parameters(), training.config.max_norm)
        if not scaler.is_enabled() and not norm.isfinite():  # a scaler leaves such steps out
            names = [name for batch in group for name in batch["name"]]
            raise _non_finite("the norm of the gradient", norm.item(), training, names)
    scaler.step(training.optimizer)
    scaler.update()
    training.schedule.step()
    if training.ema:
        training.ema.update(training.model)


def _backward(training: Training, batch: dict[str, Any], *, share: float, last: bool) -> None:
    device = training.ranks.device
    image = batch["image"].to(device, non_blocking=True)
    target = batch["target"].to(device, non_blocking=True)
    skip_reduction = not last and hasattr(training.network, "no_sync")
    synchronised = training.network.no_sync() if skip_reduction else nullcontext()
    with synchronised:
        with _autocast(device, training.amp_dtype):
            logits = training.network(normalise(image, training.model.normalisation))
        total, parts = training.loss(logits, target)
        values = {"loss": total.item()} | {f"loss_{k}": v.item() for k, v in parts.items()}
        for side in training.model.take_side_logits():
            side_loss, _ = training.loss(side, target)
            values["loss_sides"] = values.get("loss_sides", 0.0) + side_loss.item()
            total = total + side_loss
        if not all(math.isfinite(v) for v in values.values()):
            raise _non_finite("the loss", values, training, batch["name"])
        training.scaler.scale(total * share).backward()
    progress = training.progress
    progress.samples += len(batch["name"]) * training.ranks.world
    progress.batches += 1
    for name, value in values.items():
        progress.sums[name] = progress.sums.get(name, 0.0) + value


def _non_finite(
    what: str, value: object, training: Training, names: Iterable[str]
) -> NonFiniteLoss:
    return NonFiniteLoss(
        f"{what} is {value} in epoch {training.progress.epoch} for the batch of "
        f"{', '.join(names)}: look at these files, or lower learning_rate"
    )


class Sample(NamedTuple):
    """An evaluated image: uint8 (H, W, 3), target (H, W) with 255 ignored, probability (H, W)."""

    name: str
    image: np.ndarray
    target: np.ndarray
    probability: np.ndarray


def evaluate(
    model: RoadModel,
    images: Dataset,
    loss: RoadLoss,
    scoring: Scoring,
    *,
    tile: int,
    overlap: float,
    batch_size: int,
    ranks: Ranks,
    amp_dtype: torch.dtype | None = None,
    num_samples: int = 4,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    stop_asked: Callable[[], bool] = lambda: False,
) -> tuple[dict[str, float], list[Sample]]:
    """Scores over a split at native resolution, tiled, and its first samples for pictures.

    Images are shared out over the ranks and the integer counts summed. The loss is the mean over
    images with a valid pixel of the loss of the image's blended probabilities. Raises Stopped as
    training does.
    """
    scores, losses, samples = {}, {}, []
    for first in progress(range(0, len(images), ranks.world)):
        index = first + ranks.rank
        if index < len(images):
            item = images[index]
            with naming(item["name"]):
                probability = predict(
                    model,
                    item["image"],
                    tile=tile,
                    overlap=overlap,
                    batch_size=batch_size,
                    device=ranks.device,
                    amp_dtype=amp_dtype,
                )
            target = item["target"].numpy()
            scores[index] = score_image(probability, target, scoring)
            losses[index] = _loss_of(loss, probability, item["target"])
            if index < num_samples:
                image = item["image"].permute(1, 2, 0).numpy()  # CHW -> HWC
                samples.append(Sample(item["name"], image, target, probability))
        if any_rank(stop_asked(), ranks.device):
            raise Stopped
    scores, losses = gather_in_order(scores), gather_in_order(losses)
    with_data = [loss for loss, image in zip(losses, scores, strict=True) if image.counts.has_data]
    mean_loss = {"loss": math.fsum(with_data) / max(1, len(with_data))}
    return mean_loss | score_split(scores), _gather_samples(samples)


def _loss_of(loss: RoadLoss, probability: np.ndarray, target: Tensor) -> float:
    logits = torch.logit(torch.from_numpy(probability), eps=1e-6)
    total, _ = loss(logits[None, None], target[None])
    return float(total)


def _gather_samples(samples: list[Sample]) -> list[Sample]:
    gathered = all_gather_objects(samples)
    return sorted((s for part in gathered for s in part), key=lambda sample: sample.name)


def _autocast(device: torch.device, dtype: torch.dtype | None) -> autocast:
    return autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
