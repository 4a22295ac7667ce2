"""Deformable sampling on a CPU: tensors to arrays, and the work to threads.

Arguments are those of `sampling.deform_sample`; `sampling_numba` has the kernels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from model.ops import sampling_numba
from model.ops.sampling_numba import Size
from model.ops.taps import FORMS, output_shape, regular_taps, tap_count
from model.ops.threads import in_parts


def forward(value: Tensor, offset: Tensor, weight: Tensor | None, form: str, step: int) -> Tensor:
    """The arguments are those of `sampling.deform_sample`."""
    shape = output_shape(value.shape, form, step)
    value, offset, weight, dtype = *_precise(value, offset, weight), value.dtype
    out = value.new_empty(shape)
    size = _size(value, offset, form, step)
    arrays = _arrays(value, offset, offset if weight is None else weight)
    arrays += [*_regular(size, form, value.dtype), *_arrays(out)]
    _in_parts(sampling_numba.forward, size.B * size.H, arrays, weight is not None, size)
    return out.to(dtype)


def backward(
    grad: Tensor, value: Tensor, offset: Tensor, weight: Tensor | None, form: str, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, offset and weight; the last is empty without weights."""
    kept = (value, offset, value if weight is None else weight)
    weighted = weight is not None
    value, offset, weight, grad = _precise(value, offset, weight, grad)
    results = torch.zeros_like(value), torch.empty_like(offset)
    of_weight = torch.empty_like(weight) if weighted else value.new_empty(0)
    size = _size(value, offset, form, step)
    arrays = _arrays(grad, value, offset, weight if weighted else offset)
    arrays += [*_regular(size, form, value.dtype), *_arrays(*results, of_weight)]
    _in_parts(sampling_numba.backward, size.B * size.G, arrays, weighted, size)
    gradients = (*results, of_weight)
    return tuple(t.to(like.dtype) for t, like in zip(gradients, kept, strict=True))


def _precise(value: Tensor, *others: Tensor | None) -> list[Tensor | None]:
    """All in one float type, float32 at least, and contiguous."""
    dtype = torch.promote_types(value.dtype, torch.float32)
    return [None if t is None else t.to(dtype).contiguous() for t in (value, *others)]


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().numpy().reshape(-1) for tensor in tensors]


def _size(value: Tensor, offset: Tensor, form: str, step: int) -> Size:
    return Size(*value.shape, *tap_count(offset, form, step), FORMS.index(form), step)


def _regular(size: Size, form: str, dtype: torch.dtype) -> list[np.ndarray]:
    """The regular places of all groups' taps, y and x."""
    return _arrays(
        *(
            torch.tensor(taps, dtype=dtype).repeat(size.G)
            for taps in regular_taps(size.K, form, size.step)
        )
    )


def _in_parts(
    kernel: Callable, count: int, arrays: list[np.ndarray], weighted: bool, size: Size
) -> None:
    in_parts(count, lambda begin, end: kernel(*arrays, weighted, size, begin, end))
