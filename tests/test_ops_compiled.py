"""Compiled kernels: until when their machine code is kept, and where none can be."""

from __future__ import annotations

import errno
import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import numba
import pytest
from numba.core.caching import IndexDataCacheFile, _CacheLocator

from model.ops import compiled

INLINED = "import numba\n\n@numba.njit\ndef factor():\n    return {factor}\n"
KERNELS = """
import inlined
from inlined import factor
from model.ops.compiled import compiled

@compiled(inlined)
def times(x):
    return x * factor()

@compiled(inlined)
def plus(x):
    return x + factor()
"""
MODULES = ("inlined", "kernels")


@pytest.fixture
def load(tmp_path, monkeypatch) -> Iterator[Callable[[int], ModuleType]]:
    """Imports two kernels anew, as another process would, with a constant that they inline."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path / "kept"))
    (tmp_path / "kernels.py").write_text(KERNELS)

    def load(factor: int) -> ModuleType:
        (tmp_path / "inlined.py").write_text(INLINED.format(factor=factor))
        for name in MODULES:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module("kernels")

    yield load
    for name in MODULES:
        sys.modules.pop(name, None)


def test_kernels_are_kept_until_what_they_inline_changes(load):
    for factor, hits in ((3, 0), (3, 1), (50, 0)):
        kernels = load(factor)
        assert kernels.times(2) == 2 * factor
        assert sum(kernels.times.stats.cache_hits.values()) == hits


def refuse(*_: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


def fill(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "place, method, what, reason",
    [
        (_CacheLocator, "ensure_cache_path", refuse, "no folder can be written"),
        (IndexDataCacheFile, "_save_data", fill, "No space left on device"),
    ],
)
def test_kernels_run_where_they_cannot_be_kept(
    load, monkeypatch, caplog, place, method, what, reason
):
    monkeypatch.setattr(place, method, what)
    compiled._tell.cache_clear()
    kernels = load(4)
    assert (kernels.times(3), kernels.plus(3)) == (12, 7)
    (line,) = caplog.messages  # once, not for each kernel
    assert reason in line and "NUMBA_CACHE_DIR" in line
