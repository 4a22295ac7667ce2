"""The taps of the deformable operators: how many a pixel has, where they lie, what they give."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: A strip along one axis, a square kernel, the sub-pixels of an enlargement.
FORMS = ("strip_h", "strip_w", "square", "subpixels")
#: Offsets beyond it, infinite ones as well, count as it: it leads out of any map.
REACH_PX = 2**20


def tap_count(offset: Tensor, form: str, step: int) -> tuple[int, int]:
    """Groups and taps a group."""
    G, K = offset.shape[4:6] if form == "subpixels" else offset.shape[3:5]
    if form == "square":
        side = math.isqrt(K)
        assert side % 2 == 1 and side**2 == K, f"{K} taps are no square kernel with a middle tap"
    elif form == "subpixels":
        assert step**2 == K, f"{K} sub-pixels, but {step} x {step} a pixel"
    else:
        assert K % 2 == 1, f"a strip has a middle tap, got {K} taps"
    return G, K


def output_shape(value: Sequence[int], form: str, step: int) -> tuple[int, int, int, int]:
    """Of the result for a `value` (B, H, W, C)."""
    B, H, W, C = value
    return (B, step * H, step * W, C) if form == "subpixels" else (B, H, W, C)


def regular_taps(K: int, form: str, step: int) -> tuple[list[float], list[float]]:
    """Where the K taps of a group lie without offsets: y and x in pixels from their own pixel."""
    if form == "square":
        side = math.isqrt(K)
        line = [(i - side // 2) * step for i in range(side)]
    elif form == "subpixels":
        line = [(i - (step - 1) / 2) / step for i in range(step)]
    else:
        along = [i - K // 2 for i in range(K)]
        return (along, [0] * K) if form == "strip_h" else ([0] * K, along)
    return [y for y in line for _ in line], [x for _ in line for x in line]


def places(offset: Tensor, form: str, step: int) -> tuple[Tensor, Tensor]:
    """Where the taps read: y and x (B, H, W, G, K) in pixels, float32 at least.

    The axis that a strip does not move along is broadcast from what it depends on. Kernels keep
    whole pixels and fractions apart instead: beside a large coordinate a fraction loses bits.
    """
    H, W = offset.shape[1:3]
    _, K = tap_count(offset, form, step)
    offset = offset.to(torch.promote_types(offset.dtype, torch.float32))
    like = {"dtype": offset.dtype, "device": offset.device}
    tap_y, tap_x = (torch.tensor(taps, **like) for taps in regular_taps(K, form, step))
    y = torch.arange(H, **like).view(H, 1, 1, 1) + tap_y
    x = torch.arange(W, **like).view(W, 1, 1) + tap_x
    if form == "square":
        return offset[..., 0] + y, offset[..., 1] + x
    if form == "subpixels":
        return offset[:, :, :, 1] + y, offset[:, :, :, 0] + x
    return (offset + y, x) if form == "strip_h" else (y, offset + x)
