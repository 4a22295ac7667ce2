"""Test-time augmentation: the eight symmetries of a square, minus one, and their inverses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Symmetry(NamedTuple):
    """A rearrangement of the pixels of (..., H, W), and the one that undoes it."""

    apply: Callable[[Tensor], Tensor]
    invert: Callable[[Tensor], Tensor]


def _hflip(x: Tensor) -> Tensor:
    return x.flip(-1)


def _vflip(x: Tensor) -> Tensor:
    return x.flip(-2)


def _clockwise(x: Tensor) -> Tensor:
    return torch.rot90(x, -1, (-2, -1))  # torch's positive turn is counter-clockwise


def _counter_clockwise(x: Tensor) -> Tensor:
    return torch.rot90(x, 1, (-2, -1))


def _half_turn(x: Tensor) -> Tensor:
    return x.flip(-2, -1)


def _transpose(x: Tensor) -> Tensor:
    return x.transpose(-2, -1)


#: By the names of `utils.schema.TTAOp`; rotations are clockwise.
SYMMETRIES: dict[str, Symmetry] = {
    "identity": Symmetry(lambda x: x, lambda x: x),
    "hflip": Symmetry(_hflip, _hflip),
    "vflip": Symmetry(_vflip, _vflip),
    "rot90": Symmetry(_clockwise, _counter_clockwise),
    "rot180": Symmetry(_half_turn, _half_turn),
    "rot270": Symmetry(_counter_clockwise, _clockwise),
    "transpose": Symmetry(_transpose, _transpose),
}


def average_over(
    ops: Sequence[str], probability: Callable[[Tensor], Tensor], image: Tensor
) -> Tensor:
    """The mean of `probability` over the named views of an image batch (B, C, H, W).

    `probability` maps (B, C, H, W) to (B, 1, H, W) in [0, 1]; each result is turned back before
    the mean is taken. Raises ValueError for an empty list or an unknown name.
    """
    unknown = [op for op in ops if op not in SYMMETRIES]
    if unknown or not ops:
        raise ValueError(f"TTA operations {list(ops)}: name some of {', '.join(SYMMETRIES)}")
    total: Tensor | None = None
    for op in ops:
        view = probability(SYMMETRIES[op].apply(image).contiguous())
        restored = SYMMETRIES[op].invert(view)
        total = restored if total is None else total + restored
    assert total is not None
    return total / len(ops)
