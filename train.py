#!/usr/bin/env python
"""Train the model of a config.

python train.py -c config/Anchor-SAM.yaml
python train.py -c config/UNet.yaml image_size=512 batch_size=8 ema_decay=0.999
python train.py -c config/UNet.yaml load=auto       continue the newest run where it stopped
torchrun --nproc-per-node 4 train.py -c config/Anchor-SAM.yaml
python train.py --list-models                       what can be trained, and from which config
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from utils.arguments import ArgumentParser
from utils.command_line import StopRequest, plain_end, set_up_logging, user_mistakes

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from utils.budget import Stopwatch
    from utils.dataset import WholeImages
    from utils.schema import Config
    from utils.tracking import Tracker
    from utils.training import Training

logger = logging.getLogger("train")


class ListModels(argparse.Action):
    """Print the table and end, as --help does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from model.listing import models_table

        with user_mistakes():
            table = models_table()
        print(table)
        parser.exit()


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    parser.add_argument("-c", "--config", required=True, metavar="FILE", help="the YAML to train")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings in place of the file's"
    )
    parser.add_argument(
        "--list-models", action=ListModels, nargs=0, help="show models, papers, sizes and configs"
    )
    return parser.read(argv)


@plain_end("go on with load=auto")
def main(argv: list[str] | None = None) -> int:
    """Train; the exit status, 1: something is not finite, 2: a mistake, 130 or 143: a signal."""
    args = parse_args(argv)
    set_up_logging()
    stop = StopRequest()

    # torch takes seconds to import; a question for --help should not wait for it
    import model
    from utils import distributed
    from utils.budget import fit_epochs
    from utils.checkpoint import seed_everything
    from utils.engine import NonFiniteLoss, Stopped
    from utils.loading import load_splits
    from utils.predict import NonFinitePrediction
    from utils.resume import begin, find_start
    from utils.tracking import Tracker
    from utils.training import build_training

    with user_mistakes():
        config = read_config(args)
        ranks = distributed.init(config.device)
        start = find_start(config)
        batches, val = load_splits(config, ranks)
        per_epoch = batches.batch_sampler.batches_per_epoch
        config = fit_epochs(config, per_epoch)
        seed_everything(config.random_seed)  # the same first weights on every rank
        network = model.build_model(
            config.model_classname, config.model_args, load_pretrained=start.checkpoint is None
        )
        seed_everything(config.random_seed, ranks.rank)
        state = build_training(config, ranks, network, batches_per_epoch=per_epoch)
        begin(state, start)
        run = distributed.broadcast_object(start.run_folder(config) if ranks.is_main else None)

    tracker = Tracker(run, config, state.history) if ranks.is_main else None
    try:
        fit(state, batches, val, run, tracker, stop)
    except Stopped:
        save_last(state, run)
        last = (run / "last.pth").absolute()
        logger.info("stopped after a whole step; to continue: load=%s", last)
        return stop.exit_status
    except (NonFiniteLoss, NonFinitePrediction) as error:
        logger.error("%s", error)
        return 1
    finally:
        if tracker:
            tracker.end()
        distributed.shut_down(state.network)
    if tracker:
        tracker.report(state.progress.best_epoch, state.progress.best_scores)
    return 0


def read_config(args: argparse.Namespace) -> Config:
    """The checked config; what in it does nothing, or stands in a training's way, is said."""
    import model
    from utils.config import load_config
    from utils.config_warnings import training_warnings

    config = load_config(
        args.config,
        args.overrides,
        model_names=model.list_models(),
        model_class=model.model_class,
        warn=logger.warning,
    )
    for line in training_warnings(config):
        logger.warning("%s: %s", args.config, line)
    return config


def fit(
    training: Training,
    batches: DataLoader,
    val: WholeImages,
    run: Path,
    tracker: Tracker | None,
    stop: StopRequest,
) -> None:
    """Every epoch that is left: train, evaluate on val, keep the best, write what can be read."""
    from utils.budget import Stopwatch, has_ended

    config, progress, sampler = training.config, training.progress, batches.batch_sampler
    watch = Stopwatch(progress.seconds, config.max_minutes, training.ranks)
    if has_ended(training, sampler.batches_per_epoch, watch):
        logger.info("%s has done its %d steps: nothing left to train", run, training.schedule.steps)
        return
    # an epoch that was cut, and goes on, is reported anew at its end
    training.history[:] = [row for row in training.history if row["epoch"] < progress.epoch]
    is_last = False
    while not is_last:
        epoch, started = progress.epoch, time.monotonic()
        losses = train_epoch(training, batches, run, stop, watch)
        is_last = watch.is_over or epoch == config.epochs
        is_whole = progress.samples >= sampler.batches_per_epoch * sampler.joint_batch
        scores, samples = {}, []
        if is_last or is_evaluated(config, epoch):
            scores, samples = evaluate_epoch(training, val, stop)
            keep_best(training, scores, run)
            if is_whole:
                training.schedule.evaluated(scores["f1"], scores["loss"])
        rate = training.schedule.rate
        if tracker:
            tracker.log("train", epoch, losses | {"lr": rate})
            if scores:
                tracker.log("val", epoch, scores)
                tracker.write_samples(epoch, samples)
            tracker.write()
            tracker.say(epoch, seconds=time.monotonic() - started, share_done=watch.share)
        if is_whole:
            progress.next_epoch()
        if config.save_checkpoint and (is_last or epoch % config.save_interval == 0):
            save_last(training, run)


def train_epoch(
    training: Training, batches: DataLoader, run: Path, stop: StopRequest, watch: Stopwatch
) -> dict[str, float]:
    """The rest of the epoch in work; writes last.pth every `save_every_steps` optimiser steps."""
    from utils.budget import batches_in
    from utils.engine import train_one_epoch
    from utils.progress import progress

    config, epoch = training.config, training.progress.epoch
    sampler = batches.batch_sampler
    done = training.progress.samples // sampler.joint_batch
    end = done if watch.is_over else batches_in(config, epoch, sampler.batches_per_epoch)
    sampler.start_at(epoch, done, end)
    remaining = len(sampler)

    def count_time() -> None:
        training.progress.seconds = watch.seconds
        if watch.share is not None:
            training.schedule.spend(watch.share)

    def after_step() -> None:
        watch.lap()
        count_time()
        every = config.save_every_steps
        if config.save_checkpoint and every and training.schedule.steps % every == 0:
            save_last(training, run)
            watch.start()

    count_time()
    watch.start()
    return train_one_epoch(
        training,
        progress(batches, remaining, f"epoch {epoch}/{config.epochs}"),
        remaining=remaining,
        after_step=after_step,
        stop_asked=stop.asked,
        time_is_up=lambda: watch.is_over,
    )


def evaluate_epoch(training: Training, val: WholeImages, stop: StopRequest) -> tuple[dict, list]:
    """Scores and sample predictions on val, with the averaged weights where they are kept."""
    from utils.engine import evaluate
    from utils.image_scores import Scoring
    from utils.progress import progress
    from utils.tracking import VAL_THRESHOLD

    config = training.config
    averaged = training.ema.applied_to(training.model) if training.ema else nullcontext()
    with averaged:
        return evaluate(
            training.model,
            val,
            training.local_loss,
            Scoring(VAL_THRESHOLD, [*config.metrics, config.best_metric], config.pixel_size),
            tile=config.image_size,
            overlap=config.tile_overlap,
            batch_size=config.inference.batch_size or config.batch_size,
            ranks=training.ranks,
            amp_dtype=training.amp_dtype,
            progress=lambda indices: progress(indices, len(indices), "val"),
            stop_asked=stop.asked,
        )


def is_evaluated(config: Config, epoch: int) -> bool:
    """Every `evaluate_interval` epochs from `evaluate_epoch` on; the last one always is."""
    since = epoch - config.evaluate_epoch
    return since >= 0 and since % config.evaluate_interval == 0


def keep_best(training: Training, scores: dict[str, float], run: Path) -> None:
    """Write the checkpoints that the scores make the best."""
    from utils.checkpoint import save_checkpoint
    from utils.metric_names import main_value
    from utils.runs import BEST_F1, BEST_LOSS, best_of
    from utils.training import weights_checkpoint

    progress, metric = training.progress, training.config.best_metric
    better = set()
    if scores["f1"] > progress.best_f1:
        progress.best_f1 = scores["f1"]
        better.add(BEST_F1)
    if scores["loss"] < progress.best_loss:
        progress.best_loss = scores["loss"]
        better.add(BEST_LOSS)
    key, more_is_better = main_value(metric)
    score = scores[key] if more_is_better else -scores[key]
    if score > progress.best_score:
        progress.best_score, progress.best_epoch = score, progress.epoch
        progress.best_scores = scores
        better.add(best_of(metric))
    if training.config.save_best_model and training.ranks.is_main:
        for name in better:
            save_checkpoint(run / name, weights_checkpoint(training, scores))


def save_last(training: Training, run: Path) -> None:
    """Write last.pth, from which the run continues exactly. Every rank calls it."""
    from utils.checkpoint import save_checkpoint
    from utils.training import resumable_checkpoint

    checkpoint = resumable_checkpoint(training)
    if training.ranks.is_main:
        save_checkpoint(run / "last.pth", checkpoint)


if __name__ == "__main__":
    sys.exit(main())
