"""Context fusion on the last trunk stage: multi-scale deformable aggregation (MSDA).

Four deformable branches of growing dilation, weighed per place (spatial fusion) and per channel
(channel fusion). Source: IEEE TGRS 2026, doi 10.1109/TGRS.2026.3684896.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.swin_transformer import ShiftedWindowAttention, SwinTransformerBlock

from model.ops.dcnv3 import DCNv3

DILATIONS = (1, 3, 5, 7)
GROUP_WIDTH = 16  # channels that share their offsets


class ContextFusion(nn.Module):
    """The last trunk stage with context from four dilations.

    Args:
        channels: C of input and output, a multiple of 16.
        attention_width: channels of the windowed attention within the channel fusion.
    """

    def __init__(self, channels: int, attention_width: int) -> None:
        super().__init__()
        groups = channels // GROUP_WIDTH
        self.branches = nn.ModuleList(DCNv3(channels, groups, d) for d in DILATIONS)
        self.spatial_fusion = SpatialFusion(len(DILATIONS) * channels, len(DILATIONS))
        self.channel_fusion = ChannelFusion(len(DILATIONS) * channels, attention_width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        stacked = torch.cat([branch(x) for branch in self.branches], 1)  # (B, 4C, H, W)
        maps = self.spatial_fusion(stacked).permute(0, 2, 3, 1)  # BCHW -> BHWC
        weights = self.channel_fusion(stacked)[:, None, None].unflatten(-1, (maps.shape[-1], -1))
        branches = stacked.permute(0, 2, 3, 1).unflatten(
            -1, (maps.shape[-1], -1)
        )  # (B, H, W, 4, C)
        out = (branches * (maps.unsqueeze(-1) + weights)).sum(3)
        return out.permute(0, 3, 1, 2)  # BHWC -> BCHW


class SpatialFusion(nn.Module):
    """One map in 0..1 a branch: (B, 4C, H, W) to (B, 4, H, W)."""

    def __init__(self, channels: int, num_branches: int, reduction: int = 16) -> None:
        super().__init__()
        width = channels // reduction
        self.maps = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, num_branches, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x)


class ChannelFusion(nn.Module):
    """One weight in 0..1 a channel and branch: (B, 4C, H, W) to (B, 4C)."""

    def __init__(self, channels: int, width: int, window: int = 8, num_heads: int = 8) -> None:
        super().__init__()
        self.reduce = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.GELU()
        )
        swin = partial(SwinTransformerBlock, attn_layer=MaskedWindowAttention)
        self.attention = nn.Sequential(
            *(swin(width, num_heads, [window] * 2, [shift] * 2) for shift in (0, window // 2))
        )
        for block in self.attention:
            block.attn.relative_position_bias_table.no_weight_decay = True
        self.weights = nn.Linear(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(self.reduce(x).permute(0, 2, 3, 1))  # BCHW -> BHWC
        return self.weights(x.mean((1, 2))).sigmoid()


class MaskedWindowAttention(ShiftedWindowAttention):
    """torchvision's window attention, with padding that no pixel attends to.

    torchvision lets the pixels of a window see the zeros that fill it up. They would take most of
    the attention on a small map, and the result would depend on the size of the input.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H, W, C)."""
        B, H, W, _ = x.shape
        sides = tuple(zip((H, W), self.window_size, self.shift_size, strict=True))
        bottom, right = (-side % window for side, window, _ in sides)
        # One window along a side leaves nothing to shift to.
        shift = [0 if side <= window else s for side, window, s in sides]

        def windows(maps: Tensor) -> Tensor:
            maps = F.pad(maps, (0, 0, 0, right, 0, bottom))
            return self._partition(maps.roll([-s for s in shift], (1, 2)))

        region = _regions(H, W, shift, x.device)
        out = self._attend(windows(x), windows(region[None, ..., None]).squeeze(-1))
        out = self._merge(out, B, H + bottom, W + right).roll(shift, (1, 2))
        return out[:, :H, :W]

    def _attend(self, x: Tensor, region: Tensor) -> Tensor:
        """Windows (B * N, P, C) of P pixels, whose pairs attend within one region (N, P) only."""
        N, P = region.shape
        same = region[:, None, :, None] == region[:, None, None, :]  # (N, 1, P, P)
        bias = self.get_relative_position_bias().masked_fill(~same, float("-inf"))
        qkv = self.qkv(x).view(-1, P, 3, self.num_heads, x.shape[-1] // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # BPthd -> tBhPd
        # not len(x), which an exporter takes for a constant
        bias = bias.to(q.dtype).repeat(x.shape[0] // N, 1, 1, 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(out.transpose(1, 2).flatten(2))  # BhPd -> BP(hd)

    def _partition(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B * N, P, C), H and W multiples of the window."""
        h, w = self.window_size
        B, H, W, C = x.shape
        x = x.view(B, H // h, h, W // w, w, C).transpose(2, 3)
        return x.reshape(-1, h * w, C)

    def _merge(self, windows: Tensor, B: int, H: int, W: int) -> Tensor:
        """The inverse of `_partition`."""
        h, w = self.window_size
        x = windows.view(B, H // h, W // w, h, w, -1).transpose(2, 3)
        return x.reshape(B, H, W, -1)


def _regions(H: int, W: int, shift: list[int], device: torch.device) -> Tensor:
    """(H, W) numbers from 1: pixels that a shift rolls to the far end are no neighbours of those
    that were there. Padding is 0."""
    wraps_h = (torch.arange(H, device=device) < shift[0]).long()
    wraps_w = (torch.arange(W, device=device) < shift[1]).long()
    return 1 + 2 * wraps_h[:, None] + wraps_w
