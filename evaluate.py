#!/usr/bin/env python
"""Compare predicted roads with the truth: masks, probability maps, vector files, road graphs.

python evaluate.py --pred results/RUN/prob --gt datasets/mass/test/label --output results/RUN
python evaluate.py --pred roads.gpkg --gt truth.geojson --metrics apls,topo --figures figures
python evaluate.py --pred prob --gt label --sweep        the best thresholds, of the val split

Folders are paired by stem. Georeferenced files bring their own pixel size and CRS; both sides
are brought to one metric CRS. Rasters are .png .jpg .tif .npy, graphs .geojson .gpkg and .json.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from utils.arguments import ArgumentParser
from utils.command_line import (
    Mistakes,
    end_at_signals,
    leave_signals_to_parent,
    plain_end,
    refuse,
    set_up_logging,
    user_mistakes,
)
from utils.cores import usable_cores
from utils.progress import progress

if TYPE_CHECKING:
    from utils.topology.pairs import PairPaths
    from utils.topology.scoring import Request, Scored

#: Fewer pairs than this are done before another process has imported what it needs.
POOL_FROM = 4


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    parser.add_argument("--pred", required=True, type=Path, help="file or folder of predictions")
    parser.add_argument("--gt", required=True, type=Path, help="file or folder of the truth")
    parser.add_argument(
        "--metrics", help="names separated by commas (default: all that the files allow)"
    )
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="road from this probability on (default 0.5)"
    )
    parser.add_argument(
        "--pixel-size", type=float, default=1.0, metavar="M",
        help="metres, for files that are not georeferenced (default 1.0)",
    )  # fmt: skip
    parser.add_argument(
        "--sweep", nargs="?", const="", metavar="T,T,...",
        help="try thresholds, and tell the best for IoU, F1 and APLS",
    )  # fmt: skip
    parser.add_argument(
        "--no-displace", dest="displace", action="store_false",
        help="APLS that attaches every control point, other than its authors' program",
    )  # fmt: skip
    parser.add_argument(
        "--connect", metavar="M[,DEG[,P]]",
        help="first close gaps of a predicted raster's roads whose ends face each other: up to M "
        "metres, within DEG degrees (30), mean probability at least P (0)",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="DIR", help="metrics.json and metrics.xlsx")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="a picture of each pair")
    parser.add_argument("--workers", type=int, help="processes (default: all cores)")
    return parser.read(argv)


@plain_end()
def main(argv: list[str] | None = None) -> int:
    """Score all pairs, print and write the tables; the exit status.

    0: all were scored; 1: some were not, and stderr says why; 2: a mistake in the arguments.
    """
    args = parse_args(argv)
    set_up_logging()
    end_at_signals()
    from utils.files import make_results_folder
    from utils.topology.pairs import find_pair_paths
    from utils.topology.report import (
        build_report,
        conditions,
        photo_warnings,
        table,
        write_report,
    )

    mistakes = Mistakes()
    with user_mistakes():
        with mistakes:
            request = read_request(args)
        with mistakes:
            paths, problems = find_pair_paths(args.pred, args.gt)
        mistakes.report()
        for folder in filter(None, (args.output, args.figures)):
            make_results_folder(folder)
    scored = list(score_all(paths, request, args.workers or usable_cores()))
    problems += [image.problem for image in scored if image.problem is not None]
    for line in (*problems, *photo_warnings(scored)):
        print(line, file=sys.stderr)
    report = build_report(scored, request)
    report["parameters"] |= {"prediction": str(args.pred), "truth": str(args.gt)}
    if not report["images"]:
        print("nothing could be scored", file=sys.stderr)
        return 1
    print(conditions(report["parameters"]))
    print(table(report))
    if args.output:
        write_report(report, args.output)
    return 1 if problems else 0


def read_request(args: argparse.Namespace) -> Request:
    """The checked arguments; ValueError for all that cannot be."""
    from utils.metrics import DEFAULT_THRESHOLDS
    from utils.topology.connect import read_join_rule
    from utils.topology.scoring import Request

    mistakes = Mistakes()
    with mistakes:
        names = read_metrics(args.metrics) if args.metrics else None
    with mistakes:
        if not 0 < args.pixel_size < math.inf:
            raise ValueError(f"--pixel-size: expected metres above 0, got {args.pixel_size}")
    with mistakes:
        if not 0 < args.threshold < 1:
            raise ValueError(f"--threshold: must lie between 0 and 1, got {args.threshold}")
    with mistakes:
        sweep = read_thresholds(args.sweep) if args.sweep else DEFAULT_THRESHOLDS
    with mistakes:
        join = read_join_rule(args.connect) if args.connect else None
    with mistakes:
        if args.workers is not None and args.workers < 1:
            raise ValueError(f"--workers: {args.workers} is less than 1")
    mistakes.report()
    return Request(
        metrics=names,
        threshold=args.threshold,
        pixel_size_m=args.pixel_size,
        displace=args.displace,
        sweep=() if args.sweep is None else sweep,
        figures=args.figures,
        join=join,
    )


def read_metrics(text: str) -> tuple[str, ...]:
    """'apls,topo' as names, each once. Raises ValueError for every one that is unknown."""
    from utils.config import nearest
    from utils.topology.scoring import METRICS

    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    problems = []
    for name in names:
        if name not in METRICS:
            near = nearest(name, METRICS)
            hint = f", did you mean {near!r}?" if near else ""
            problems.append(f"--metrics: unknown metric {name!r}{hint} (of: {', '.join(METRICS)})")
    refuse(problems)
    return names


def read_thresholds(text: str) -> tuple[float, ...]:
    """'0.3,0.5' as numbers, sorted. Raises ValueError for others than between 0 and 1."""
    try:
        thresholds = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        raise ValueError(f"--sweep: expected numbers separated by commas, got {text!r}") from None
    refuse([f"--sweep: {t:g} does not lie between 0 and 1" for t in thresholds if not 0 < t < 1])
    return thresholds


def score_all(paths: Sequence[PairPaths], request: Request, workers: int) -> Iterator[Scored]:
    """The pairs' scores in order, from as many processes as are worth their start."""
    from utils.topology.scoring import score_pair

    score = partial(score_pair, request=request)
    if len(paths) < POOL_FROM or workers < 2:
        yield from progress(map(score, paths), len(paths), "scoring")
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(paths)), context, set_up_worker) as pool:
        yield from progress(pool.map(score, paths), len(paths), "scoring")


def set_up_worker() -> None:
    """One thread each: there are as many processes as cores. Ctrl-C is the first process's."""
    import cv2

    leave_signals_to_parent()
    set_up_logging()
    logging.captureWarnings(True)
    cv2.setNumThreads(1)


if __name__ == "__main__":
    sys.exit(main())
