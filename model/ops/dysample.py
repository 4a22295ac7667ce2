"""DySample: upsampling by learned sampling points, and the layer around it.

Source: Liu et al., "Learning to Upsample by Learning to Sample", ICCV 2023, arXiv:2308.15085.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.ops.sampling import deform_sample
from model.ops.taps import places


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
    out = deform_sample(
        x.permute(0, 2, 3, 1),  # BCHW -> BHWC
        offset.permute(0, 4, 5, 1, 2, 3),  # B 2 G K H W -> B H W 2 G K
        None,
        "subpixels",
        step=scale,
    )
    return out.permute(0, 3, 1, 2)  # BHWC -> BCHW


def dysample_reference(
    x: Tensor, offset: Tensor, *, scale: int = 2, dtype: torch.dtype = torch.float64
) -> Tensor:
    """The same as `dysample` by `grid_sample`: to check by, not to run.

    It computes in `dtype`. In float32 normalised coordinates are rounded, at times across a whole
    pixel, where the gradient of an offset jumps.
    """
    B, C, H, W = x.shape
    y, x_px = places(offset.to(dtype).permute(0, 4, 5, 1, 2, 3), "subpixels", scale)
    # Pixel i has its centre at (2 i + 1) / side - 1 of the normalised coordinates.
    grid = torch.stack(((2 * x_px + 1) / W - 1, (2 * y + 1) / H - 1))
    # 2 B H W G (s s) -> B G (sH) (sW) 2
    grid = grid.unflatten(-1, (scale, scale)).permute(1, 4, 2, 5, 3, 6, 0)
    grid = grid.reshape(-1, scale * H, scale * W, 2)
    maps = x.to(grid.dtype).reshape(len(grid), -1, H, W)
    out = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)
    return out.view(B, C, scale * H, scale * W).to(x.dtype)


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
        return self.sample(x, self.offsets(x))

    def offsets(self, x: Tensor) -> Tensor:
        """(B, 2, G, scale ** 2, H, W) in pixels of `x`."""
        return (self.scope * self.offset(x)).unflatten(1, (2, self.groups, -1))

    def sample(self, x: Tensor, offset: Tensor) -> Tensor:
        """Any (B, C, H, W) of as many groups, enlarged with these offsets."""
        return dysample(x, offset, scale=self.scale)
