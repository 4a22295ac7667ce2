"""Compiled kernels, which hold no lock, in PyTorch's own threads."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

import torch

_PROCESS = os.getpid()


def in_parts(count: int, work: Callable[[int, int], None]) -> None:
    """work(begin, end) for equal parts of 0..count, one a thread. Returns when all are done.

    `work` must not come back here: all threads would wait for one another.
    """
    threads = max(1, min(torch.get_num_threads(), count))

    def one(part: int, parts: int) -> None:
        work(count * part // parts, count * (part + 1) // parts)

    openmp = _openmp()
    if threads == 1:
        one(0, 1)
    elif openmp is not None and os.getpid() == _PROCESS:  # OpenMP's threads do not survive a fork
        _by_openmp(openmp, threads, one)
    else:
        pool = _pool(os.getpid(), threads)
        running = [pool.submit(one, part, threads) for part in range(threads)]
        wait(running)
        for part in running:
            part.result()  # raises what the part raised


@cache
def _openmp() -> ctypes.CDLL | None:
    """What PyTorch's operators run their loops by, where it can be called: on Linux.

    For some milliseconds after an operator its threads wait at full speed for the next one. Other
    threads would share the cores with them; by the same runtime ours are the same threads.
    """
    runtime = ctypes.CDLL(None) if sys.platform == "linux" else None
    return runtime if hasattr(runtime, "GOMP_parallel") else None


_C_FUNCTION = ctypes.CFUNCTYPE(None)  # the pointer that GOMP_parallel passes is left unread


def _by_openmp(runtime: ctypes.CDLL, threads: int, one: Callable[[int, int], None]) -> None:
    errors: list[BaseException] = []

    def region() -> Iterator[None]:
        # C cannot pass on what is raised. Python enters a function by the handlers of the signals
        # that have come, so a callback that begins outside a `try` could lose a Ctrl-C, and the
        # part with it: each is a generator that has been driven into its own beforehand.
        try:
            yield
            one(runtime.omp_get_thread_num(), runtime.omp_get_num_threads())
        except GeneratorExit:  # there are fewer threads than were asked for
            return
        except BaseException as error:
            errors.append(error)
        yield

    regions = [region() for _ in range(threads)]
    for each in regions:
        next(each)
    enter = _C_FUNCTION(map(next, regions).__next__)
    runtime.GOMP_parallel(enter, None, ctypes.c_uint(threads), ctypes.c_uint(0))
    if errors:
        raise errors[0]


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process: those of its parent did not survive the fork."""
    return ThreadPoolExecutor(threads, "kernels")
