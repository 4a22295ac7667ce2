"""FLOPs of our custom operators: what PyTorch's FlopCounterMode cannot know.

    FlopCounterMode(custom_mapping=FLOP_FORMULAS)

They are no part of PyTorch's global table, so that a plain FlopCounterMode counts what publications
count: no sampling. Convention: two a multiply-add, as PyTorch counts its own. A corner of a sample
costs one multiply-add a channel forward and two backward (its share of the value's gradient, and
the dot product behind the gradients of place and weight). Places and shares, which all channels of
a group have in common, are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from model.ops import sampling  # noqa: F401 - registers the operators

MULTIPLY_ADD = 2
CORNERS = 4

Shape = Sequence[int]


def _sum_of_samples(value: Shape, y: Shape, *_: Shape | None, out_shape: Any) -> int:
    return MULTIPLY_ADD * CORNERS * y[-1] * math.prod(value)


def _sum_of_samples_backward(
    grad: Shape, value: Shape, y: Shape, *_: Shape | None, out_shape: Any
) -> int:
    return 2 * _sum_of_samples(value, y, out_shape=None)


#: {operator: FLOPs from the shapes of its arguments}, for FlopCounterMode's `custom_mapping`.
FLOP_FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.anchor_sam.sum_of_samples: _sum_of_samples,
    torch.ops.anchor_sam.sum_of_samples_backward: _sum_of_samples_backward,
}
