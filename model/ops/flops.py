"""FLOPs of our custom operators: what PyTorch's FlopCounterMode cannot know.

    FlopCounterMode(custom_mapping=FLOP_FORMULAS)

They are no part of PyTorch's global table, so that a plain FlopCounterMode counts what publications
count: no sampling. Convention: two a multiply-add, as PyTorch counts its own. A corner of a sample
costs one multiply-add a channel forward and two backward (its share of the value's gradient, and
the dot product behind the gradients of place and weight). Places and shares, which all channels of
a group have in common, are not counted. The selective scan has the formula that Mamba's users
count by, 9 L G d N + L G d; its backward pass is that once more, recomputed, and twice for the
gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from model.ops import sampling, selective_scan  # noqa: F401 - they register the operators

MULTIPLY_ADD = 2
#: Pixels that a sample lies between.
CORNERS = {"strip_h": 2, "strip_w": 2, "square": 4, "subpixels": 4}

Shape = Sequence[int]


def _deform_sample(
    value: Shape, offset: Shape, weight: Shape | None, form: str, step: int, *, out_shape: Any
) -> int:
    taps = offset[5] if form == "subpixels" else offset[4]
    return MULTIPLY_ADD * CORNERS[form] * taps * math.prod(value)


def _deform_sample_backward(grad: Shape, *operands: Any, out_shape: Any) -> int:
    return 2 * _deform_sample(*operands, out_shape=None)


def _selective_scan(u: Shape, delta: Shape, A: Shape, *_: Shape, out_shape: Any) -> int:
    """`u` (B, G, L, d), `A` (G, d, N)."""
    return (9 * A[-1] + 1) * math.prod(u)


def _selective_scan_backward(
    dy: Shape, states: Shape, u: Shape, delta: Shape, A: Shape, *_: Shape, out_shape: Any
) -> int:
    return 3 * _selective_scan(u, delta, A, out_shape=None)


#: {operator: FLOPs from the shapes of its arguments}, for FlopCounterMode's `custom_mapping`.
FLOP_FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.anchor_sam.deform_sample: _deform_sample,
    torch.ops.anchor_sam.deform_sample_backward: _deform_sample_backward,
    torch.ops.anchor_sam.selective_scan: _selective_scan,
    torch.ops.anchor_sam.selective_scan_backward: _selective_scan_backward,
}
