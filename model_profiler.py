#!/usr/bin/env python
"""Weigh the models of configs: parameters, FLOPs, latency and memory, whole and by part.

python model_profiler.py                            config/Anchor-SAM.yaml
python model_profiler.py -c config/UNet.yaml config/Anchor-SAM.yaml --size 512 --train
python model_profiler.py -c config/*.yaml --no-latency

Parameters and FLOPs are counted without memory for the weights; no weight file is read.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from utils.arguments import ArgumentParser
from utils.command_line import (
    Mistakes,
    end_at_signals,
    plain_end,
    refuse,
    set_up_logging,
    user_mistakes,
)

if TYPE_CHECKING:
    from utils.profiling.timing import Conditions

logger = logging.getLogger("model_profiler")

CONFIG_FILE_PATH = Path(__file__).parent / "config" / "Anchor-SAM.yaml"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("-c", "--config", nargs="+", default=[CONFIG_FILE_PATH], metavar="FILE", help="YAMLs")
    add("--size", type=int, default=1024, metavar="PX", help="side of the images (default 1024)")
    add("--batch", type=int, default=1, help="images at a time (default 1)")
    add("--device", default="auto", choices=["auto", "cpu", "cuda"])
    add("--dtype", default="fp32", choices=["fp32", "bf16", "fp16"], help="of autocast")
    add("--compile", action="store_true", help="time what torch.compile makes of the model")
    add("--train", action="store_true", help="time a training step, too")
    add("--no-latency", action="store_true", help="only count, and time nothing")
    add("--warm-up", type=int, default=3, metavar="N", help="passes before timing (default 3)")
    add("--repeats", type=int, default=20, metavar="N", help="timed passes (default 20)")
    add(
        "--limit", type=float, default=60, metavar="S",
        help="begin no further timed pass of a model after so many seconds (default 60)",
    )  # fmt: skip
    add("--output", type=Path, default=Path("results/profile"), metavar="DIR",
        help="for profile.json, .xlsx and .png (default results/profile)")  # fmt: skip
    return parser.read(argv)


@plain_end()
def main(argv: list[str] | None = None) -> int:
    """Weigh every model, print and write the tables; the exit status.

    0: all were measured; 1: some failed, and their row says why; 2: a mistake in the arguments.
    """
    args = parse_args(argv)
    set_up_logging()
    end_at_signals()

    # torch takes seconds to import; a question for --help should not wait for it
    import model
    from utils import distributed
    from utils.config import load_configs
    from utils.profiling.figure import draw_profile
    from utils.profiling.profile import profile_model
    from utils.profiling.report import as_json, console, describe, write_files
    from utils.profiling.timing import device_name
    from utils.progress import progress

    models = {"model_names": model.list_models(), "model_class": model.model_class}
    mistakes = Mistakes()
    with user_mistakes():
        with mistakes:
            conditions = read_conditions(args)
        with mistakes:
            configs = load_configs(args.config, **models, warn=logger.debug)
        with mistakes:
            processor = device_name(distributed.init(args.device).device)
        mistakes.report()
        args.output.mkdir(parents=True, exist_ok=True)
    profiles = [
        profile_model(name, config, conditions, latency=not args.no_latency, train=args.train)
        for name, config in progress(configs.items(), len(configs), "models")
    ]
    report = as_json(profiles, conditions, processor)
    write_files(report, args.output)
    print(describe(conditions, processor, timed=args.train or not args.no_latency))
    print(console(report))
    files = ["profile.json", "profile.xlsx"]
    if any(found.weight for found in profiles):
        draw_profile(report, args.output / "profile.png")
        files.append("profile.png")
    print(f"{args.output}/: {', '.join(files)}")
    return 1 if any(found.problems for found in profiles) else 0


def read_conditions(args: argparse.Namespace) -> Conditions:
    """The checked arguments. ValueError for all that cannot be."""
    from utils.profiling.timing import Conditions

    least = {"size": 1, "batch": 1, "warm_up": 0, "repeats": 1, "limit": 0}
    problems = [
        f"--{name.replace('_', '-')}: {getattr(args, name)} is less than {bound}"
        for name, bound in least.items()
        if getattr(args, name) < bound
    ]
    refuse(problems)
    return Conditions(
        size=args.size,
        batch=args.batch,
        device=args.device,
        dtype=args.dtype,
        compiled=args.compile,
        warm_up=args.warm_up,
        repeats=args.repeats,
        limit_s=args.limit,
    )


if __name__ == "__main__":
    sys.exit(main())
