"""The most memory that a network needed while it ran."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import nn

try:
    import resource
except ImportError:  # Windows
    resource = None

_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # what Linux wants written to clear_refs


class PeakMemory:
    """Bytes that `model` and its work took at their most since `start`.

    On CUDA what PyTorch allocated. On a CPU the weights' own size and what the process grew by, so
    that libraries do not count: meaningful in a process that has done little else, in which the
    model has already run once on something small.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._device = device
        tensors = [*model.parameters(), *model.buffers()]
        self._weights = sum(tensor.nbytes for tensor in tensors)
        self._before = 0

    def start(self) -> None:
        """From here on peaks count."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        if os.access(_CLEAR_REFS, os.W_OK):
            _CLEAR_REFS.write_text(_RESET_PEAK)
        self._before = _resident_bytes() or _peak_bytes()

    def peak(self) -> int | None:
        """None on a CPU under a system that does not tell (Windows)."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        peak = _peak_bytes()
        return self._weights + max(0, peak - self._before) if peak else None


def _resident_bytes() -> int:
    return _from_status("VmRSS")


def _peak_bytes() -> int:
    """0 where the system does not tell."""
    if found := _from_status("VmHWM"):
        return found
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit if resource else 0


def _from_status(key: str) -> int:
    """A line of /proc/self/status in bytes; 0 where there is no such file."""
    if not _STATUS.is_file():
        return 0
    lines = _STATUS.read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)
