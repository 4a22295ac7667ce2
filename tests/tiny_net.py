"""A network of a few weights with everything that resuming must get right: BatchNorm, Dropout."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from model.base import RoadModel


class TinyNet(RoadModel):
    stride = 4

    def __init__(self, *, dim: int = 8, dropout: float = 0.2) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, dim, 4, stride=4)
        self.norm = nn.BatchNorm2d(dim)
        self.dropout = nn.Dropout(dropout)
        self.mix = nn.Conv2d(dim, dim, 3, padding=1)
        self.head = nn.Conv2d(dim, 1, 1)

    def forward_padded(self, image: Tensor) -> Tensor:
        x = self.dropout(F.relu(self.norm(self.down(image))))
        x = F.relu(self.mix(x))
        return F.interpolate(self.head(x), scale_factor=4, mode="bilinear")
