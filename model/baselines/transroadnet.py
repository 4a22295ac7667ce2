"""TransRoadNet: a ResNet-34 whose high-level features carry context from Swin attention.

Yang, Zhou, Yang, Zhang and Chen, "TransRoadNet: A Novel Road Extraction Method for Remote Sensing
Images via Combining High-Level Semantic Feature and Context", IEEE GRSL 19, 2022,
doi 10.1109/LGRS.2022.3171973. The authors' network ends in a sigmoid; this one returns logits.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from model.base import RoadModel
from model.blocks.conv import conv_bn_relu
from model.blocks.resnet import ResNetEncoder
from model.blocks.swin import SwinStage

FourInts = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]


class TransRoadNet(RoadModel):
    """TransRoadNet.

    Args:
        n_channels: channels of the image.
        n_classes: channels of the logits.
        pretrained: start the encoder from its ImageNet weights (resnet34 in pretrain_weight/).
        hidden_dim: an eighth of the context's channels; the decoder is made for 64.
        layers, heads, downscaling_factors: settings of four transformer stages, as published; the
            network has the last one alone, with 2 layers on patches of 2 x 2.
        head_dim: channels of an attention head.
        window_size: side of the attention windows, at stride 32.
        relative_pos_embedding: position bias by displacement; false: by pair of places.

    Raises ValueError when the pretrained weights are missing or damaged, or for a hidden_dim or a
    last layer or downscaling factor that the decoder does not fit.
    """

    stride: ClassVar[int] = 32
    parts: ClassVar[dict[str, tuple[str, ...]]] = {
        "encoder": ("encoder",),
        "neck": ("position", "context", "semantic_share", "fuse"),
    }

    def __init__(
        self,
        *,
        n_channels: PositiveInt = 3,
        n_classes: PositiveInt = 1,
        pretrained: bool = True,
        hidden_dim: int = 64,
        layers: FourInts = (2, 2, 6, 2),
        heads: FourInts = (3, 6, 12, 24),
        head_dim: PositiveInt = 32,
        window_size: PositiveInt = 8,
        downscaling_factors: FourInts = (2, 2, 2, 2),
        relative_pos_embedding: bool = True,
    ) -> None:
        super().__init__()
        _only("hidden_dim", hidden_dim, 64)
        _only("last of layers", layers[-1], 2)
        _only("last of downscaling_factors", downscaling_factors[-1], 2)
        self.encoder = ResNetEncoder("resnet34", n_channels=n_channels, pretrained=pretrained)
        self.position = PositionAttention()
        self.context = SwinStage(
            256,
            512,
            merge=2,
            heads=heads[-1],
            head_dim=head_dim,
            window=window_size,
            relative=relative_pos_embedding,
        )
        # Zero at the start: the first steps see the context alone.
        self.semantic_share = nn.Parameter(torch.zeros(1))
        self.fuse = conv_bn_relu(512, 512, 1, bias=True)
        self.supplements = nn.ModuleList(
            nn.Conv2d(512 + skip, out, 3, padding=1)
            for skip, out in ((256, 256), (128, 128), (64, 64), (64, 64))
        )
        self.up = nn.ModuleList(
            UpBlock(a, b) for a, b in ((512, 256), (256, 128), (128, 64), (64, 64))
        )
        self.head = nn.Sequential(
            nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1),
            nn.Conv2d(64, 32, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, n_classes, 3, padding=1),
        )

    def forward_padded(self, image: Tensor) -> Tensor:
        """(B, n_channels, H, W) to logits (B, n_classes, H, W).

        The context of stride 32 is joined to every skip of the encoder, at that skip's size.
        """
        e0, e1, e2, e3, e4 = self.encoder(image)
        context = self.context(self.position(e3))
        share = self.semantic_share
        x = self.fuse(share * e4 + (1 - share) * context)
        skips = (e3, e2, e1, e0)
        for up, supplement, skip in zip(self.up, self.supplements, skips, strict=True):
            spread = F.interpolate(context, skip.shape[-2:], mode="nearest")
            x = up(x) + supplement(torch.cat([spread, skip], 1)).relu()
        return self.head(x)


class PositionAttention(nn.Module):
    """Weights of rows and of columns, each from its mean and maximum over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape, for any C."""
        return x * self._gate(x.mean(3, keepdim=True)) * self._gate(x.mean(2, keepdim=True))

    def _gate(self, profile: Tensor) -> Tensor:
        pooled = torch.cat([profile.mean(1, keepdim=True), profile.amax(1, keepdim=True)], 1)
        return self.conv(pooled).sigmoid()


class UpBlock(nn.Sequential):
    """(B, in_channels, H, W) to (B, out_channels, 2H, 2W): 3x3, bilinear upsampling, 1x1."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            *conv_bn_relu(in_channels, in_channels, 3),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            *conv_bn_relu(in_channels, out_channels, 1),
        )
        for module in self:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)


def _only(name: str, value: int, fitting: int) -> None:
    if value != fitting:
        raise ValueError(f"TransRoadNet: {name} is {value}, the network is made for {fitting}")
