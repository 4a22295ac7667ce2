"""A network that calls bright pixels road, each by itself: predictions are known beforehand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.base import Normalisation, RoadModel


class BrightNet(RoadModel):
    """The logit is 0 at mid-grey; `gain` is its slope over the whole range."""

    normalisation = Normalisation(mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0))

    def __init__(self, *, gain: float = 20.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward_padded(self, image: Tensor) -> Tensor:
        return image.mean(dim=1, keepdim=True) * self.gain
