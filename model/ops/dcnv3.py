"""DCNv3: modulated deformable aggregation with softmax masks, and the layer around it.

Source: Wang et al., "InternImage: Exploring Large-Scale Vision Foundation Models with Deformable
Convolutions", CVPR 2023, arXiv:2211.05778.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.ops.pointwise import Pointwise, pointwise
from model.ops.sampling import deform_sample
from model.ops.taps import places


def dcnv3(
    value: Tensor, offset: Tensor, mask: Tensor, *, kernel_size: int = 3, dilation: int = 1
) -> Tensor:
    """Sum over the taps of a square kernel of mask * value(pixel + tap + offset).

    Bilinear, zeros outside the map: within one step beyond the border the inside neighbours still
    give their share. Stride 1, the map keeps its size.

    Args:
        value: (B, H, W, C); any memory layout.
        offset: (B, H, W, G, K, 2) in pixels as (y, x), K = kernel_size ** 2 taps row by row; group
            g moves channels g * C / G and following.
        mask: (B, H, W, G, K) weights of the taps.
        kernel_size: side of the kernel, odd.
        dilation: distance of neighbouring taps in pixels.

    Returns:
        (B, H, W, C) in the type of `value`, accumulated in float32 at least.
    """
    K = offset.shape[4]
    assert kernel_size**2 == K, f"a {kernel_size} x {kernel_size} kernel, but {K} taps"
    return deform_sample(value, offset, mask, "square", step=dilation)


def dcnv3_reference(
    value: Tensor,
    offset: Tensor,
    mask: Tensor,
    *,
    kernel_size: int = 3,
    dilation: int = 1,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """The same as `dcnv3`, all taps at once by `grid_sample`: to check by, not to run.

    It computes in `dtype`. In float32 normalised coordinates are rounded, at times across a whole
    pixel, where the gradient of an offset jumps.
    """
    B, H, W, C = value.shape
    G, K = mask.shape[-2:]
    assert kernel_size**2 == K, f"a {kernel_size} x {kernel_size} kernel, but {K} taps"
    y, x = places(offset.to(dtype), "square", dilation)
    # Pixel i has its centre at (2 i + 1) / side - 1 of the normalised coordinates.
    grid = torch.stack(((2 * x + 1) / W - 1, (2 * y + 1) / H - 1), -1)
    grid = grid.permute(0, 3, 1, 2, 4, 5).reshape(
        B * G, H, W * K, 2
    )  # B H W G K 2 -> (B G) H (W K) 2
    maps = value.permute(0, 3, 1, 2).reshape(B * G, C // G, H, W)  # BHWC -> (B G) c H W
    taps = F.grid_sample(maps.to(grid.dtype), grid, padding_mode="zeros", align_corners=False)
    taps = taps.view(B, G, C // G, H, W, K)
    out = torch.einsum("bgchwk,bhwgk->bhwgc", taps, mask.to(taps.dtype))
    return out.flatten(3).to(value.dtype)


class DCNv3(nn.Module):
    """The operator between its two projections, with offsets and masks computed from the input.

    Args:
        channels: C of input and output, a multiple of `groups`.
        groups: channel groups with offsets of their own.
        dilation: distance of neighbouring taps of the 3 x 3 kernel in pixels.
    """

    kernel_size = 3

    def __init__(self, channels: int, groups: int, dilation: int = 1) -> None:
        super().__init__()
        self.groups, self.dilation = groups, dilation
        taps = self.kernel_size**2
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.offset = Pointwise(channels, groups * taps * 2)
        self.mask = Pointwise(channels, groups * taps)
        self.input_projection = Pointwise(channels, channels)
        self.output_projection = Pointwise(channels, channels)
        for head in (self.offset, self.mask):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        for projection in (self.input_projection, self.output_projection):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        x_BHWC = x.permute(0, 2, 3, 1)  # BCHW -> BHWC
        guide = F.gelu(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))  # BCHW -> BHWC
        offset = self.offset(guide).unflatten(-1, (self.groups, -1, 2))
        mask = self._mask(guide)
        out = dcnv3(
            self.input_projection(x_BHWC),
            offset,
            mask,
            kernel_size=self.kernel_size,
            dilation=self.dilation,
        )
        return self.output_projection(out).permute(0, 3, 1, 2)  # BHWC -> BCHW

    def _mask(self, guide: Tensor) -> Tensor:
        """Weights (B, H, W, G, K) that sum to one over the taps.

        Taps come before groups out of the head: along the last axis, nine long, PyTorch's softmax
        on a CPU takes ten times as long.
        """
        weight, bias = (
            parameter.unflatten(0, (self.groups, -1)).transpose(0, 1).flatten(0, 1)  # G K -> K G
            for parameter in (self.mask.weight, self.mask.bias)
        )
        logits = pointwise(guide, weight, bias).unflatten(-1, (-1, self.groups))
        return logits.softmax(-2).transpose(-1, -2)  # B H W K G -> B H W G K
