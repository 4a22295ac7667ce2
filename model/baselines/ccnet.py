"""C2Net: context perception and cross spatial-scale feature interaction.

Yang, Zhang, Li, Ni, Wu and Wang, "Road Extraction via Context Perception and Cross Spatial-Scale
Feature Interaction", IEEE TGRS 62, 2024, article 5647011. Its published config says CCNet; it
is not the criss-cross attention network of that name. The authors' network ends in a sigmoid, and
its semantic dependence weighs by raw scores where this one takes their sigmoid.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from model.base import RoadModel
from model.blocks.linknet import LinkNetBlock
from model.blocks.resnet import ResNetEncoder
from model.blocks.swin import SwinStage

STAGES = (64, 128, 256, 512)
#: The interaction lays this many patches a side over every scale.
GRID = 8


class CCNet(RoadModel):
    """C2Net.

    Args:
        n_classes: channels of the logits.
        n_channels: channels of the image.
        pretrained: start the encoder from its ImageNet weights (resnet34 in pretrain_weight/).

    Raises ValueError when the pretrained weights are missing or damaged.
    """

    stride: ClassVar[int] = 32 * GRID
    parts: ClassVar[dict[str, tuple[str, ...]]] = {
        "encoder": ("encoder",),
        "neck": ("perception", "interaction"),
    }

    def __init__(
        self, *, n_classes: PositiveInt = 1, n_channels: PositiveInt = 3, pretrained: bool = True
    ) -> None:
        super().__init__()
        self.encoder = ResNetEncoder("resnet34", n_channels=n_channels, pretrained=pretrained)
        self.perception = ContextPerception(512)
        self.interaction = ScaleInteraction(STAGES)
        self.up4 = LinkNetBlock(512, 256)
        self.up3 = LinkNetBlock(256, 128)
        self.up2 = LinkNetBlock(128, 64)
        self.up1 = LinkNetBlock(64, 64)
        self.collect = nn.ModuleList(
            nn.Conv2d(channels, 64, 3, padding=1) for channels in reversed(STAGES)
        )
        self.up0 = LinkNetBlock(64, 64)
        self.head = nn.Conv2d(64, n_classes, 3, padding=1)

    def forward_padded(self, image: Tensor) -> Tensor:
        """(B, n_channels, H, W) to logits (B, n_classes, H, W).

        The decoder's map at stride 2 takes up those of all coarser strides before the last block.
        """
        e0, e1, e2, e3, e4 = self.encoder(image)
        f1, f2, f3, f4 = self.interaction([e1, e2, e3, e4])
        d4 = self.perception(e4) + e4 + f4
        d3 = self.up4(d4) + e3 + f3
        d2 = self.up3(d3) + e2 + f2
        d1 = self.up2(d2) + e1 + f1
        x = self.up1(d1) + e0
        # The deepest of the four is the encoder's map e4, as the authors have it.
        for conv, deep in zip(self.collect, (e4, d3, d2, d1), strict=True):
            x = x + conv(F.interpolate(deep, x.shape[-2:], mode="nearest"))
        return self.head(self.up0(x))


class ContextPerception(nn.Module):
    """Global and local context on (B, C, H, W): dilated convolutions, each followed by windows of
    attention, weighed by place (spatial awareness) and by channel (semantic dependence)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.local = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=d, dilation=d) for d in (1, 3, 5, 7)
        )
        self.windows = nn.ModuleList(
            SwinStage(channels, channels, merge=1, heads=8, head_dim=32, window=window)
            for window in (2, 4, 8, 16)
        )
        self.join = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in self.local)
        self.awareness = nn.ModuleList(nn.Conv2d(channels, 1, 3, padding=1) for _ in self.local)
        self.dependence = nn.Conv1d(1, 1, 11, padding=5)
        self.project = nn.Conv2d(channels, channels, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W): the four branches under spatial and semantic weights."""
        branches = [
            join(near + windows(near).relu())
            for near, windows, join in zip(
                (conv(x).relu() for conv in self.local), self.windows, self.join, strict=True
            )
        ]
        pooled = torch.cat([g.mean((2, 3)) for g in branches], 1)  # (B, 4C)
        dependence = self.dependence(pooled[:, None]).sigmoid()[:, 0]
        by_channel = dependence[..., None, None].chunk(4, dim=1)
        total = sum(
            g * (awareness(g).sigmoid() + weight)
            for g, awareness, weight in zip(branches, self.awareness, by_channel, strict=True)
        )
        return self.project(total)


class ScaleInteraction(nn.Module):
    """Features of four scales, exchanged between the places of an 8 x 8 grid and between scales.

    Every map is cut into the same grid; a row of the table T is a place of the grid, a column a
    scale and an offset in its patch.
    """

    def __init__(self, stages: tuple[int, ...], width: int = 128) -> None:
        super().__init__()
        self.enter = nn.ModuleList(nn.Conv2d(c, width, 3, padding=1) for c in stages)
        self.along_scales = nn.Conv2d(width, width, (1, 129), dilation=7, padding=(0, 448))
        self.along_places = nn.Conv2d(width, width, (5, 1), dilation=2, padding=(4, 0))
        self.around = nn.Conv2d(width, width, 3, padding=1)
        self.fuse = nn.Conv2d(3 * width, width, 1)
        self.leave = nn.ModuleList(nn.Conv2d(width, c, 3, padding=1) for c in stages)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Maps (B, C, H, W), one a stage, each to one of its own shape, through one table of all.

        Sides are multiples of GRID.
        """
        maps = [conv(x) for conv, x in zip(self.enter, features, strict=True)]
        tables = [_to_table(x) for x in maps]
        table = torch.cat(tables, -1)
        table = self.fuse(torch.cat([conv(table) + table for conv in self._convs()], 1))
        parts = table.split([t.shape[-1] for t in tables], -1)
        return [
            conv(_to_map(part, x.shape[-2:]))
            for conv, part, x in zip(self.leave, parts, maps, strict=True)
        ]

    def _convs(self) -> tuple[nn.Conv2d, ...]:
        return self.along_scales, self.along_places, self.around


def _to_table(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, places of the grid, pixels of a patch)."""
    B, C, H, W = x.shape
    x = x.view(B, C, GRID, H // GRID, GRID, W // GRID).transpose(3, 4)  # BCGhGw -> BCGGhw
    return x.reshape(B, C, GRID**2, -1)


def _to_map(table: Tensor, size: tuple[int, int]) -> Tensor:
    """The inverse of `_to_table` for a map of `size`."""
    B, C = table.shape[:2]
    H, W = size
    x = table.reshape(B, C, GRID, GRID, H // GRID, W // GRID).transpose(3, 4)  # BCGGhw -> BCGhGw
    return x.reshape(B, C, H, W)
