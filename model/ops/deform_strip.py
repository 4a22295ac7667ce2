"""Deformable strip: K learned points along one axis, summed per pixel and channel group.

Source: Yu et al., "DSAN: Exploring the Relationship between Deformable Convolution and Spatial
Attention", TechRxiv 2024.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from model.ops.sampling import deform_sample
from model.ops.taps import places

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
        (B, H, W, C) in the type of `value`, accumulated in float32 at least.
    """
    return deform_sample(value, offset, None, f"strip_{axis}")


def deform_strip_reference(
    value: Tensor, offset: Tensor, axis: Axis, *, dtype: torch.dtype = torch.float64
) -> Tensor:
    """The same as `deform_strip`, all taps at once in plain autograd: to check by, not to run.

    It computes in `dtype`. In float32 the sum of a pixel's coordinate and an offset is rounded.
    """
    dim, side = DIMENSION[axis], value.shape[DIMENSION[axis]]
    position = strip_positions(offset.to(dtype), axis).clamp(-1, side)
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
    return places(offset, f"strip_{axis}", 1)[DIMENSION[axis] - 1]
