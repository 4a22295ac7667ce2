"""DySample: upsampling by learned sampling points, and the layer around it.

Source: Liu et al., "Learning to Upsample by Learning to Sample", ICCV 2023, arXiv:2308.15085.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def dysample(x: Tensor, offset: Tensor, *, scale: int = 2) -> Tensor:
    """`x` enlarged by `scale`, read bilinearly at the regular sub-pixel grid plus `offset`.

    With zero offsets this is bilinear upsampling. Points outside read the nearest border pixel.

    Args:
        x: (B, C, H, W).
        offset: (B, 2, G, scale ** 2, H, W) in pixels of `x` as (x, y), sub-pixels row by row;
            group g moves channels g * C / G and following.
        scale: whole factor of enlargement.

    Returns:
        (B, C, scale * H, scale * W) in the type of `x`, interpolated in float32 at least.
    """
    B, C, H, W = x.shape
    G = offset.shape[2]
    expected = (B, 2, G, scale**2, H, W)
    assert offset.shape == expected, f"offset {tuple(offset.shape)} is not {expected}"
    assert C % G == 0, f"dysample: {C} channels do not divide into {G} groups"
    points = dysample_positions(offset, scale)
    # Sub-pixels take their places: (B, 2 G s s, H, W) -> (B, 2 G, sH, sW)
    points = F.pixel_shuffle(points.flatten(1, 3), scale)
    x_px, y_px = points.view(B, 2, G, scale * H, scale * W).unbind(1)
    # Pixel i has its centre at (2 i + 1) / side - 1 of the normalised coordinates.
    grid = torch.stack(((2 * x_px + 1) / W - 1, (2 * y_px + 1) / H - 1), -1).flatten(0, 1)
    maps = x.to(grid.dtype).reshape(B * G, C // G, H, W)
    out = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)
    return out.view(B, C, scale * H, scale * W).to(x.dtype)


def dysample_reference(x: Tensor, offset: Tensor, *, scale: int = 2) -> Tensor:
    """The same as `dysample` by `grid_sample`: to check by, not to run."""
    B, C, H, W = x.shape
    G = offset.shape[2]
    expected = (B, 2, G, scale**2, H, W)
    assert offset.shape == expected, f"offset {tuple(offset.shape)} is not {expected}"
    assert C % G == 0, f"dysample: {C} channels do not divide into {G} groups"
    points = dysample_positions(offset, scale)
    # Sub-pixels take their places: (B, 2 G s s, H, W) -> (B, 2 G, sH, sW)
    points = F.pixel_shuffle(points.flatten(1, 3), scale)
    x_px, y_px = points.view(B, 2, G, scale * H, scale * W).unbind(1)
    # Pixel i has its centre at (2 i + 1) / side - 1 of the normalised coordinates.
    grid = torch.stack(((2 * x_px + 1) / W - 1, (2 * y_px + 1) / H - 1), -1).flatten(0, 1)
    maps = x.to(grid.dtype).reshape(B * G, C // G, H, W)
    out = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)
    return out.view(B, C, scale * H, scale * W).to(x.dtype)


def dysample_positions(offset: Tensor, scale: int) -> Tensor:
    """Where the sub-pixels read: (x, y) in pixels, shaped like `offset`, float32 at least."""
    H, W = offset.shape[-2:]
    offset = offset.to(torch.promote_types(offset.dtype, torch.float32))
    device = offset.device
    step = (torch.arange(scale, device=device, dtype=offset.dtype) - (scale - 1) / 2) / scale
    x = step.repeat(scale).view(-1, 1, 1) + torch.arange(W, device=device)
    y = step.repeat_interleave(scale).view(-1, 1, 1) + torch.arange(H, device=device).view(H, 1)
    return offset + torch.stack(torch.broadcast_tensors(x, y))[:, None]


class DySample(nn.Module):
    """Upsampling with offsets from a 1x1 convolution (style 'lp', static scope factor 0.25).

    Args:
        channels: C of input and output, a multiple of `groups`.
        groups: channel groups with sampling points of their own.
        scale: whole factor of enlargement.
    """

    scope = 0.25

    def __init__(self, channels: int, groups: int = 4, scale: int = 2) -> None:
        super().__init__()
        self.groups, self.scale = groups, scale
        self.offset = nn.Conv2d(channels, 2 * groups * scale**2, 1)
        nn.init.normal_(self.offset.weight, std=0.001)
        nn.init.zeros_(self.offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, scale * H, scale * W)."""
        offset = self.scope * self.offset(x)
        return dysample(x, offset.unflatten(1, (2, self.groups, -1)), scale=self.scale)
