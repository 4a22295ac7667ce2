#!/usr/bin/env python
"""See roads appear: a page in the browser, or the same for one image without a browser.

python demo.py                                     opens http://127.0.0.1:7860
python demo.py --checkpoint logs_weights/RUN       begin with this run instead of the newest
python demo.py --image photo.tif --output out/     mask, views and road graph as files
python demo.py --image photo.jpg --truth mask.png --pixel-size 0.5 --compare logs_weights/OTHER

The page is for this computer alone unless --host says otherwise. Nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path

from utils.arguments import ArgumentParser
from utils.command_line import (
    end_at_signals,
    plain_end,
    refuse,
    set_up_logging,
    user_mistakes,
)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "--checkpoint", metavar="PATH", help="a file, or a run's folder (default: the newest run)"
    )
    parser.add_argument("--max-mb", type=float, default=100, help="largest file (default 100)")
    parser.add_argument(
        "--max-megapixels", type=float, default=25, help="largest image (default 25)"
    )
    page = parser.add_argument_group("the page")
    page.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1: this computer alone")
    page.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    files = parser.add_argument_group("without a browser")
    files.add_argument("--image", metavar="FILE", type=Path, help="an aerial image or GeoTIFF")
    files.add_argument("--output", metavar="DIR", type=Path, help="default: results/RUN/demo")
    files.add_argument("--truth", metavar="FILE", type=Path, help="mask of the true roads")
    files.add_argument("--compare", metavar="PATH", help="another checkpoint, for the same image")
    files.add_argument("--threshold", type=float, help="default: the checkpoint's")
    files.add_argument("--pixel-size", type=float, metavar="M", help="metres, when not in the file")
    files.add_argument(
        "--pixel", nargs=2, type=int, metavar=("X", "Y"), help="show the anchors of this pixel"
    )
    return parser.read(argv)


@plain_end()
def main(argv: list[str] | None = None) -> int:
    """Map the image, or serve the page until Ctrl-C; the exit status, 2 for a mistake."""
    args = parse_args(argv)
    set_up_logging()
    end_at_signals()
    with user_mistakes():
        refuse_lost_options(args)
    with user_mistakes(), tempfile.TemporaryDirectory(prefix="anchor-sam-demo-") as folder:
        if args.image:
            return map_image(args)
        return open_page(args, Path(folder))


def refuse_lost_options(args: argparse.Namespace) -> None:
    """An option of the other way to use this program is a mistake, not a wish."""
    names = ("output", "truth", "compare", "threshold", "pixel_size", "pixel")
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) is not None]
    problems = []
    if given and not args.image:
        problems.append(f"{', '.join(given)}: only together with --image")
    if args.port is not None and args.image:
        problems.append("--port: only without --image")
    if args.threshold is not None and not 0 < args.threshold < 1:
        problems.append(f"--threshold must lie between 0 and 1, got {args.threshold:g}")
    if args.pixel_size is not None and not 0 < args.pixel_size < math.inf:
        problems.append(f"--pixel-size must be positive, got {args.pixel_size:g}")
    if args.port is not None and not 0 < args.port < 2**16:
        problems.append(f"--port must be a number up to 65535, got {args.port}")
    refuse(problems)


def open_page(args: argparse.Namespace, folder: Path) -> int:
    """Serve the page until Ctrl-C."""
    from utils.demo.checks import Limits
    from utils.demo.guard import keep_silent

    limits = Limits(args.max_mb, args.max_megapixels)
    keep_silent(folder)  # before Gradio is imported
    from utils.demo.models import Models
    from utils.demo.server import serve
    from utils.runs import find_checkpoint

    models = Models(*([find_checkpoint(args.checkpoint, None)] if args.checkpoint else []))
    if models.default() is None:
        print("no trained model in logs_weights/ yet: `make demo` trains a small one")
    serve(models, folder, limits, args.host, args.port)
    return 0


def map_image(args: argparse.Namespace) -> int:
    """Write what the page would show of an image, and print the facts."""
    from utils.demo.checks import Limits
    from utils.demo.headless import Task, show
    from utils.demo.models import Models
    from utils.runs import find_checkpoint, results_folder

    paths = [find_checkpoint(args.checkpoint, None)]
    if args.compare:
        paths.append(find_checkpoint(args.compare, None))
    task = Task(
        image=args.image,
        output=args.output or results_folder(paths[0]) / "demo",
        truth=args.truth,
        threshold=args.threshold,
        pixel_size_m=args.pixel_size,
        pixel=args.pixel,
        limits=Limits(args.max_mb, args.max_megapixels),
    )
    models = Models(*paths)
    show(task, models, [models.name_of(path) for path in paths])
    return 0


if __name__ == "__main__":
    sys.exit(main())
