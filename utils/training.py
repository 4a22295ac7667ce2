"""Everything that changes while a model trains: how it is built, stored and continued."""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel

from model.base import RoadModel
from utils.checkpoint import random_state
from utils.compiling import compile_network
from utils.distributed import Ranks, all_gather_objects, sum_over_ranks
from utils.losses import RoadLoss, build_loss
from utils.optim import AveragedWeights, Schedule, build_optimizer
from utils.schema import Config
from utils.sync_batchnorm import synchronise_batchnorm

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a training has come."""

    epoch: int = 1  # the epoch in work
    seconds: float = 0.0  # spent in training steps, in all sittings
    samples: int = 0  # crops of it that all ranks together have taken
    batches: int = 0  # a rank's batches of it, which went into `sums`
    sums: dict[str, float] = field(default_factory=dict)  # of each loss over those batches
    best_f1: float = -math.inf
    best_loss: float = math.inf
    best_score: float = -math.inf  # of `best_metric`, the higher the better
    best_epoch: int = 0  # by `best_metric`
    best_scores: dict[str, float] = field(default_factory=dict)  # of that epoch

    def next_epoch(self) -> None:
        self.epoch += 1
        self.samples, self.batches, self.sums = 0, 0, {}


@dataclass
class Training:
    """A model in training; `history` holds the rows of metrics.jsonl."""

    config: Config
    ranks: Ranks
    model: RoadModel
    network: nn.Module  # the model, or what DDP and torch.compile made of it
    loss: RoadLoss  # over the joint batch of all ranks
    local_loss: RoadLoss  # over this rank's images, for evaluation
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: GradScaler
    ema: AveragedWeights | None
    amp_dtype: torch.dtype | None
    progress: Progress = field(default_factory=Progress)
    history: list[dict[str, Any]] = field(default_factory=list)


def build_training(
    config: Config, ranks: Ranks, model: RoadModel, *, batches_per_epoch: int
) -> Training:
    """Put a model on its device and give it what training needs, as the config says.

    Raises ValueError for a mode or an option that the model does not offer, and where the compiler
    that `compile` wants is not there.
    """
    model.set_training_mode(config.training_strategy.mode)
    if config.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    model = synchronise_batchnorm(model.to(ranks.device), ranks.device.type)
    optimizer = build_optimizer(model, config)
    steps_per_epoch = math.ceil(batches_per_epoch / config.gradient_accumulation)
    schedule = Schedule(
        optimizer,
        config.scheduler,
        warm_up_steps=config.warm_up_step,
        steps_per_epoch=steps_per_epoch,
        epochs=config.epochs,
        max_steps=config.max_steps,
    )
    steps = config.max_steps or steps_per_epoch * config.epochs
    if config.warm_up_step >= steps:
        logger.warning(
            "warm_up_step: the run's %d steps end within the warm-up of %d",
            steps,
            config.warm_up_step,
        )
    dtype = amp_dtype(config.amp, ranks.device)
    scaled = dtype is torch.float16 and ranks.device.type == "cuda"
    return Training(
        config=config,
        ranks=ranks,
        model=model,
        network=_wrap(model, config, ranks),
        loss=build_loss(config.loss, sum_over_ranks),
        local_loss=build_loss(config.loss),
        optimizer=optimizer,
        schedule=schedule,
        scaler=GradScaler(ranks.device.type, enabled=scaled),
        ema=AveragedWeights(model, config.ema_decay) if config.ema_decay else None,
        amp_dtype=dtype,
    )


def _wrap(model: RoadModel, config: Config, ranks: Ranks) -> nn.Module:
    network: nn.Module = model
    if ranks.world > 1:
        # A depthwise weight's axis of length 1 may have any stride; DDP compares the numbers.
        depthwise = r"(?s)Grad strides do not match bucket view.*?grad\.sizes\(\) = \[\d+, 1, "
        warnings.filterwarnings("ignore", depthwise)
        devices = [ranks.device.index] if ranks.device.type == "cuda" else None
        network = DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)
    return compile_network(network, ranks.device) if config.compile else network


def amp_dtype(setting: bool | str, device: torch.device) -> torch.dtype | None:
    """The autocast type of the config's `amp`: None for float32."""
    if setting == "bf16":
        return torch.bfloat16
    if setting == "fp16":
        return torch.float16
    if not setting or device.type == "cpu":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def weights_checkpoint(training: Training, scores: dict[str, float]) -> dict[str, Any]:
    """What inference needs: the config, the weights and the scores that chose them."""
    return {
        "model_classname": training.config.model_classname,
        "config": training.config.model_dump(mode="json"),
        "epoch": training.progress.epoch,
        "model": training.model.state_dict(),
        "ema": training.ema.weights if training.ema else None,
        "threshold": None,
        "scores": scores,
    }


def resumable_checkpoint(training: Training) -> dict[str, Any]:
    """Everything that an exact continuation needs. A collective call: every rank makes it."""
    return {
        **weights_checkpoint(training, scores={}),
        "optimizer": training.optimizer.state_dict(),
        "schedule": training.schedule.state_dict(),
        "scaler": training.scaler.state_dict(),
        "ema_updates": training.ema.updates if training.ema else 0,
        "progress": asdict(training.progress),
        "history": training.history,
        "random": all_gather_objects(random_state()),
    }
