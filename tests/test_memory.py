"""Freed buffers stay with the process, for the next ones, instead of being fetched page by page."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests.conftest import ROOT

LEFT_BEHIND = """
import numpy as np
from utils.memory import keep_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def left_behind():
    before = resident()
    np.ones(20 << 20, np.uint8)
    return resident() - before

default = left_behind()
keep_freed_memory()
print(default, left_behind())
"""


def test_freed_memory_is_kept():
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc has mallopt")
    program = [sys.executable, "-c", LEFT_BEHIND]
    printed = subprocess.check_output(program, cwd=ROOT, text=True)
    default, kept = (int(number) for number in printed.split())
    assert default < 2 << 20 and kept > 18 << 20
