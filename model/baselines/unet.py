"""U-Net with same-padded convolutions and batch normalisation.

Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI 2015, arXiv:1505.04597. The paper's convolutions are unpadded and have no norm.
"""

from __future__ import annotations

import itertools
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from model.base import RoadModel
from model.blocks.conv import conv_bn_relu

CHANNELS = (64, 128, 256, 512, 1024)


class UNet(RoadModel):
    """U-Net of five levels.

    Args:
        n_channels: channels of the image.
        n_classes: channels of the logits.
        bilinear: upsample by interpolation instead of transposed convolutions, with half the
            channels at the bottom and in the decoder.
    """

    min_size: ClassVar[int] = 16
    parts: ClassVar[dict[str, tuple[str, ...]]] = {"encoder": ("entry", "down")}

    def __init__(
        self, *, n_channels: PositiveInt = 3, n_classes: PositiveInt = 1, bilinear: bool = True
    ) -> None:
        super().__init__()
        down = list(CHANNELS)
        if bilinear:
            down[-1] //= 2
        self.entry = _double_conv(n_channels, down[0])
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), _double_conv(a, b)) for a, b in itertools.pairwise(down)
        )
        up = [_UpBlock(a, b, bilinear) for a, b in itertools.pairwise(CHANNELS)]
        self.up = nn.ModuleList(reversed(up))
        self.head = nn.Conv2d(CHANNELS[0], n_classes, 1)

    def forward_padded(self, image: Tensor) -> Tensor:
        """(B, n_channels, H, W) to logits (B, n_classes, H, W)."""
        skips = [self.entry(image)]
        for block in self.down:
            skips.append(block(skips[-1]))
        x = skips.pop()
        for block in self.up:
            x = block(skips.pop(), x)
        return self.head(x)


class _UpBlock(nn.Module):
    """Bring the deeper map to the skip's size, concatenate (skip first), convolve twice."""

    def __init__(self, skip_channels: int, deep_channels: int, bilinear: bool) -> None:
        super().__init__()
        if bilinear:
            self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            out_channels = skip_channels // 2 if skip_channels > CHANNELS[0] else skip_channels
            self.convs = _double_conv(deep_channels, out_channels, deep_channels // 2)
        else:
            self.upsample = nn.ConvTranspose2d(deep_channels, skip_channels, 2, stride=2)
            self.convs = _double_conv(deep_channels, skip_channels)

    def forward(self, skip: Tensor, deep: Tensor) -> Tensor:
        """The skip (B, S, H, W) with the map from below, enlarged and padded to its sides."""
        deep = self.upsample(deep)
        rows, columns = skip.shape[-2] - deep.shape[-2], skip.shape[-1] - deep.shape[-1]
        if rows or columns:
            top, left = rows // 2, columns // 2
            deep = F.pad(deep, (left, columns - left, top, rows - top))
        return self.convs(torch.cat([skip, deep], 1))


def _double_conv(
    in_channels: int, out_channels: int, mid_channels: int | None = None
) -> nn.Sequential:
    mid_channels = mid_channels or out_channels
    return nn.Sequential(
        *conv_bn_relu(in_channels, mid_channels, 3), *conv_bn_relu(mid_channels, out_channels, 3)
    )
