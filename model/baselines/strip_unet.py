"""StripUnet: strip attention in the encoder, snake convolutions in the decoder.

Ma, Zhang, Zhou, Chen: StripUnet: A Method for Dense Road Extraction From Remote Sensing Images.
IEEE Transactions on Intelligent Vehicles 9 (11), 2024, DOI 10.1109/TIV.2024.3393508.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import ClassVar

import torch
from pydantic import PositiveInt
from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn

from model.base import RoadModel
from model.blocks.conv import conv_bn_relu
from model.blocks.linknet import DilatedCascade, LinkNetHead
from model.blocks.resnet import ResNetEncoder
from model.ops.snake_conv import SnakeConv2d

WIDTHS = (64, 128, 256, 512)


class StripGate(nn.Module):
    """The map, weighted by depthwise strips of three lengths (MSCA of SegNeXt,
    arXiv:2209.08575)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.local = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.strips = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(dim, dim, (1, k), padding=(0, k // 2), groups=dim),
                nn.Conv2d(dim, dim, (k, 1), padding=(k // 2, 0), groups=dim),
            )
            for k in (7, 11, 15)
        )
        self.project = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape."""
        local = self.local(x)
        return x * self.project(local + sum(strip(local) for strip in self.strips))


class StripAttention(nn.Module):
    """Joins the encoder's map with strips of the map before it (SALM)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # The ReLU before the sigmoid is the paper's: a pixel is weighted by 0.5 at least.
        self.spatial_gate = nn.Sequential(*conv_bn_relu(dim, 1, 1), nn.Sigmoid())
        self.channel_gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(dim, dim, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(dim, dim, 1),
            nn.Sigmoid(),
        )
        self.strip = StripGate(dim)
        self.fuse = conv_bn_relu(2 * dim, dim, 1, bias=True)

    def forward(self, stage: Tensor, before: Tensor) -> Tensor:
        """Two maps (B, dim, H, W) to one."""
        gated = stage + stage * self.spatial_gate(stage) + stage * self.channel_gate(stage)
        return self.fuse(torch.cat([gated, self.strip(before)], dim=1))


class ConvModulation(nn.Module):
    """A block of Conv2Former, arXiv:2211.11943: large-kernel attention and a convolutional MLP."""

    def __init__(self, dim: int, drop_path: float = 0.2, layer_scale: float = 1e-6) -> None:
        super().__init__()
        hidden = 4 * dim
        self.norm1 = LayerNorm2d(dim, eps=1e-6)
        self.context = nn.Sequential(
            nn.Conv2d(dim, dim, 1), nn.GELU(), nn.Conv2d(dim, dim, 11, padding=5, groups=dim)
        )
        self.value = nn.Conv2d(dim, dim, 1)
        self.project = nn.Conv2d(dim, dim, 1)
        self.norm2 = LayerNorm2d(dim, eps=1e-6)
        self.expand = nn.Sequential(nn.Conv2d(dim, hidden, 1), nn.GELU())
        self.mix = nn.Sequential(nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden), nn.GELU())
        self.reduce = nn.Conv2d(hidden, dim, 1)
        self.scale1 = nn.Parameter(torch.full((dim, 1, 1), layer_scale))
        self.scale2 = nn.Parameter(torch.full((dim, 1, 1), layer_scale))
        self.scale1.no_weight_decay = self.scale2.no_weight_decay = True
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape."""
        y = self.norm1(x)
        y = self.project(self.context(y) * self.value(y))
        x = x + self.drop_path(self.scale1 * y)
        y = self.expand(self.norm2(x))
        return x + self.drop_path(self.scale2 * self.reduce(y + self.mix(y)))


class MultiScaleFusion(nn.Module):
    """D-LinkNet's dilated cascade with a modulation block on every path (MSFF)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.cascade = DilatedCascade(dim)
        self.modulations = nn.ModuleList(ConvModulation(dim) for _ in range(5))
        for module in self.modulations.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape."""
        paths = self.cascade.paths(x)
        return sum(block(path) for block, path in zip(self.modulations, paths, strict=True))


def bn_prelu(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels, eps=1e-3), nn.PReLU(channels)]


class StripChain(nn.Module):
    """Strip pairs of length 3, 5 and 7, each fed by the one before, all three kept."""

    def __init__(self, dim: int, dilation: int) -> None:
        super().__init__()
        quarter, half = dim // 4, dim // 2

        def pair(in_channels: int, out_channels: int, k: int) -> nn.Sequential:
            reach = dilation * (k // 2)
            options = {"dilation": dilation, "groups": quarter, "bias": False}
            return nn.Sequential(
                nn.Conv2d(in_channels, out_channels, (k, 1), padding=(reach, 0), **options),
                *bn_prelu(out_channels),
                nn.Conv2d(
                    out_channels,
                    out_channels,
                    (1, k),
                    padding=(0, reach),
                    dilation=dilation,
                    groups=out_channels,
                    bias=False,
                ),
                *bn_prelu(out_channels),
            )

        self.pairs = nn.ModuleList(
            [pair(dim, quarter, 3), pair(quarter, quarter, 5), pair(quarter, half, 7)]
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape: dim / 4, dim / 4 and dim / 2 channels of the pairs."""
        outputs = []
        for pair in self.pairs:
            x = pair(x)
            outputs.append(x)
        return torch.cat(outputs, dim=1)


class StripEnhancement(nn.Module):
    """Strips at three dilations, summed up one after the other; a residual block (SFEM)."""

    def __init__(self, dim: int, spread: int) -> None:
        super().__init__()
        narrow = dim // 4
        self.reduce = nn.Sequential(
            *bn_prelu(dim), nn.Conv2d(dim, narrow, 3, padding=1, bias=False), *bn_prelu(narrow)
        )
        self.chains = nn.ModuleList(
            StripChain(narrow, dilation) for dilation in (1, spread // 4 + 1, spread // 2 + 1)
        )
        self.fuse = nn.Sequential(nn.Conv2d(dim, dim, 1, bias=False), *bn_prelu(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape."""
        narrow = self.reduce(x)
        sums = list(accumulate(chain(narrow) for chain in self.chains))
        return self.fuse(torch.cat([narrow, *sums], dim=1)) + x


class SnakeDecoder(nn.Module):
    """Twice the size, then snakes along both axes and a square convolution, joined (MSSD)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = in_channels // 2
        self.up = nn.Sequential(
            nn.ConvTranspose2d(in_channels, half, 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
        )
        self.branches = nn.ModuleList(
            [
                _normed(SnakeConv2d(half, half, 3, extent=3, axis="horizontal"), half),
                _normed(SnakeConv2d(half, half, 5, extent=5, axis="vertical"), half),
                conv_bn_relu(half, half, 7),
            ]
        )
        self.fuse = conv_bn_relu(3 * half, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, 2H, 2W)."""
        x = self.up(x)
        return self.fuse(torch.cat([branch(x) for branch in self.branches], dim=1))


def _normed(layer: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def _up_half(channels: int) -> nn.Sequential:
    """Twice the size at half the channels."""
    half = channels // 2
    return nn.Sequential(
        nn.Conv2d(channels, half, 1),
        nn.ConvTranspose2d(half, half, 3, stride=2, padding=1, output_padding=1),
    )


class StripUnet(RoadModel):
    """StripUnet on a ResNet-34.

    Args:
        n_channels: channels of the image.
        n_classes: channels of the logits.
        pretrained: start the encoder from its ImageNet weights (resnet34 in pretrain_weight/).

    Raises ValueError when the pretrained weights are missing or damaged.
    """

    stride: ClassVar[int] = 32
    parts: ClassVar[dict[str, tuple[str, ...]]] = {
        "encoder": ("encoder",),
        "neck": ("attentions", "downs", "centre", "enhancements", "ups"),
    }

    def __init__(
        self, *, n_channels: PositiveInt = 3, n_classes: PositiveInt = 1, pretrained: bool = True
    ) -> None:
        super().__init__()
        self.encoder = ResNetEncoder("resnet34", n_channels=n_channels, pretrained=pretrained)
        self.attentions = nn.ModuleList(StripAttention(dim) for dim in WIDTHS)
        self.downs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU(inplace=True)
            )
            for a, b in pairwise(WIDTHS)
        )
        self.centre = MultiScaleFusion(WIDTHS[-1])
        # From the deepest stage (strip dilations near 1) to the first.
        self.enhancements = nn.ModuleList(
            StripEnhancement(512 // spread, spread) for spread in (1, 2, 4, 8)
        )
        self.ups = nn.ModuleList(_up_half(dim) for dim in WIDTHS[:0:-1])
        self.decoders = nn.ModuleList(
            SnakeDecoder(a, b) for a, b in ((512, 256), (256, 128), (128, 64), (64, 64))
        )
        self.head = LinkNetHead(n_classes)

    def forward_padded(self, image: Tensor) -> Tensor:
        """(B, n_channels, H, W) to logits (B, n_classes, H, W)."""
        e0, *stages = self.encoder(image)
        attended = self._attend(self.encoder.pool(e0), stages)
        centre = self.centre(stages[-1] + attended[-1])
        skips = self._enhance(attended, centre)
        x = centre
        for skip, decoder in zip(skips, self.decoders, strict=True):
            x = decoder(x + skip)
        return self.head(x)

    def _attend(self, before: Tensor, stages: list[Tensor]) -> list[Tensor]:
        """The stages' maps with strip attention, each fed by the one before."""
        attended = []
        for i, stage in enumerate(stages):
            attended.append(self.attentions[i](stage, before))
            if i < len(self.downs):
                before = self.downs[i](attended[-1])
        return attended

    def _enhance(self, attended: list[Tensor], centre: Tensor) -> list[Tensor]:
        """The maps that the decoder adds, from stride 32 to stride 4."""
        below, enhanced = centre, []
        for i, own in enumerate(reversed(attended)):
            enhanced.append(self.enhancements[i](own + below))
            if i < len(self.ups):
                below = self.ups[i](enhanced[-1])
        return enhanced
