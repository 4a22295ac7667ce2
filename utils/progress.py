"""How far a long loop is: a bar on a terminal, a line a minute in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

INTERVAL_S = 60


def progress(iterable: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """The items of `iterable`, `total` of them, while the way through them is shown on stderr."""
    if sys.stderr.isatty():
        yield from tqdm(iterable, total=total, desc=description, dynamic_ncols=True)
        return
    start = reported = time.monotonic()
    for done, item in enumerate(iterable):
        now = time.monotonic()
        if now - reported >= INTERVAL_S:
            logger.info("%s", _line(description, done, total, now - start))
            reported = now
        yield item


def _line(description: str, done: int, total: int, elapsed_s: float) -> str:
    if not done:
        return f"{description}: 0/{total}, waiting for the first"
    rate = done / elapsed_s
    speed = f"{rate:.2f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
    eta = timedelta(seconds=round((total - done) / rate))
    return f"{description}: {done}/{total}, {speed}, ETA {eta}"
