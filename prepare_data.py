#!/usr/bin/env python
"""Datasets: prepare a public one, write the embedded sample, check a folder before training on it.

python prepare_data.py deepglobe --src DOWNLOADED --dst datasets
python prepare_data.py spacenet --src DOWNLOADED --dst datasets --split ratio:80,10,10 --tile 1024
python prepare_data.py sample --dst datasets/sample
python prepare_data.py check datasets/deepglobe
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from utils.arguments import ArgumentParser
from utils.command_line import end_at_signals, plain_end, set_up_logging, user_mistakes

if TYPE_CHECKING:
    from argparse import Namespace

    from utils.preparation.prepare import Request

#: What each distribution is, and the splits that it has.
DATASETS = {
    "deepglobe": ("DeepGlobe roads", "academic (default; 4696 to train on, 1530 to test on)"),
    "massachusetts": ("Massachusetts roads", "official (default)"),
    "spacenet": ("SpaceNet 3 and 5 roads", "ratio:80,10,10 (default)"),
    "chn6": ("CHN6-CUG roads", "official (default)"),
}


def parse_args(argv: list[str] | None) -> Namespace:
    parser = ArgumentParser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (title, splits) in DATASETS.items():
        add_dataset(commands.add_parser(name, help=f"prepare {title}"), name, splits)

    sample = commands.add_parser("sample", help="write the procedural road dataset")
    sample.add_argument("--dst", required=True, help="folder to write, as ROOT/DATASET")
    sample.add_argument("--images", type=int, default=64, help="scenes in all (default 64)")
    sample.add_argument("--size", type=int, default=512, help="side in pixels (default 512)")
    sample.add_argument("--seed", type=int, default=6, help="same seed, same bytes (default 6)")
    sample.add_argument(
        "--set-aside", action="store_true", help="move anything else that is in --dst to DST-1, ..."
    )

    check = commands.add_parser("check", help="report everything that is wrong with a dataset")
    check.add_argument("dataset", help="ROOT/DATASET, with {train,val,test}/{image,label} in it")
    return parser.read_command(argv)


def add_dataset(parser: ArgumentParser, name: str, splits: str) -> None:
    """The arguments of a dataset that is brought into the layout."""
    parser.add_argument(
        "--src", required=True, metavar="DIR", type=Path, help="where its archives are unpacked"
    )
    parser.add_argument(
        "--dst", required=True, metavar="ROOT", type=Path, help=f"it is written to ROOT/{name}"
    )
    parser.add_argument("--split", help=f"{splits}, or ratio:TRAIN,VAL,TEST")
    parser.add_argument(
        "--list",
        metavar="FILE",
        type=Path,
        help="names to train on, one a line, the others are tested on; or NAME SPLIT in each line",
    )
    parser.add_argument(
        "--tile", type=int, metavar="PX", help="cut images into tiles (default: keep them whole)"
    )
    parser.add_argument(
        "--overlap",
        type=int,
        default=0,
        metavar="PX",
        help="that tiles share; the last row and column, at the edge, share more (default 0)",
    )
    parser.add_argument("--seed", type=int, default=6, help="of splits by chance (default 6)")
    if name == "spacenet":
        parser.add_argument(
            "--road-width",
            type=float,
            metavar="METRES",
            help="of all roads (default: by their width or lanes, at least 8)",
        )


@plain_end()
def main(argv: list[str] | None = None) -> int:
    """Prepare, write or check a dataset; the exit status.

    0: all is well; 1: something in the data is wrong; 2: a mistake in the arguments.
    """
    args = parse_args(argv)
    set_up_logging()
    end_at_signals()
    with user_mistakes():
        if args.command == "sample":
            from utils.synthetic import write_sample_dataset

            wanted = {"images": args.images, "size": args.size, "seed": args.seed}
            return write_sample_dataset(args.dst, **wanted, set_aside=args.set_aside)
        if args.command == "check":
            from utils.dataset_check import check_dataset

            return check_dataset(args.dataset)
        from utils.preparation.prepare import prepare_dataset

        return prepare_dataset(read_request(args))


def read_request(args: Namespace) -> Request:
    """The arguments as the preparation takes them."""
    from utils.preparation.prepare import Request

    return Request(
        dataset=args.command,
        src=args.src,
        dst=args.dst,
        split=args.split,
        list_file=args.list,
        tile=args.tile,
        overlap=args.overlap,
        seed=args.seed,
        road_width_m=getattr(args, "road_width", None),
    )


if __name__ == "__main__":
    sys.exit(main())
