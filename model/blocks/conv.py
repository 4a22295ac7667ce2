"""Convolution, batch normalisation and ReLU in a row."""

from __future__ import annotations

from torch import nn


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int, *, dilation: int = 1, bias: bool = False
) -> nn.Sequential:
    """(B, in_channels, H, W) to (B, out_channels, H, W): "same" padding, stride 1."""
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=bias
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
