"""Convolution along a diagonal: a k x k kernel with weights on one of its diagonals alone.

The diagonal strips of CoANet (Mei et al., IEEE TIP 2021, DOI 10.1109/TIP.2021.3117076), for maps
of any sides. Shearing the map turns a diagonal into a column, which an ordinary k x 1 convolution
then follows, at k weights a pixel instead of k * k.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


class DiagonalStripConv2d(nn.Conv2d):
    """A size-preserving convolution (B, C, H, W) -> (B, out_channels, H, W) of odd `length`.

    Tap i = -(length // 2)..length // 2 reads row r + i, and column c - i on the "anti" diagonal or
    c + i on the "main" one; zero outside the map. Weights are those of a (length, 1) convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, length: int, diagonal: Literal["main", "anti"]
    ) -> None:
        assert length % 2 == 1, "an even strip has no centre"
        super().__init__(in_channels, out_channels, (length, 1), padding=(length // 2, 0))
        self.diagonal = diagonal

    def forward(self, x: Tensor) -> Tensor:
        if self.diagonal == "main":
            x = x.flip(-1)
        width = x.shape[-1]
        x = unshear(super().forward(shear(x)), width)
        return x.flip(-1) if self.diagonal == "main" else x


def shear(x: Tensor) -> Tensor:
    """Move row r by r columns to the right: (..., H, W) -> (..., H, W + H - 1), zeros around."""
    H, W = x.shape[-2:]
    # Rows of W + H values, read as rows of one value less, start one column later each.
    rows = F.pad(x, (0, H)).flatten(-2)
    return rows[..., : H * (W + H - 1)].unflatten(-1, (H, W + H - 1))


def unshear(x: Tensor, width: int) -> Tensor:
    """The inverse of `shear` for a map of `width` columns; what left the map is dropped."""
    H = x.shape[-2]
    return F.pad(x.flatten(-2), (0, H)).unflatten(-1, (H, width + H))[..., :width]
