"""CMTFNet: a ResNet encoder and a decoder of multiscale transformer blocks.

Wu, Huang, Zhang, Tang, Yu: CMTFNet: CNN and Multiscale Transformer Fusion Network for
Remote-Sensing Image Semantic Segmentation. IEEE TGRS 61, 2023, DOI 10.1109/TGRS.2023.3314641.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from model.base import RoadModel
from model.blocks.resnet import ResNetEncoder

HEAD_DIM = 32
KEY_GRID = 16  # keys of the attention: a grid of so many rows and columns, at any image size


def conv_bn(
    in_channels: int, out_channels: int, kernel_size: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A size-preserving convolution without bias, and its norm."""
    padding = kernel_size // 2
    return [
        nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=padding, groups=groups, bias=False
        ),
        nn.BatchNorm2d(out_channels),
    ]


def separable(dim: int, kernel_size: int) -> list[nn.Module]:
    """Depthwise, then pointwise, with an activation at the end only."""
    return [*conv_bn(dim, dim, kernel_size, groups=dim), *conv_bn(dim, dim), nn.ReLU6()]


class MultiScale(nn.Module):
    """The map, weighted by what dilated convolutions of several rates see around each pixel."""

    def __init__(self, dim: int, dilations: Sequence[int]) -> None:
        super().__init__()
        narrow = dim // 4
        self.reduce = nn.Sequential(nn.Conv2d(dim, narrow, 1), nn.BatchNorm2d(narrow), nn.ReLU6())
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(narrow, narrow, 3, padding=rate, dilation=rate, groups=narrow),
                nn.BatchNorm2d(narrow),
                nn.ReLU6(),
                nn.Conv2d(narrow, dim, 1),
                nn.BatchNorm2d(dim),
                nn.ReLU6(),
            )
            for rate in dilations
        )
        self.fuse = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.BatchNorm2d(dim), nn.ReLU6())

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape."""
        narrow = self.reduce(x)
        return self.fuse(sum(branch(narrow) for branch in self.branches)) * x


class ChannelGate(nn.Sequential):
    """The map, each channel weighted by a function of all channels' means."""

    def __init__(self, dim: int) -> None:
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(dim, dim // 4, 1),
            nn.ReLU6(),
            nn.Conv2d(dim // 4, dim, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape."""
        return super().forward(x) * x


class MultiScaleAttention(nn.Module):
    """Every pixel attends to a 16 x 16 summary of the multiscale map (M2SA).

    The pixels are their own queries, heads are groups of 32 channels, and a gate on the channels
    is added. Linear in the number of pixels.
    """

    def __init__(self, dim: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.multi_scale = MultiScale(dim, dilations)
        self.keys_values = nn.Conv2d(dim, 2 * dim, 1, bias=False)
        self.channel_gate = ChannelGate(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape; dim is a multiple of HEAD_DIM."""
        summary = F.adaptive_avg_pool2d(self.multi_scale(x), KEY_GRID)
        k, v = self.keys_values(summary).chunk(2, dim=1)
        attended = F.scaled_dot_product_attention(_heads(x), _heads(k), _heads(v))
        attended = attended.mT.reshape(x.shape)  # B heads pixels 32 -> BCHW
        return attended + self.channel_gate(x)


def _heads(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, heads, H * W, 32)."""
    return x.flatten(2).unflatten(1, (-1, HEAD_DIM)).mT


class EfficientFeedForward(nn.Module):
    """A bottleneck with depthwise convolutions of two sizes (E-FFN)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        narrow = dim // 4
        self.reduce = nn.Sequential(*conv_bn(dim, narrow), nn.ReLU6())
        self.wide = nn.Sequential(*conv_bn(narrow, narrow, 5, groups=narrow), nn.ReLU6())
        self.close = nn.Sequential(*conv_bn(narrow, narrow, 3, groups=narrow), nn.ReLU6())
        self.expand = nn.Sequential(*conv_bn(narrow, dim), nn.ReLU6())

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape."""
        x = self.reduce(x)
        return self.expand(self.wide(x) + self.close(x))


class TransformerBlock(nn.Module):
    """Attention with a batch norm after it, then the feed-forward part; both residual."""

    def __init__(self, dim: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.attention = nn.Sequential(MultiScaleAttention(dim, dilations), nn.BatchNorm2d(dim))
        self.feed_forward = EfficientFeedForward(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape."""
        x = x + self.attention(x)
        return x + self.feed_forward(x)


class WeightedFuse(nn.Module):
    """A learned convex mix of the encoder's map and the one below, at the encoder's size."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(2))
        self.refine = nn.Sequential(*separable(dim, 5))

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """`below` (B, dim, h, w) and `skip` (B, dim, H, W) to (B, dim, H, W)."""
        below = F.interpolate(below, size=skip.shape[-2:], mode="bilinear", align_corners=False)
        weights = F.relu6(self.weights)
        of_skip, of_below = weights / (weights.sum() + 1e-8)
        return self.refine(of_skip * skip + of_below * below)


class AttentionHead(nn.Module):
    """Multiscale, channel and spatial attention side by side, and the classifier (MAF)."""

    def __init__(self, dim: int, dilations: Sequence[int], n_classes: int) -> None:
        super().__init__()
        self.multi_scale = MultiScale(dim, dilations)
        self.channel_gate = ChannelGate(dim)
        self.spatial_gate = nn.Sequential(nn.Conv2d(2, 1, 5, padding=2), nn.Sigmoid())
        self.classify = nn.Sequential(
            *separable(dim, 3), nn.Dropout2d(0.1), nn.Conv2d(dim, n_classes, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to logits (B, n_classes, H, W)."""
        profile = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        spatial = self.spatial_gate(profile) * x
        return self.classify(self.multi_scale(x) + self.channel_gate(x) + spatial)


class CMTFNet(RoadModel):
    """CMTFNet on a ResNet-50. Every fusion resizes to the encoder's map: any size runs unpadded.

    Args:
        n_classes: channels of the logits.
        backbone: the encoder.
        pretrained: start the encoder from its ImageNet weights (resnet50 in pretrain_weight/).

    Raises ValueError for another backbone, and when the pretrained weights are missing or damaged.
    """

    def __init__(
        self,
        *,
        n_classes: PositiveInt = 1,
        backbone: Literal["resnet50"] = "resnet50",
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        if backbone != "resnet50":
            raise ValueError(f"backbone: {backbone!r} is not offered, only 'resnet50'")
        self.encoder = ResNetEncoder(backbone, pretrained=pretrained)
        self.reduce4 = nn.Sequential(*conv_bn(2048, 512), nn.ReLU6())
        self.reduce3 = nn.Sequential(*conv_bn(1024, 512), nn.ReLU6())
        self.block4 = TransformerBlock(512, dilations=(1, 3, 5))
        self.fuse3 = WeightedFuse(512)
        self.block3 = TransformerBlock(512, dilations=(3, 5, 7))
        self.fuse2 = WeightedFuse(512)
        self.block2 = TransformerBlock(512, dilations=(5, 7, 9))
        self.reduce2 = nn.Sequential(*conv_bn(512, 256))
        self.fuse1 = WeightedFuse(256)
        self.head = AttentionHead(256, (7, 9, 11), n_classes)

    def forward_padded(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to logits (B, n_classes, H, W), which are made at stride 4."""
        _, e1, e2, e3, e4 = self.encoder(image)
        x = self.block4(self.reduce4(e4))
        x = self.block3(self.fuse3(x, self.reduce3(e3)))
        x = self.block2(self.fuse2(x, e2))
        logits = self.head(self.fuse1(self.reduce2(x), e1))
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)
