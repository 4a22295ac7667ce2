"""Where Linux's own calls do not exist (macOS, Windows), what is built on them goes on without."""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.conftest import ROOT
from utils.cores import usable_cores
from utils.dataset_check import in_threads
from utils.distributed import Ranks
from utils.loading import default_workers


def module_without(missing: str, file: str, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module of its own from a file, imported as if another module did not exist."""
    monkeypatch.setitem(sys.modules, missing, None)
    spec = importlib.util.spec_from_file_location(f"without_{missing}", ROOT / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cores_are_counted(monkeypatch):
    assert usable_cores() == len(os.sched_getaffinity(0)) or not hasattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert usable_cores() == 3
    assert default_workers(Ranks(0, 1, torch.device("cuda", 0))) == 3
    assert list(in_threads(str, [1, 2], "numbers")) == ["1", "2"]
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


def test_peak_memory_is_not_known_without_resource(monkeypatch):
    memory = module_without("resource", "utils/profiling/memory.py", monkeypatch)
    monkeypatch.setattr(memory, "_STATUS", Path("no such file"))
    monkeypatch.setattr(memory, "_CLEAR_REFS", Path("no such file"))
    measured = memory.PeakMemory(nn.Linear(2, 2), torch.device("cpu"))
    measured.start()
    assert measured.peak() is None


def test_a_comparison_is_alone_without_fcntl(tmp_path, monkeypatch):
    launch = module_without("fcntl", "utils/comparison/launch.py", monkeypatch)
    held = []

    def locking(file: int, mode: int, count: int) -> None:
        assert (mode, count) == (2, 1)
        if held:
            raise PermissionError(13, "Permission denied")
        held.append(file)

    msvcrt = types.SimpleNamespace(LK_NBLCK=2, locking=locking)
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt)
    monkeypatch.setattr(launch, "ORPHAN_S", 0)
    with launch.only_one(tmp_path), pytest.raises(ValueError, match="another comparison"):
        launch.only_one(tmp_path).__enter__()
