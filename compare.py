#!/usr/bin/env python
"""Train, score and compare models under one protocol: tables, tests, figures, a report.

python compare.py -c config/UNet.yaml config/D-LinkNet.yaml --seeds 6,7,8 --budget epochs=20
python compare.py -c config/[A-Z]*.yaml --budget steps=2000 dataset_name=massachusetts
python compare.py --runs logs_weights                          runs that are trained already
torchrun --nproc-per-node 4 compare.py -c config/[A-Z]*.yaml   each training over 4 processes

What has been done stands in the folder of --out: called again after an interruption, with the
same arguments, it goes on. Models, seeds and metrics may be added later.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.arguments import ArgumentParser
from utils.command_line import Mistakes, plain_end, set_up_logging, user_mistakes

if TYPE_CHECKING:
    from utils.comparison.plan import Task
    from utils.comparison.work import Work
    from utils.schema import Config

logger = logging.getLogger("compare")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    # `-c A.yaml B.yaml key=value` puts the overrides behind the files
    add("-c", "--config", nargs="+", default=[], metavar="FILE", help="YAMLs, a model each; "
        "key=value behind them are settings in place of every file's")  # fmt: skip
    add("overrides", nargs="*", metavar="key=value", help=argparse.SUPPRESS)
    add("--runs", nargs="+", type=Path, default=[], metavar="DIR",
        help="take trained runs, or folders of them, and train nothing")  # fmt: skip
    add("--seeds", metavar="N,N,...", help="random seeds (default: the configs' own, or the runs')")
    add("--budget", metavar="KIND=N", help="epochs=E, steps=S or minutes=M of every training")
    add("--out", "--output", type=Path, default=Path("results/comparison"), metavar="DIR",
        help="default results/comparison")  # fmt: skip
    add("--no-latency", action="store_true", help="time no model")
    args = parser.read(argv)
    args.overrides += [text for text in args.config if "=" in text]
    args.config = [text for text in args.config if "=" not in text]
    return args


@plain_end()
def main(argv: list[str] | None = None) -> int:
    """Do what is left of the comparison and write its tables; the exit status.

    0: all is done; 1: a model failed or could not be weighed; 2: a mistake in the arguments; 130 or
    143: stopped by a signal.
    """
    args = parse_args(argv)
    set_up_logging()
    if int(os.environ.get("RANK", 0)):
        return 0  # the first of torchrun's processes starts the others' work

    from utils.comparison.launch import Interrupted, Launcher, leave_torchrun, only_one
    from utils.comparison.work import Work

    with ExitStack() as stack:
        with user_mistakes():
            ranks = leave_torchrun()
            tasks = plan(args)
            lock = stack.enter_context(only_one(args.out))
            work = Work(args.out, Launcher(args.out, ranks=ranks, lock=lock))
            work.prepare(tasks)
        try:
            failures = do_all(work, tasks)
            finished = [task for task in tasks if task.key not in failures]
            if not finished:
                logger.error("nothing to compare: every model failed")
                return 1
            about = {"budget": args.budget or "each config's own", "ranks": ranks}
            whole = conclude(work, finished, failures, about, latency=not args.no_latency)
        except Interrupted as stop:
            logger.info("%s: stopped; the same command goes on", stop)
            return stop.exit_status
    return 0 if whole and not failures else 1


def plan(args: argparse.Namespace) -> list[Task]:
    """The models and seeds to compare. ValueError for every kind of mistake."""
    import model
    from utils.comparison.existing import find_tasks
    from utils.comparison.plan import plan_trainings, read_budget, read_seeds
    from utils.config import load_config, load_configs

    models: dict[str, Any] = {"model_names": model.list_models(), "model_class": model.model_class}
    mistakes = Mistakes()
    with mistakes:
        if not args.config and not args.runs:
            raise ValueError("name configs (-c FILE ...) or trained runs (--runs DIR)")
    with mistakes:
        if args.runs and args.budget:
            raise ValueError("--budget has no meaning with --runs, which are trained already")
    with mistakes:
        seeds = read_seeds(args.seeds) if args.seeds else ()
    with mistakes:
        budget = read_budget(args.budget) if args.budget else {}
    with mistakes:
        configs = load_configs(args.config, args.overrides, **models, warn=logger.debug)
    mistakes.report()
    if not args.runs:
        return plan_trainings(configs, seeds, budget)

    def read(path: Path) -> Config:
        return load_config(path, args.overrides, **models, warn=logger.debug)

    return find_tasks(args.runs, configs, seeds, read)


def do_all(work: Work, tasks: Sequence[Task]) -> dict[str, str]:
    """Train and score what is not done yet; the reasons of those that fail, by their keys."""
    from utils.comparison.launch import ScriptFailed

    failures = {}
    for number, task in enumerate(tasks, start=1):
        logger.info("[%d/%d] %s", number, len(tasks), task.key)
        try:
            work.do(task)
        except ScriptFailed as error:
            logger.error("%s: FAILED: %s", task.key, error)
            failures[task.key] = str(error)
    return failures


def conclude(
    work: Work,
    tasks: Sequence[Task],
    failures: Mapping[str, str],
    about: Mapping[str, Any],
    *,
    latency: bool,
) -> bool:
    """Measure costs, write everything that is to be read, print the tables; whether all costs
    could be measured."""
    from utils.comparison.costs import measure_costs
    from utils.comparison.outputs import write_outputs
    from utils.comparison.plan import differing
    from utils.comparison.summary import Scored, summarise
    from utils.comparison.tables import score_table, significance_table, to_console
    from utils.dataset import WholeImages, find_pairs

    first: dict[str, Task] = {}
    for task in tasks:
        first.setdefault(task.model, task)
    configs = {name: task.config for name, task in first.items()}
    costs, processor = measure_costs(configs, work.folder, latency=latency)
    config = tasks[0].config
    about = dict(about) | {
        "dataset": config.dataset_name,
        "data": str(Path(config.root_dir) / config.dataset_name),
        "image_size": config.image_size,
        "processor": processor,
        "differing_settings": differing(configs),
    }
    with user_mistakes():
        scored = [
            Scored.read(task.model, task.seed, task.config.model_classname, work.results(task))
            for task in tasks
        ]
        summary = summarise(scored, costs, failures, about)
        split = find_pairs(config.root_dir, config.dataset_name, config.inference.split)
        masks = {name: work.results(task) / "mask" for name, task in first.items()}
        images = WholeImages(split, config.ignore_nodata)
        files = write_outputs(summary, images, masks, work.folder)
    for table in [score_table(summary), significance_table(summary)][: len(first)]:
        print(to_console(table))
        print(table.caption)
    for key, reason in failures.items():
        print(f"{key}: FAILED: {reason}")
    print(f"{work.folder}/: {', '.join(files)}")
    return not any(cost["problems"] for cost in costs.values())


if __name__ == "__main__":
    sys.exit(main())
