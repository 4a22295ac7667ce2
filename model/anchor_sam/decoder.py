"""The decoder: from the context and the mined levels to logits at full resolution.

Four steps of deformable convolution (DCNv3) and learned upsampling (DySample), coarsest level
first. Source: IEEE TGRS 2026, doi 10.1109/TGRS.2026.3684896.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
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
        return self._logits(x)

    def _logits(self, x: Tensor) -> Tensor:
        """`head(last_upsample(x))`: both are linear, and sampling the head's few channels costs
        less than sampling its many inputs. Each group of channels has its own sampling points, so
        the head is applied to each group, and the groups are added behind."""
        upsample, n_classes = self.last_upsample, self.head.out_channels
        weight = self.head.weight.unflatten(1, (upsample.groups, -1)).transpose(0, 1).flatten(0, 1)
        parts = F.conv2d(x, weight, groups=upsample.groups)  # (B, G n_classes, H, W)
        parts = upsample.sample(parts, upsample.offsets(x))
        logits = parts.unflatten(1, (upsample.groups, n_classes)).sum(1)
        return logits + self.head.bias.view(-1, 1, 1)


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
