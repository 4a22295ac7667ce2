"""Deformable sampling on a CPU, compiled by Numba at the first call and cached beside this file.

Pixel by pixel: first every tap's corners and their shares, a vector of taps at a time, then the
channels of each group, a vector of channels at a time. Nothing of the size of the map is
allocated but the results. The backward pass gives each thread channels of its own to add into: the
result does not depend on the number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from model.ops.simd import scatter, weighted_sum
from model.ops.taps import FORMS, output_shape, regular_taps, tap_count

# Numbers of the forms.
_STRIP_H, _STRIP_W, _SQUARE, _SUBPIXELS = range(len(FORMS))


class Size(NamedTuple):
    """All that the kernels know of the shapes."""

    B: int
    H: int
    W: int
    C: int
    G: int
    K: int
    form: int
    step: int


# Left to itself, LLVM would contract some loops and not others: equal taps, unequal places.
_FAST = {"nsz"}
_compiled = njit(nogil=True, cache=True, fastmath=_FAST)
_inlined = njit(inline="always")
_sum_16, _sum_4, _sum_1 = weighted_sum(16), weighted_sum(4), weighted_sum(1)
_scatter_16, _scatter_4, _scatter_1 = scatter(16), scatter(4), scatter(1)


def forward(value: Tensor, offset: Tensor, weight: Tensor | None, form: str, step: int) -> Tensor:
    """The arguments are those of `sampling.deform_sample`."""
    shape = output_shape(value.shape, form, step)
    value, offset, weight, dtype = *_precise(value, offset, weight), value.dtype
    out = value.new_empty(shape)
    size = _size(value, offset, form, step)
    arrays = _arrays(value, offset, offset if weight is None else weight)
    arrays += [*_regular(size, form, value.dtype), *_arrays(out)]
    _in_parts(_forward, size.B * size.H, arrays, weight is not None, size)
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
    _in_parts(_backward, size.B * size.G, arrays, weighted, size)
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
    """kernel(..., begin, end) over 0..count, in as many threads as PyTorch uses."""
    threads = max(1, min(torch.get_num_threads(), count))
    ends = [count * i // threads for i in range(threads + 1)]
    parts = list(pairwise(ends))

    def work(part: tuple[int, int]) -> None:
        kernel(*arrays, weighted, tuple(size), *part)

    if threads == 1:
        work(parts[0])
    else:
        list(_pool(os.getpid(), threads).map(work, parts))  # list: errors come through


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process: those of its parent did not survive the fork."""
    return ThreadPoolExecutor(threads, "deformable")


@_inlined
def _places(offset, pixel, taps_y, taps_x, h, w, first, last, size, y, x):
    """Where the taps first..last of a pixel read."""
    G, K, form = size[4:7]
    taps = G * K
    row, column = y.dtype.type(h), x.dtype.type(w)
    if form == _STRIP_H:
        for t in range(first, last):
            y[t] = offset[np.uintp(pixel * taps + t)] + (row + taps_y[t])
    elif form == _STRIP_W:
        for t in range(first, last):
            x[t] = offset[np.uintp(pixel * taps + t)] + (column + taps_x[t])
    elif form == _SQUARE:
        for t in range(first, last):
            y[t] = offset[np.uintp(2 * (pixel * taps + t))] + (row + taps_y[t])
            x[t] = offset[np.uintp(2 * (pixel * taps + t) + 1)] + (column + taps_x[t])
    else:
        for t in range(first, last):
            x[t] = offset[np.uintp(2 * pixel * taps + t)] + (column + taps_x[t])
            y[t] = offset[np.uintp((2 * pixel + 1) * taps + t)] + (row + taps_y[t])


@njit(forceinline=True, fastmath=_FAST)
def _between(place, one, end, border):
    """The two pixels around a place on an axis that ends with pixel `end`: their shares and the
    slopes of these shares, zero outside the map. With `border` the place is held within it."""
    zero = one - one
    if border:
        inside = one if (place > zero) & (place < end) else zero
        held = min(max(place, zero), end)
    else:
        inside = one if (place >= -one) & (place < end + one) else zero
        held = min(max(place, -one), end + one)
    below = np.floor(held)
    part = held - below
    has_low = inside if (below >= zero) & (below <= end) else zero
    has_high = inside if below < end else zero
    share_low, share_high = one - part, part
    if not border:
        share_low, share_high = share_low * has_low, share_high * has_high
    low = np.int32(min(max(below, zero), end))
    high = np.int32(min(max(below + one, zero), end))
    return low, high, share_low, share_high, -has_low, has_high


@_inlined
def _corners(y, x, weight, weighted, pixel, image, h, w, first, last, size, index, share):
    """Pixel and share of the corners of the taps first..last, one plane of G * K a corner."""
    H, W = size[1:3]
    taps = size[4] * size[5]
    form = size[6]
    one = y.dtype.type(1)
    bottom, right = y.dtype.type(H - 1), y.dtype.type(W - 1)
    origin, columns = np.int32(image * H * W), np.int32(W)
    if form == _STRIP_H:
        here = np.int32(origin + w)
        for t in range(first, last):
            low, high, share[t], share[taps + t], _, _ = _between(y[t], one, bottom, False)
            index[t], index[taps + t] = here + low * columns, here + high * columns
    elif form == _STRIP_W:
        here = np.int32(origin + h * W)
        for t in range(first, last):
            low, high, share[t], share[taps + t], _, _ = _between(x[t], one, right, False)
            index[t], index[taps + t] = here + low, here + high
    else:
        for t in range(first, last):
            top, below, upper, lower, _, _ = _between(y[t], one, bottom, form == _SUBPIXELS)
            left, beside, before, behind, _, _ = _between(x[t], one, right, form == _SUBPIXELS)
            if weighted:
                factor = weight[np.uintp(pixel * taps + t)]
                upper, lower = upper * factor, lower * factor
            index[t] = origin + top * columns + left
            index[taps + t] = origin + top * columns + beside
            index[2 * taps + t] = origin + below * columns + left
            index[3 * taps + t] = origin + below * columns + beside
            share[t], share[taps + t] = upper * before, upper * behind
            share[2 * taps + t], share[3 * taps + t] = lower * before, lower * behind


@_compiled
def _forward(
    value, offset, weight, taps_y, taps_x, out, weighted, size, begin, end
):  # pragma: no cover - compiled
    _, H, W, C, G, K, form, step = size
    taps, c = G * K, C // G
    planes = 2 if form <= _STRIP_W else 4
    y, x = np.empty(taps, value.dtype), np.empty(taps, value.dtype)
    index, share = np.empty(planes * taps, np.int32), np.empty(planes * taps, value.dtype)
    for line in range(begin, end):
        image, h = line // H, line % H
        for w in range(W):
            pixel = line * W + w
            _places(offset, pixel, taps_y, taps_x, h, w, 0, taps, size, y, x)
            _corners(y, x, weight, weighted, pixel, image, h, w, 0, taps, size, index, share)
            # A sum takes all taps of its group, a sub-pixel its own.
            together = 1 if form == _SUBPIXELS else K
            for first in range(0, taps, together):
                last, g = first + together, first // K
                place = pixel
                if form == _SUBPIXELS:
                    row, column = first % K // step, first % K % step
                    place = ((image * H + h) * step + row) * W * step + w * step + column
                at = place * C + g * c
                i = 0
                while i + 16 <= c:
                    _sum_16(
                        value, index, share, first, last, taps, planes, C, g * c + i, out, at + i
                    )
                    i += 16
                while i + 4 <= c:
                    _sum_4(
                        value, index, share, first, last, taps, planes, C, g * c + i, out, at + i
                    )
                    i += 4
                while i < c:
                    _sum_1(
                        value, index, share, first, last, taps, planes, C, g * c + i, out, at + i
                    )
                    i += 1


@njit(forceinline=True, fastmath=_FAST)
def _slopes(y, x, weight, weighted, pixel, first, last, size, product, of_offset, of_weight):
    """From the corners' products to the gradients of the taps first..last."""
    H, W = size[1:3]
    taps = size[4] * size[5]
    form = size[6]
    one = y.dtype.type(1)
    bottom, right = y.dtype.type(H - 1), y.dtype.type(W - 1)
    if form <= _STRIP_W:
        for t in range(first, last):
            place, side = (y[t], bottom) if form == _STRIP_H else (x[t], right)
            _, _, _, _, low, high = _between(place, one, side, False)
            of_offset[np.uintp(pixel * taps + t)] = low * product[t] + high * product[taps + t]
    else:
        for t in range(first, last):
            _, _, upper, lower, up, down = _between(y[t], one, bottom, form == _SUBPIXELS)
            _, _, before, behind, back, on = _between(x[t], one, right, form == _SUBPIXELS)
            above = before * product[t] + behind * product[taps + t]
            beneath = before * product[2 * taps + t] + behind * product[3 * taps + t]
            slope_y = up * above + down * beneath
            slope_x = upper * (back * product[t] + on * product[taps + t])
            slope_x += lower * (back * product[2 * taps + t] + on * product[3 * taps + t])
            if weighted:
                factor = weight[np.uintp(pixel * taps + t)]
                slope_y, slope_x = slope_y * factor, slope_x * factor
                of_weight[np.uintp(pixel * taps + t)] = upper * above + lower * beneath
            if form == _SQUARE:
                of_offset[np.uintp(2 * (pixel * taps + t))] = slope_y
                of_offset[np.uintp(2 * (pixel * taps + t) + 1)] = slope_x
            else:
                of_offset[np.uintp(2 * pixel * taps + t)] = slope_x
                of_offset[np.uintp((2 * pixel + 1) * taps + t)] = slope_y


@_compiled
def _backward(
    grad, value, offset, weight, taps_y, taps_x, of_value, of_offset, of_weight, weighted, size,
    begin, end,
):  # pragma: no cover - compiled  # fmt: skip
    _, H, W, C, G, K, form, step = size
    taps, c = G * K, C // G
    planes = 2 if form <= _STRIP_W else 4
    y, x = np.empty(taps, value.dtype), np.empty(taps, value.dtype)
    index, share = np.empty(planes * taps, np.int32), np.empty(planes * taps, value.dtype)
    product = np.empty(planes * taps, value.dtype)
    for image in range(begin // G, (end + G - 1) // G):
        # These groups' channels of this image are this thread's alone.
        begin_tap = max(begin - image * G, 0) * K
        end_tap = min(end - image * G, G) * K
        for h in range(H):
            for w in range(W):
                pixel = (image * H + h) * W + w
                _places(offset, pixel, taps_y, taps_x, h, w, begin_tap, end_tap, size, y, x)
                _corners(
                    y, x, weight, weighted, pixel, image, h, w, begin_tap, end_tap, size, index,
                    share,
                )  # fmt: skip
                for plane in range(planes):
                    for t in range(plane * taps + begin_tap, plane * taps + end_tap):
                        product[t] = 0
                together = 1 if form == _SUBPIXELS else K
                for first in range(begin_tap, end_tap, together):
                    last, g = first + together, first // K
                    place = pixel
                    if form == _SUBPIXELS:
                        row, column = first % K // step, first % K % step
                        place = ((image * H + h) * step + row) * W * step + w * step + column
                    at = place * C + g * c
                    i = 0
                    while i + 16 <= c:
                        _scatter_16(
                            grad, at + i, value, index, share, first, last, taps, planes, C,
                            g * c + i, of_value, product,
                        )  # fmt: skip
                        i += 16
                    while i + 4 <= c:
                        _scatter_4(
                            grad, at + i, value, index, share, first, last, taps, planes, C,
                            g * c + i, of_value, product,
                        )  # fmt: skip
                        i += 4
                    while i < c:
                        _scatter_1(
                            grad, at + i, value, index, share, first, last, taps, planes, C,
                            g * c + i, of_value, product,
                        )  # fmt: skip
                        i += 1
                _slopes(
                    y, x, weight, weighted, pixel, begin_tap, end_tap, size, product, of_offset,
                    of_weight,
                )  # fmt: skip
