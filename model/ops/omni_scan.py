"""The eight scan orders of RS-Mamba (Zhao et al., TGRS 2024, arXiv:2404.02668, section III-C).

A map is read as eight sequences: rows, columns, main diagonals and anti-diagonals that wrap
around the right border, and the reversals of these four. Each visits every pixel once.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

NUM_SCANS = 8


@functools.lru_cache(maxsize=64)
def scan_orders(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixel indices r * width + c in scan order, and where each pixel stands: both (8, H * W).

    Orders 0, 1, 4, 5 are rows, columns, main and anti-diagonals; 2, 3, 6, 7 their reversals.
    """
    # Cached tensors outlive the call, and those born in inference mode are barred from autograd.
    with torch.inference_mode(False):
        rows = torch.arange(height)[None, :]
        starts = torch.arange(width)[:, None]
        forward = [
            torch.arange(height * width),
            (rows * width + starts).flatten(),
            (rows * width + (starts + rows) % width).flatten(),
            (rows * width + (starts - rows) % width).flatten(),
        ]
        straight, diagonal = torch.stack(forward[:2]), torch.stack(forward[2:])
        orders = torch.cat([straight, straight.flip(1), diagonal, diagonal.flip(1)])
        return orders.to(device), orders.argsort(1).to(device)


@torch.compiler.assume_constant_result  # which sees no further than the cache above
def _orders(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    # What is made under a FakeTensorMode, as of torch.export, has no values: nothing to keep, and
    # nothing that goes together with what is kept.
    real = type(torch.empty(0)) is Tensor
    return (scan_orders if real else scan_orders.__wrapped__)(height, width, device)


def omni_scan(x: Tensor) -> Tensor:
    """The eight sequences (B, 8, H * W, C) of a channels-last map (B, H, W, C)."""
    return _Scan.apply(x)


def omni_merge(y: Tensor, height: int, width: int) -> Tensor:
    """The sum of eight sequences (B, 8, H * W, C), each put back to its pixels: (B, H, W, C)."""
    return _Merge.apply(y, height, width)


class _Scan(torch.autograd.Function):
    """A gather by permutations; its adjoint is the merge, another gather, where autograd's own
    backward of an index would scatter pixel by pixel."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        _, H, W, _ = x.shape
        ctx.size = H, W
        orders, _ = _orders(H, W, x.device)
        return x.flatten(1, 2).index_select(1, orders.flatten()).unflatten(1, (NUM_SCANS, H * W))

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return _Merge.apply(grad, *ctx.size)


class _Merge(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y: Tensor, height: int, width: int) -> Tensor:
        _, places = _orders(height, width, y.device)
        ctx.size = height, width
        merged = y[:, 0].index_select(1, places[0])
        for k in range(1, NUM_SCANS):
            merged += y[:, k].index_select(1, places[k])
        return merged.unflatten(1, (height, width))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Scan.apply(grad), None, None
