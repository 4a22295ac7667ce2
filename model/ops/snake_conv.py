"""Dynamic snake convolution: a strip of taps that bends along a curve, pixel by pixel.

Qi, He, Qi, Zhang, Yang: Dynamic Snake Convolution Based on Topological Geometric Constraints for
Tubular Structure Segmentation. ICCV 2023, arXiv:2307.08388.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Axis = Literal["horizontal", "vertical"]


class SnakeConv2d(nn.Module):
    """A snake of `kernel_size` (odd) taps along `axis`, group norm and ReLU; sizes are preserved.

    Each tap lies one pixel further along the axis than the one before, and up to `extent` pixels
    further to the side, as a convolution of the map itself says. The offsets grow from the centre
    outwards, so that the snake stays in one piece.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, extent: float, axis: Axis
    ) -> None:
        super().__init__()
        assert kernel_size % 2 == 1, "an even snake has no centre"
        self.extent, self.axis = extent, axis
        # Offsets of both axes, of which one half is used, as in the paper's networks.
        self.offset = nn.Sequential(
            nn.Conv2d(in_channels, 2 * kernel_size, 3, padding=1),
            nn.BatchNorm2d(2 * kernel_size),
            nn.Tanh(),
        )
        strip = (1, kernel_size) if axis == "horizontal" else (kernel_size, 1)
        self.conv = nn.Conv2d(in_channels, out_channels, strip, stride=strip)
        self.norm = nn.GroupNorm(out_channels // 4, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H, W)."""
        rows, columns = self.offset(x).chunk(2, dim=1)
        bend = rows if self.axis == "horizontal" else columns
        samples = snake_sample(x, self.extent * accumulate(bend.float()), self.axis)
        return F.relu(self.norm(self.conv(samples)))


def accumulate(steps: Tensor) -> Tensor:
    """Sum (B, K, H, W) sideways steps from the centre tap, whose own is 0, to both ends."""
    centre = steps.shape[1] // 2
    before = steps[:, :centre].flip(1).cumsum(1).flip(1)
    after = steps[:, centre + 1 :].cumsum(1)
    return torch.cat([before, torch.zeros_like(steps[:, :1]), after], dim=1)


def snake_sample(x: Tensor, bend_px: Tensor, axis: Axis) -> Tensor:
    """The taps of every pixel side by side along `axis`, for a convolution of that stride.

    x (B, C, H, W); bend_px (B, K, H, W), the taps' distance from the straight strip: downwards for
    a horizontal strip, to the right for a vertical one. Bilinear, zero outside the map. Returns
    (B, C, H, W * K) for a horizontal strip, (B, C, H * K, W) for a vertical one.
    """
    K, H, W = bend_px.shape[1:]
    dtype = torch.promote_types(x.dtype, bend_px.dtype)  # half precision is too coarse for places
    along = torch.arange(K, device=x.device, dtype=dtype)[:, None, None] - K // 2
    rows = torch.arange(H, device=x.device, dtype=dtype)[:, None]
    columns = torch.arange(W, device=x.device, dtype=dtype)
    if axis == "horizontal":
        x_px, y_px = columns + along, rows + bend_px
        order = (0, 2, 3, 1)  # BKHW -> BHWK
    else:
        x_px, y_px = columns + bend_px, rows + along
        order = (0, 2, 1, 3)  # BKHW -> BHKW
    # Pixel centres in grid_sample's units, in the form that also holds for a side of one pixel.
    places = torch.broadcast_tensors((2 * x_px + 1) / W - 1, (2 * y_px + 1) / H - 1)
    grid = torch.stack([place.permute(order) for place in places], dim=-1)
    grid = grid.flatten(2, 3) if axis == "horizontal" else grid.flatten(1, 2)
    return F.grid_sample(x.to(dtype), grid, align_corners=False)
