"""Decoder parts of LinkNet and D-LinkNet.

LinkNet: Chaurasia and Culurciello, VCIP 2017, arXiv:1707.03718. D-LinkNet: Zhou, Zhang and Wu, CVPR
Workshops 2018, doi 10.1109/CVPRW.2018.00034.
"""

from __future__ import annotations

from torch import Tensor, nn

from model.blocks.conv import conv_bn_relu


class LinkNetBlock(nn.Sequential):
    """(B, in_channels, H, W) to (B, out_channels, 2H, 2W), through a quarter of the channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        width = in_channels // 4
        super().__init__(
            *conv_bn_relu(in_channels, width, 1, bias=True),
            nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            *conv_bn_relu(width, out_channels, 1, bias=True),
        )


class LinkNetHead(nn.Sequential):
    """(B, 64, H, W) to logits (B, n_classes, 2H, 2W)."""

    def __init__(self, n_classes: int, in_channels: int = 64) -> None:
        super().__init__(
            nn.ConvTranspose2d(in_channels, 32, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, n_classes, 3, padding=1),
        )


class DilatedCascade(nn.Module):
    """D-LinkNet's centre: 3x3 convolutions of growing dilation, each fed by the one before.

    Their biases start at zero, as the authors set them.
    """

    def __init__(self, channels: int, dilations: tuple[int, ...] = (1, 2, 4, 8)) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=d, dilation=d) for d in dilations
        )
        for conv in self.convs:
            nn.init.zeros_(conv.bias)

    def paths(self, x: Tensor) -> list[Tensor]:
        """[x, u1, u2, ...], all (B, channels, H, W): the input, then each convolution's ReLU."""
        outputs = [x]
        for conv in self.convs:
            outputs.append(conv(outputs[-1]).relu())
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same shape: the sum of all paths."""
        return sum(self.paths(x))
