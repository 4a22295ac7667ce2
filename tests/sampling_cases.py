"""Operands of the sampling operator, one set a form: odd sides, places inside and far outside."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Case(NamedTuple):
    form: str
    step: int
    taps: int

    def operands(
        self, width: int, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Value, offset and weight; two groups of `width` channels. No operand is contiguous."""
        B, H, W, G, K = 2, 5, 3, 2, self.taps
        generator = torch.Generator().manual_seed(width)

        def random(*shape: int) -> Tensor:
            # Drawn with the two sides of the map in turn.
            turned = torch.randn(shape[0], shape[2], shape[1], *shape[3:], generator=generator)
            return turned.to(dtype).transpose(1, 2)

        shapes = {"square": (G, K, 2), "subpixels": (2, G, K)}
        offset = 2 * random(B, H, W, *shapes.get(self.form, (G, K)))
        offset[:, 0, 0] *= 1e4
        weight = random(B, H, W, G, K).abs() if self.form == "square" else None
        return random(B, H, W, G * width), offset, weight


CASES = (
    Case("strip_h", 1, 5),
    Case("strip_w", 1, 7),
    Case("square", 1, 9),
    Case("square", 3, 9),
    Case("subpixels", 2, 4),
    Case("subpixels", 3, 9),
)
