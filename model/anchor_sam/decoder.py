"""The decoder: from the context and the mined levels to logits at full resolution.

Four steps of deformable convolution (DCNv3) and learned upsampling (DySample), coarsest level
first. Source: IEEE TGRS 2026, doi 10.1109/TGRS.2026.3684896.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.ops.dcnv3 import DCNv3
from model.ops.dysample import DySample

GROUP_WIDTH = 16  # channels that share their offsets
#: Output channels of the steps, coarsest first, for neck levels of 256 channels.
WIDTHS = (512, 256, 128, 64)
PUBLISHED_NECK_CHANNELS = 256


class Decoder(nn.Module):
    """Logits from the context at stride 32 and four mined levels.

    Args:
        context_channels: channels of the context.
        neck_channels: channels of every mined level; the steps' widths scale with it.
        n_classes: channels of the logits.
    """

    def __init__(self, context_channels: int, neck_channels: int, n_classes: int) -> None:
        super().__init__()
        widths = [width * neck_channels // PUBLISHED_NECK_CHANNELS for width in WIDTHS]
        inputs = [context_channels, *widths[:-1]]
        self.blocks = nn.ModuleList(
            DeformableBlock(width_in + neck_channels, width_out)
            for width_in, width_out in zip(inputs, widths, strict=True)
        )
        self.upsamples = nn.ModuleList(DySample(width) for width in widths)
        self.last_upsample = DySample(widths[-1])
        self.head = nn.Conv2d(widths[-1], n_classes, 1)

    def forward(self, context: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """(B, C, H, W) at stride 32 and levels at 4, 8, 16, 32 to logits at stride 1."""
        x = context
        for block, upsample, level in zip(
            self.blocks, self.upsamples, reversed(levels), strict=True
        ):
            x = upsample(block(torch.cat((x, level), 1)))
        return self.head(self.last_upsample(x))


class DeformableBlock(nn.Sequential):
    """DCNv3 and a 1x1 convolution: (B, C_in, H, W) to (B, C_out, H, W)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            DCNv3(channels_in, groups=channels_in // GROUP_WIDTH),
            nn.BatchNorm2d(channels_in),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_in, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )
