"""Kernels compiled by Numba at their first call, whose machine code later processes find again."""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache

logger = logging.getLogger(__name__)


def compiled(*inlined: ModuleType, **flags: Any) -> Callable[[Callable], Callable]:
    """The decorator of a kernel, which holds no lock.

    Numba keeps its machine code in NUMBA_CACHE_DIR, beside the source or in the user's cache,
    whichever can be written first; where none can, a warning says so and every process compiles.

    Args:
        inlined: the modules whose functions and constants end up in the kernel: it is compiled
            anew when they change, as when its own file does.
        flags: of numba.njit.
    """

    def decorate(kernel: Callable) -> Callable:
        dispatcher = njit(nogil=True, **flags)(kernel)
        try:
            dispatcher._cache = _Cache(kernel, inlined)
        except (RuntimeError, OSError):  # no folder can be written; no source to compare with
            _tell("no folder can be written")
        return dispatcher

    return decorate


class _Cache(FunctionCache):
    """Numba's own, which compares one source file, and fails where it cannot save."""

    def __init__(self, kernel: Callable, inlined: tuple[ModuleType, ...]) -> None:
        super().__init__(kernel)
        sources = "\0".join(inspect.getsource(module) for module in inlined)
        self._of_inlined = hashlib.sha256(sources.encode()).hexdigest()

    def _index_key(self, sig: Any, codegen: Any) -> tuple:
        return *super()._index_key(sig, codegen), self._of_inlined

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _tell(error.strerror)


@cache
def _tell(reason: str) -> None:
    """Once a process, whatever the number of kernels."""
    logger.warning(
        "compiled kernels are not kept (%s): every process compiles them again, for some seconds; "
        "set NUMBA_CACHE_DIR to a folder that can be written",
        reason,
    )
