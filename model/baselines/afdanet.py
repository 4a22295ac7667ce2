"""AFDANet: full-stage feature fusion and a decoder of strips in four directions.

Deng, Li, Chen: AFDANet: An Adaptive Full-Stage Feature Fusion and Directional-Aware Network for
Road Extraction in Remote Sensing Images. IEEE GRSL 22, 2025. The attention follows SCSA,
arXiv:2407.05128; the directional decoder CoANet, DOI 10.1109/TIP.2021.3117076.
"""

from __future__ import annotations

import logging
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from timm.layers import EcaModule
from torch import Tensor, nn

from model.base import RoadModel
from model.blocks.conv import conv_bn_relu
from model.blocks.linknet import LinkNetHead
from model.blocks.resnet import ResNetEncoder
from model.ops.diagonal_strip import DiagonalStripConv2d

logger = logging.getLogger(__name__)


class SplitDepthwise(nn.Module):
    """Depthwise convolutions of growing size, one for each equal share of the channels."""

    def __init__(self, conv: type[nn.Conv1d | nn.Conv2d], dim: int, sizes: tuple[int, ...]) -> None:
        super().__init__()
        share = dim // len(sizes)
        self.convs = nn.ModuleList(
            conv(share, share, size, padding=size // 2, groups=share) for size in sizes
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, ...) to the same shape, for one or two spatial axes."""
        shares = x.chunk(len(self.convs), dim=1)
        return torch.cat([conv(s) for conv, s in zip(self.convs, shares, strict=True)], dim=1)


class ThreeWayDownsample(nn.Module):
    """Half the size by space-to-depth, by a strided convolution and by pooling, joined (SAD)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(in_channels, out_channels, 3, padding=1, groups=in_channels)
        self.phases = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * in_channels, out_channels, 1),
            nn.BatchNorm2d(out_channels),
        )
        self.strided = nn.Sequential(
            nn.Conv2d(out_channels, out_channels, 7, stride=2, padding=3, groups=out_channels),
            nn.GELU(),
            nn.BatchNorm2d(out_channels),
        )
        self.pooled = nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(out_channels))
        self.fuse = nn.Conv2d(3 * out_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, 2H, 2W) to (B, out_channels, H, W)."""
        wide = self.widen(x)
        return self.fuse(torch.cat([self.phases(x), self.strided(wide), self.pooled(wide)], dim=1))


class DirectionalGate(nn.Module):
    """The map, weighted by a gate on its rows and one on its columns."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.profile = SplitDepthwise(nn.Conv1d, dim, (3, 5, 7, 9))  # of rows and columns alike
        self.norm_rows = nn.GroupNorm(4, dim)
        self.norm_columns = nn.GroupNorm(4, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape."""
        rows = self.norm_rows(self.profile(x.mean(3))).sigmoid()
        columns = self.norm_columns(self.profile(x.mean(2))).sigmoid()
        return x * rows.unsqueeze(3) * columns.unsqueeze(2)


class ChannelSelfAttention(nn.Module):
    """The map, weighted by attention of its channels to each other over a pooled grid."""

    NUM_HEADS = 8
    POOL = 8  # pixels a side

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, dim)
        self.q, self.k, self.v = (nn.Conv2d(dim, dim, 1, groups=dim, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape; a gate a channel, of which 8 heads see dim / 8 each."""
        H, W = x.shape[-2:]
        y = self.norm(F.avg_pool2d(x, (min(self.POOL, H), min(self.POOL, W))))
        q, k, v = (
            conv(y).flatten(2).unflatten(1, (self.NUM_HEADS, -1))
            for conv in (self.q, self.k, self.v)
        )  # (B, heads, C / heads, positions)
        scores = q @ k.transpose(-2, -1) * q.shape[2] ** -0.5
        gate = (scores.softmax(-1) @ v).flatten(1, 2).mean(-1).sigmoid()
        return gate[..., None, None] * x


class SplitMLP(nn.Module):
    """An MLP of fourfold width with depthwise convolutions of four sizes inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = 4 * dim
        self.expand = nn.Sequential(
            nn.Conv2d(dim, hidden, 1, bias=False), nn.GELU(), nn.BatchNorm2d(hidden)
        )
        self.mix = SplitDepthwise(nn.Conv2d, hidden, (1, 3, 5, 7))
        self.project = nn.Sequential(
            nn.GELU(),
            nn.BatchNorm2d(hidden),
            nn.Conv2d(hidden, dim, 1, bias=False),
            nn.BatchNorm2d(dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape."""
        x = self.expand(x)
        return self.project(x + self.mix(x))


class StageFusion(nn.Module):
    """The fused map of the stage before, (B, in, 2H, 2W), and the encoder's, (B, out, H, W), into
    one of the latter's shape (SEAF)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.downsample = nn.Sequential(
            ThreeWayDownsample(in_channels, out_channels),
            nn.GroupNorm(1, out_channels),
            nn.GELU(),
        )
        self.balance = nn.Parameter(torch.ones(2))
        self.directional = DirectionalGate(out_channels)
        self.channel = ChannelSelfAttention(out_channels)
        self.mlp = nn.Sequential(nn.GroupNorm(1, out_channels), SplitMLP(out_channels))

    def forward(self, before: Tensor, stage: Tensor) -> Tensor:
        of_before, of_stage = self.balance.softmax(0)
        x = of_before * self.downsample(before) + of_stage * stage
        y = x + self.directional(x) + self.channel(x)
        return y + self.mlp(y)


class StripBlock(nn.Module):
    """Strips of one length in four directions, at twice the size (SGAD)."""

    def __init__(self, in_channels: int, out_channels: int, length: int) -> None:
        super().__init__()
        width, half = in_channels // 4, in_channels // 8
        self.reduce = conv_bn_relu(in_channels, width, 1, bias=True)
        strips = [
            nn.Conv2d(width, half, (1, length), padding=(0, length // 2)),
            nn.Conv2d(width, half, (length, 1), padding=(length // 2, 0)),
            DiagonalStripConv2d(width, half, length, "anti"),
            DiagonalStripConv2d(width, half, length, "main"),
        ]
        self.strips = nn.ModuleList(nn.Sequential(s, nn.BatchNorm2d(half)) for s in strips)
        self.gate_straight = EcaModule(kernel_size=3)
        self.gate_diagonal = EcaModule(kernel_size=3)
        self.up = nn.Sequential(
            nn.ConvTranspose2d(2 * width, 2 * width, 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(inplace=True),
            *conv_bn_relu(2 * width, out_channels, 1, bias=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, 2H, 2W)."""
        x = self.reduce(x)
        horizontal, vertical, anti, main = (strip(x) for strip in self.strips)
        straight = self.gate_straight(torch.cat([horizontal, vertical], dim=1).relu()) + x
        diagonal = self.gate_diagonal(torch.cat([anti, main], dim=1).relu()) + x
        return self.up(torch.cat([straight, diagonal], dim=1))


class StripDecoder(nn.Module):
    """Strips of three lengths side by side, at twice the size (SGA)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            StripBlock(in_channels, out_channels // 2, length) for length in (3, 5, 7)
        )
        self.fuse = conv_bn_relu(3 * out_channels // 2, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, 2H, 2W)."""
        return self.fuse(torch.cat([block(x) for block in self.blocks], dim=1))


class AFDANet(RoadModel):
    """AFDANet on a ResNet-34.

    Args:
        img_size: accepted for published configs, without effect: the network runs at the image's
            own size.
        num_classes: channels of the logits.
        pretrained: start the encoder from its ImageNet weights (resnet34 in pretrain_weight/).

    Raises ValueError when the pretrained weights are missing or damaged.
    """

    stride: ClassVar[int] = 32
    parts: ClassVar[dict[str, tuple[str, ...]]] = {"encoder": ("encoder",), "neck": ("fusions",)}

    def __init__(
        self, *, img_size: int = 1024, num_classes: PositiveInt = 1, pretrained: bool = True
    ) -> None:
        super().__init__()
        if img_size != 1024:
            logger.warning("img_size has no effect: AFDANet runs at the image's own size")
        self.encoder = ResNetEncoder("resnet34", pretrained=pretrained)
        self.fusions = nn.ModuleList(
            StageFusion(a, b) for a, b in ((64, 64), (64, 128), (128, 256), (256, 512))
        )
        self.decoders = nn.ModuleList(
            StripDecoder(a, b) for a, b in ((512, 256), (256, 128), (128, 64), (64, 64))
        )
        self.head = LinkNetHead(num_classes)

    def forward_padded(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to logits (B, num_classes, H, W).

        Fused maps run down the stages beside the encoder's and are the decoder's skips; the last is
        added to the encoder's own.
        """
        fused, *stages = self.encoder(image)
        skips = []
        for fusion, stage in zip(self.fusions, stages, strict=True):
            fused = fusion(fused, stage)
            skips.append(fused)
        x = skips.pop() + stages[-1]
        for decoder in self.decoders:
            x = decoder(x)
            if skips:
                x = x + skips.pop()
        return self.head(x)
