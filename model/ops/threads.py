"""Compiled kernels, which hold no lock, in as many threads as PyTorch uses."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import torch


def in_parts(count: int, work: Callable[[int, int], None]) -> None:
    """work(begin, end) for equal parts of 0..count, one a thread. Returns when all are done.

    `work` must not come back here: all threads would wait for one another.
    """
    threads = max(1, min(torch.get_num_threads(), count))
    ends = [count * i // threads for i in range(threads + 1)]
    if threads == 1:
        work(0, count)
    else:
        pool = _pool(os.getpid(), threads)
        list(pool.map(lambda part: work(*part), pairwise(ends)))  # list: errors come through


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process: those of its parent did not survive the fork."""
    return ThreadPoolExecutor(threads, "kernels")
