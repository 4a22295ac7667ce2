"""How this process's memory behaves where the same large buffers come and go."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 << 20  # glibc refuses more
KEPT_BYTES = 256 << 20


def keep_freed_memory() -> None:
    """Let the allocator keep freed buffers, up to KEPT_BYTES, for the next ones.

    By default glibc returns a large buffer to the system at once, and the next one of that size
    is fetched page by page: a fifth of the time of a training sample. Where the C library has no
    `mallopt` (musl, macOS, Windows), nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
