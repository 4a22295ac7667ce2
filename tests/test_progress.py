"""A bar on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from utils import progress as module
from utils.progress import progress


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_log_gets_a_line_a_minute(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    seen = []
    for item in progress("abcdef", 6, "val"):
        seen.append(item)
        clock.now += 24
    assert seen == list("abcdef")
    assert caplog.messages == ["val: 3/6, 24.0 s each, ETA 0:01:12"]


def test_a_short_loop_says_nothing(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert list(progress(range(3), 3, "val")) == [0, 1, 2]
    assert not caplog.messages


def test_a_fast_loop_tells_its_rate(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for _ in progress(range(400), 400, "test"):
        clock.now += 0.25
    assert caplog.messages == ["test: 240/400, 4.00/s, ETA 0:00:40"]


def test_a_slow_first_item_is_no_division_by_zero(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def slow():
        clock.now += 100
        yield 1

    assert list(progress(slow(), 1, "test")) == [1]
    assert caplog.messages == ["test: 0/1, waiting for the first"]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress(range(5), 5, "epoch 1/2")) == list(range(5))
    assert "epoch 1/2" in terminal.getvalue() and "5/5" in terminal.getvalue()
