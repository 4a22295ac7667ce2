"""Deformable strip: K learned points along one axis, summed per pixel and channel group.

Source: Yu et al., "DSAN: Exploring the Relationship between Deformable Convolution and Spatial
Attention", TechRxiv 2024.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from model.ops.gather import check_operands, gather_groups

Axis = Literal["h", "w"]
#: Dimension of (B, H, W, C) that a strip runs along.
DIMENSION = {"h": 1, "w": 2}


def deform_strip(value: Tensor, offset: Tensor, axis: Axis) -> Tensor:
    """Sum over K taps of `value` read along one axis at `strip_positions(offset, axis)`.

    Linear interpolation along that axis only, zero outside the map: between the last pixel and one
    step beyond, the inside neighbour still gives its share.

    Args:
        value: (B, H, W, C); any memory layout.
        offset: (B, H, W, G, K) in pixels, K odd; group g moves channels g * C / G and following.
        axis: 'w' for a horizontal strip, 'h' for a vertical one.

    Returns:
        (B, H, W, C) in the type of `value`, accumulated in float32 at least. The backward pass
        reads again what it needs, so that no K-fold tensor is ever kept.
    """
    check_operands("deform_strip", value, offset)
    position = strip_positions(offset, axis)
    out = torch.zeros_like(value, dtype=torch.promote_types(value.dtype, torch.float32))
    for tap in position.unbind(-1):
        out = out + checkpoint(
            _read_tap, value, tap, axis, use_reentrant=False, preserve_rng_state=False
        )
    return out.to(value.dtype)


def deform_strip_reference(value: Tensor, offset: Tensor, axis: Axis) -> Tensor:
    """The same as `deform_strip`, all taps at once in plain autograd: to check by, not to run."""
    dim, side = DIMENSION[axis], value.shape[DIMENSION[axis]]
    position = strip_positions(offset, axis).clamp(-1, side)
    low = position.floor()
    share = (position - low)[..., None]
    # One zero pixel before the map and two behind it hold every index from -1 to side + 1.
    margin = (0, 0, 0, 0, 1, 2) if axis == "h" else (0, 0, 1, 2)
    padded = F.pad(value, margin).unflatten(3, (offset.shape[3], 1, -1))

    def read(index: Tensor) -> Tensor:
        return torch.take_along_dim(padded, index.long()[..., None] + 1, dim)

    out = read(low) * (1 - share) + read(low + 1) * share  # (B, H, W, G, K, C / G)
    return out.sum(4).flatten(3).to(value.dtype)


def strip_positions(offset: Tensor, axis: Axis) -> Tensor:
    """Where the taps of a strip read: coordinates along its axis in pixels, float32 at least."""
    K, side = offset.shape[-1], offset.shape[DIMENSION[axis]]
    assert K % 2 == 1, f"a strip has a middle tap, got {K} taps"
    offset = offset.to(torch.promote_types(offset.dtype, torch.float32))
    tap = torch.arange(K, device=offset.device) - K // 2
    pixel = torch.arange(side, device=offset.device)
    shape = (side, 1, 1, 1) if axis == "h" else (side, 1, 1)
    return offset + tap + pixel.view(shape)


def _read_tap(value: Tensor, position: Tensor, axis: Axis) -> Tensor:
    """`value` at one position (B, H, W, G) along the axis, in the position's type."""
    _, H, W, _ = value.shape
    side = H if axis == "h" else W
    # Nothing lies beyond one step outside; the clamp keeps far offsets within integer range.
    position = position.clamp(-1, side)
    low = position.floor()
    high_share = position - low
    row, column = _pixel_grid(H, W, value.device)
    total = None
    for index, share in ((low.long(), 1 - high_share), (low.long() + 1, high_share)):
        share = share * ((index >= 0) & (index < side))
        index = index.clamp(0, side - 1)
        pixel = index * W + column if axis == "h" else row * W + index
        part = gather_groups(value, pixel) * share[..., None]
        total = part if total is None else total + part
    return total.flatten(3)


def _pixel_grid(H: int, W: int, device: torch.device) -> tuple[Tensor, Tensor]:
    row = torch.arange(H, device=device).view(H, 1, 1)
    column = torch.arange(W, device=device).view(W, 1)
    return row, column
