"""CGCNet: a LinkNet with compact global context at its centre.

Liu, Gao, Shi, Lu, Bai, Fan, Xing and Qian, "CGCNet: Road Extraction From Remote Sensing Image With
Compact Global Context-Aware", IEEE TGRS 63, 2025, doi 10.1109/TGRS.2025.3593017.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from model.base import RoadModel
from model.blocks.linknet import LinkNetBlock, LinkNetHead
from model.blocks.resnet import ResNetEncoder


class CGCNet(RoadModel):
    """CGCNet on the first three stages of ResNet-34.

    Args:
        n_channels: channels of the image.
        n_classes: channels of the logits.
        pretrained: start the encoder from its ImageNet weights (resnet34 in pretrain_weight/).
        input_size: side in pixels of the images that the learned position map is made for; for
            other sizes the map is interpolated.

    Raises ValueError when the pretrained weights are missing or damaged.
    """

    stride: ClassVar[int] = 16
    parts: ClassVar[dict[str, tuple[str, ...]]] = {
        "encoder": ("encoder",),
        "neck": ("reduce", "context", "expand"),
    }

    def __init__(
        self,
        *,
        n_channels: PositiveInt = 3,
        n_classes: PositiveInt = 1,
        pretrained: bool = True,
        input_size: int = 1024,
    ) -> None:
        super().__init__()
        if input_size < self.stride:
            raise ValueError(f"input_size: {input_size} is less than the stride {self.stride}")
        self.encoder = ResNetEncoder(
            "resnet34", n_channels=n_channels, pretrained=pretrained, num_stages=3
        )
        self.reduce = nn.Conv2d(256, 32, 3, padding=1)
        self.context = CompactGlobalContext(32, input_size // self.stride)
        self.expand = nn.Conv2d(32, 256, 3, padding=1)
        self.up3 = LinkNetBlock(256, 128)
        self.up2 = LinkNetBlock(128, 64)
        self.up1 = LinkNetBlock(64, 64)
        self.head = LinkNetHead(n_classes)

    def forward_padded(self, image: Tensor) -> Tensor:
        """(B, n_channels, H, W) to logits (B, n_classes, H, W)."""
        _, e1, e2, e3 = self.encoder(image)
        x = e3 + self.expand(self.context(self.reduce(e3)))
        x = self.up3(x) + e2
        x = self.up2(x) + e1
        return self.head(self.up1(x))


class CompactGlobalContext(nn.Module):
    """Non-local context in a cost linear in the pixels: channels attend through a few tokens.

    Queries and keys are made of `tokens` weighted sums of the map; their product over the tokens
    mixes the channels of every pixel's value.
    """

    def __init__(self, channels: int, map_size: int, tokens: int = 4) -> None:
        super().__init__()
        width = channels // 2
        self.token_maps = nn.Conv2d(channels, tokens, 1, bias=False)
        self.gate = nn.Sequential(
            nn.Linear(channels, channels // 16, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(channels // 16, channels, bias=False),
            nn.Sigmoid(),
        )
        self.token_position = nn.Parameter(torch.randn(1, tokens, channels))
        self.query_key = nn.Linear(channels, 2 * width, bias=False)
        self.value = nn.Conv2d(channels, width, 1, bias=False)
        self.position = nn.Parameter(torch.randn(1, width, map_size, map_size))
        self.project = nn.Conv2d(width, channels, 1, bias=False)
        self.token_position.no_weight_decay = True
        self.position.no_weight_decay = True

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        B, _, H, W = x.shape
        maps = self.token_maps(x).flatten(2).softmax(-1)  # (B, tokens, HW)
        gated = x.flatten(2) * self.gate(x.mean((2, 3)))[..., None]  # (B, C, HW)
        tokens = maps @ gated.transpose(1, 2) + self.token_position  # (B, tokens, C)
        query, key = self.query_key(tokens).chunk(2, dim=-1)
        mixing = (query.transpose(1, 2) @ key).softmax(1)  # (B, width, width), columns sum to 1
        value = (self.value(x) + self._position(H, W)).flatten(2)
        mixed = mixing.transpose(1, 2) @ value  # (V A)^T, as (B, width, HW)
        return self.project(mixed.view(B, -1, H, W)) + x

    def _position(self, H: int, W: int) -> Tensor:
        if self.position.shape[-2:] == (H, W):
            return self.position
        return F.interpolate(self.position, (H, W), mode="bilinear", align_corners=False)
