"""What the config's `load` means: a run continued exactly, or weights for a new run."""

from __future__ import annotations

import inspect
import logging
import math
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from model import PRETRAINED_ARGS
from utils.checkpoint import (
    SAFETENSORS,
    inference_weights,
    is_resumable,
    load_checkpoint,
    load_model_weights,
    read_torch_file,
    restore_random_state,
)
from utils.files import remove_leftovers
from utils.runs import BEST_F1, LAST, latest_folder, new_run
from utils.schema import Config
from utils.training import Progress, Training

logger = logging.getLogger(__name__)

#: Settings that a resumed run may change without becoming another run.
_FREE_ON_RESUME = {
    "load",
    "epochs",
    "max_steps",
    "max_minutes",
    "run_name",
    "num_workers",
    "device",
    "inference",
    "tta",
    "comet_ml",
    "log_project_name",
    "save_interval",
    "save_every_steps",
    "save_checkpoint",
    "save_best_model",
    "evaluate_epoch",
    "evaluate_interval",
    "metrics",
    "reset_scheduler_on_load",
}


class Start(NamedTuple):
    """Where a training begins; without a checkpoint, at the beginning."""

    source: Path | None = None
    checkpoint: dict[str, Any] | None = None
    continues: bool = False

    def run_folder(self, config: Config) -> Path:
        """The folder to write to: the continued run's own, or a new one.

        With 'auto', a run that ended before its first checkpoint is started again in its place.
        """
        if self.continues and self.source:
            folder = self.source.parent
        else:
            unstarted = latest_folder(config) if config.load == "auto" else None
            folder = unstarted or new_run(config)
        remove_leftovers(folder)
        return folder


def find_start(config: Config) -> Start:
    """Read what `load` names: a path, or 'auto' for the last.pth of the config's newest run.

    Raises ValueError for a file that is missing, damaged, or of another model.
    """
    if config.load is None:
        return Start()
    if config.load == "auto":
        run = latest_folder(config)
        if run is None or not (run / LAST).is_file():
            logger.info("load: no run to continue, this one starts anew")
            return Start()
        source = run / LAST
    else:
        source = Path(config.load)
    if source.suffix != SAFETENSORS:
        content = read_torch_file(source)
        if "model_classname" not in content:
            weights = content.get("model", content)
            return Start(source, {"model": weights, "ema": None}, continues=False)
    checkpoint = load_checkpoint(source)
    _refuse_other_model(checkpoint["model_classname"], config.model_classname, source)
    return Start(source, checkpoint, continues=is_resumable(checkpoint))


def begin(training: Training, start: Start) -> None:
    """Put what `find_start` read into the training.

    Raises ValueError when the weights do not fit the model.
    """
    if start.checkpoint is None:
        return
    if start.continues:
        resume(training, start.checkpoint, str(start.source))
        progress = training.progress
        logger.info("continuing %s in epoch %d", start.source, progress.epoch)
    else:
        weights = inference_weights(start.checkpoint)
        _load_weights(training, weights, start.checkpoint.get("config"), str(start.source))
        logger.info("weights of %s, with a fresh optimiser", start.source)
        if training.ema:
            training.ema.reset(training.model)


def _refuse_other_model(stored: str, wanted: str, source: Path) -> None:
    if stored != wanted:
        raise ValueError(
            f"{source} is a checkpoint of {stored}, the config asks for {wanted}: "
            "change model_classname or load"
        )


def resume(training: Training, checkpoint: dict[str, Any], source: str) -> None:
    """Continue exactly where a last.pth was written; warns of each setting that differs.

    Raises ValueError when the weights do not fit the model.
    """
    _load_weights(training, checkpoint["model"], checkpoint["config"], source)
    _warn_of_changes(training.config, checkpoint["config"], source)
    _load_optimizer(training.optimizer, checkpoint["optimizer"], source)
    if training.config.reset_scheduler_on_load:
        logger.info("reset_scheduler_on_load: warm-up and schedule start anew")
    else:
        training.schedule.load_state_dict(checkpoint["schedule"])
    training.scaler.load_state_dict(checkpoint["scaler"])
    if training.ema and checkpoint["ema"]:
        training.ema.weights = {
            name: value.to(training.ranks.device) for name, value in checkpoint["ema"].items()
        }
        training.ema.updates = checkpoint["ema_updates"]
    elif training.ema:
        training.ema.reset(training.model)
    training.progress = Progress(**checkpoint["progress"])
    if checkpoint["config"].get("best_metric") != training.config.best_metric:
        training.progress.best_score, training.progress.best_epoch = -math.inf, 0
        training.progress.best_scores = {}
    training.history = checkpoint["history"]
    states = checkpoint["random"]
    if len(states) == training.ranks.world:
        restore_random_state(states[training.ranks.rank])
    else:
        logger.warning(
            "%s was written by %d ranks, now there are %d: random states start anew",
            source,
            len(states),
            training.ranks.world,
        )


def _load_weights(
    training: Training, weights: dict[str, Tensor], stored: dict[str, Any] | None, source: str
) -> None:
    """Load them; where they do not fit, name the model's arguments that differ before tensors.

    `stored` is the config that they were trained with, None in a foreign file.
    """
    try:
        load_model_weights(training.model, weights, source)
    except ValueError as misfit:
        lines = _other_arguments(training, stored["model_args"], source) if stored else []
        raise ValueError("\n".join([*lines, str(misfit)])) from None


def _other_arguments(training: Training, stored: dict[str, Any], source: str) -> list[str]:
    """A line for each argument of the model that differs, defaults counted in."""
    lines = []
    for name, parameter in inspect.signature(type(training.model)).parameters.items():
        there = stored.get(name, parameter.default)
        here = training.config.model_args.get(name, parameter.default)
        if there != here and name not in PRETRAINED_ARGS:
            lines.append(
                f"{source} was trained with model_args.{name}={there}, the config asks for {here}: "
                f"set model_args.{name}={there}, or load another file"
            )
    return lines


def _load_optimizer(optimizer: Optimizer, state: dict[str, Any], source: str) -> None:
    """The stored moments with the config's own weight decay; the rate is the schedule's to set."""
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state)
    except ValueError:
        raise ValueError(
            f"{source} cannot go on: its run trained other parameters (training_strategy); "
            f"load={Path(source).with_name(BEST_F1)} starts a new run from its weights"
        ) from None
    for group, decay in zip(optimizer.param_groups, decays, strict=True):
        group["weight_decay"] = decay


def _warn_of_changes(config: Config, stored: dict[str, Any], source: str) -> None:
    now = config.model_dump(mode="json")
    for key, value in now.items():
        if key not in _FREE_ON_RESUME and stored.get(key, value) != value:
            logger.warning("%s: %s was %s, is now %s", source, key, stored[key], value)
