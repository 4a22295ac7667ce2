"""Kernels in threads: all parts, errors, and a process that was forked."""

from __future__ import annotations

import os
import random
import signal
import sys

import pytest
import torch

from model.ops import threads
from model.ops.threads import in_parts


@pytest.fixture(autouse=True, params=["PyTorch's threads", "threads of our own"])
def three_threads(monkeypatch, request):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    if request.param == "threads of our own":
        monkeypatch.setattr(threads, "_openmp", lambda: None)
    elif threads._openmp() is None:
        pytest.skip("PyTorch's threads cannot be reached on this system")


def parts(count: int) -> list[tuple[int, int]]:
    done: list[tuple[int, int]] = []
    in_parts(count, lambda begin, end: done.append((begin, end)))
    return sorted(done)


def test_parts_are_equal_and_no_more_than_the_count():
    assert parts(7) == [(0, 2), (2, 4), (4, 7)]
    assert parts(2) == [(0, 1), (1, 2)]


def test_errors_come_through():
    with pytest.raises(ZeroDivisionError):
        in_parts(3, lambda begin, end: begin // (end - 2))


def test_a_signal_at_any_moment_comes_through(monkeypatch):
    """Most moments are at the start of a part, which C calls: nothing may get lost there."""
    if threads._openmp() is None:
        pytest.skip("a pool's locks are Python's own matter")
    unheard: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unheard.append)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(500):
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 1e-3))
                while True:
                    assert len(parts(3)) == 3
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not unheard


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_has_threads_of_its_own():
    expected = parts(7)  # the parent's threads, which its child lacks
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(20)
            status = 0 if parts(7) == expected else 1
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
