#!/usr/bin/env python
"""Datasets: write the embedded sample, and check a dataset folder before training on it.

python prepare_data.py sample --dst datasets/sample
python prepare_data.py check datasets/sample
"""

from __future__ import annotations

import argparse
import sys


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)

    sample = commands.add_parser("sample", help="write the procedural road dataset")
    sample.add_argument("--dst", required=True, help="folder to write, as ROOT/DATASET")
    sample.add_argument("--images", type=int, default=64, help="scenes in all (default 64)")
    sample.add_argument("--size", type=int, default=512, help="side in pixels (default 512)")
    sample.add_argument("--seed", type=int, default=6, help="same seed, same bytes (default 6)")

    check = commands.add_parser("check", help="report everything that is wrong with a dataset")
    check.add_argument("dataset", help="ROOT/DATASET, with {train,val,test}/{image,label} in it")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.command == "sample":
        from utils.synthetic import write_sample_dataset

        return write_sample_dataset(args.dst, images=args.images, size=args.size, seed=args.seed)
    from utils.dataset_check import check_dataset

    return check_dataset(args.dataset)


if __name__ == "__main__":
    sys.exit(main())
