"""The kernels of deformable sampling on a CPU, compiled by Numba at the first call.

Pixel by pixel: first every tap's corners and their shares, a vector of taps at a time, then the
channels of each group, a vector of channels at a time. Nothing of the size of the map is
allocated. All arrays are flat and of one float type; `taps_y` and `taps_x` are the regular places
of a pixel's G * K taps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from model.ops import simd, taps
from model.ops.compiled import compiled
from model.ops.simd import scatter, weighted_sum
from model.ops.taps import FORMS, REACH_PX

# Numbers of the forms.
_STRIP_H, _STRIP_W, _SQUARE, _SUBPIXELS = range(len(FORMS))
_FAR = np.float32(REACH_PX)


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


# No sums are reordered here: a tap must come out alike wherever it stands in a vector, or the
# result would depend on how the taps are shared out to threads.
_FAST = {"nsz"}
_compiled = compiled(simd, taps, fastmath=_FAST)
# Loops in these are vectorised only where Numba itself puts them into their callers; LLVM takes the
# rest along, which compiles faster.
_spliced = njit(inline="always")
_inlined = njit(forceinline=True, fastmath=_FAST)
_sum_16, _sum_4, _sum_1 = weighted_sum(16), weighted_sum(4), weighted_sum(1)
_scatter_16, _scatter_4, _scatter_1 = scatter(16), scatter(4), scatter(1)


@_inlined
def _split(shift, base):
    """The place base + shift as whole pixels and the fraction beyond them.

    The fraction is that of the shift: in a sum with the number of a pixel far along the map it
    would lose its last bits, and with them the side of a whole pixel that it lies on.
    """
    held = min(max(shift, -_FAR), _FAR)
    whole = np.floor(held)
    return base + whole, held - whole


@_spliced
def _places(offset, pixel, taps_y, taps_x, h, w, first, last, size, y, x):
    """Where the taps first..last of a pixel read: a plane of whole pixels, one of fractions."""
    form, taps = size.form, size.G * size.K
    row, column = y.dtype.type(h), x.dtype.type(w)
    if form == _STRIP_H:
        for t in range(first, last):
            y[t], y[taps + t] = _split(offset[np.uintp(pixel * taps + t)], row + taps_y[t])
    elif form == _STRIP_W:
        for t in range(first, last):
            x[t], x[taps + t] = _split(offset[np.uintp(pixel * taps + t)], column + taps_x[t])
    elif form == _SQUARE:
        for t in range(first, last):
            at = 2 * (pixel * taps + t)
            y[t], y[taps + t] = _split(offset[np.uintp(at)], row + taps_y[t])
            x[t], x[taps + t] = _split(offset[np.uintp(at + 1)], column + taps_x[t])
    else:
        for t in range(first, last):  # sub-pixels lie at fractions themselves
            at = 2 * pixel * taps + t
            x[t], x[taps + t] = _split(offset[np.uintp(at)] + taps_x[t], column)
            y[t], y[taps + t] = _split(offset[np.uintp(at + taps)] + taps_y[t], row)


@_inlined
def _between(below, part, one, end, border):
    """The two pixels around the place below + part on an axis that ends with pixel `end`: their
    shares and the slopes of these shares, zero outside the map. With `border` the place is held
    within it."""
    zero = one - one
    if border:
        has_low = has_high = one if (below + part > zero) & (below < end) else zero
        share_high = part * has_high
        share_low = one - share_high
    else:
        has_low = one if (below >= zero) & (below <= end) else zero
        has_high = one if (below >= -one) & (below < end) else zero
        share_low, share_high = (one - part) * has_low, part * has_high
    # In this order NaN becomes a pixel of the map; its shares remain NaN.
    low = np.int32(min(end, max(zero, below)))
    high = np.int32(min(end, max(zero, below + one)))
    return low, high, share_low, share_high, -has_low, has_high


@_spliced
def _corners(y, x, weight, weighted, pixel, image, h, w, first, last, size, index, share):
    """Pixel and share of the corners of the taps first..last, one plane of G * K a corner."""
    H, W, form, taps = size.H, size.W, size.form, size.G * size.K
    one = y.dtype.type(1)
    bottom, right = y.dtype.type(H - 1), y.dtype.type(W - 1)
    origin, columns = np.int32(image * H * W), np.int32(W)
    if form == _STRIP_H:
        here = np.int32(origin + w)
        for t in range(first, last):
            low, high, share[t], share[taps + t], _, _ = _between(
                y[t], y[taps + t], one, bottom, False
            )
            index[t], index[taps + t] = here + low * columns, here + high * columns
    elif form == _STRIP_W:
        here = np.int32(origin + h * W)
        for t in range(first, last):
            low, high, share[t], share[taps + t], _, _ = _between(
                x[t], x[taps + t], one, right, False
            )
            index[t], index[taps + t] = here + low, here + high
    else:
        border = form == _SUBPIXELS
        for t in range(first, last):
            top, below, upper, lower, _, _ = _between(y[t], y[taps + t], one, bottom, border)
            left, beside, before, behind, _, _ = _between(x[t], x[taps + t], one, right, border)
            if weighted:
                factor = weight[np.uintp(pixel * taps + t)]
                upper, lower = upper * factor, lower * factor
            index[t] = origin + top * columns + left
            index[taps + t] = origin + top * columns + beside
            index[2 * taps + t] = origin + below * columns + left
            index[3 * taps + t] = origin + below * columns + beside
            share[t], share[taps + t] = upper * before, upper * behind
            share[2 * taps + t], share[3 * taps + t] = lower * before, lower * behind


@_inlined
def _sums(size):
    """How many sums of taps a pixel has, of how many taps, and by how much the result is enlarged;
    for each its first channel, and where it goes from the pixel's first value of the result on.

    A sum takes all taps of its group, a sub-pixel its own.
    """
    taps, c = size.G * size.K, size.C // size.G
    together, enlarged = (1, size.step) if size.form == _SUBPIXELS else (size.K, 1)
    count = taps // together
    channel, target = np.empty(count, np.intp), np.empty(count, np.intp)
    for s in range(count):
        g, k = s * together // size.K, s * together % size.K
        row, column = k // enlarged, k % enlarged  # of the sub-pixel; of other forms 0
        channel[s] = g * c
        target[s] = (row * size.W * enlarged + column) * size.C + channel[s]
    return count, together, enlarged, channel, target


@_inlined
def _sum_channels(value, index, share, first, last, taps, planes, C, start, c, out, at):
    i = 0
    while i + 16 <= c:
        _sum_16(value, index, share, first, last, taps, planes, C, start + i, out, at + i)
        i += 16
    while i + 4 <= c:
        _sum_4(value, index, share, first, last, taps, planes, C, start + i, out, at + i)
        i += 4
    while i < c:
        _sum_1(value, index, share, first, last, taps, planes, C, start + i, out, at + i)
        i += 1


@_compiled
def forward(
    value, offset, weight, taps_y, taps_x, out, weighted, size, begin, end
):  # pragma: no cover - compiled
    """Fill `out` for the lines begin..end of all images' lines."""
    _, H, W, C, G, K, form, _ = size
    taps, c = G * K, C // G
    planes = 2 if form <= _STRIP_W else 4
    y, x = np.empty(2 * taps, value.dtype), np.empty(2 * taps, value.dtype)
    index, share = np.empty(planes * taps, np.int32), np.empty(planes * taps, value.dtype)
    sums, together, enlarged, channel, target = _sums(size)
    for line in range(begin, end):
        image, h = line // H, line % H
        for w in range(W):
            pixel = line * W + w
            _places(offset, pixel, taps_y, taps_x, h, w, 0, taps, size, y, x)
            _corners(y, x, weight, weighted, pixel, image, h, w, 0, taps, size, index, share)
            at = (line * enlarged * W + w) * enlarged * C
            for s in range(sums):
                first = s * together
                _sum_channels(
                    value, index, share, first, first + together, taps, planes, C, channel[s], c,
                    out, at + target[s],
                )  # fmt: skip


@_inlined
def _slopes(y, x, weight, weighted, pixel, first, last, size, product, of_offset, of_weight):
    """From the corners' products to the gradients of the taps first..last."""
    H, W, form, taps = size.H, size.W, size.form, size.G * size.K
    one = y.dtype.type(1)
    bottom, right = y.dtype.type(H - 1), y.dtype.type(W - 1)
    if form <= _STRIP_W:
        for t in range(first, last):
            place, side = (y, bottom) if form == _STRIP_H else (x, right)
            _, _, _, _, low, high = _between(place[t], place[taps + t], one, side, False)
            of_offset[np.uintp(pixel * taps + t)] = low * product[t] + high * product[taps + t]
    else:
        border = form == _SUBPIXELS
        for t in range(first, last):
            _, _, upper, lower, up, down = _between(y[t], y[taps + t], one, bottom, border)
            _, _, before, behind, back, on = _between(x[t], x[taps + t], one, right, border)
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


@_inlined
def _scatter_channels(
    grad, at, value, index, share, first, last, taps, planes, C, start, c, of_value, product
):
    i = 0
    while i + 16 <= c:
        _scatter_16(
            grad, at + i, value, index, share, first, last, taps, planes, C, start + i, of_value,
            product,
        )  # fmt: skip
        i += 16
    while i + 4 <= c:
        _scatter_4(
            grad, at + i, value, index, share, first, last, taps, planes, C, start + i, of_value,
            product,
        )  # fmt: skip
        i += 4
    while i < c:
        _scatter_1(
            grad, at + i, value, index, share, first, last, taps, planes, C, start + i, of_value,
            product,
        )  # fmt: skip
        i += 1


@_compiled
def backward(
    grad, value, offset, weight, taps_y, taps_x, of_value, of_offset, of_weight, weighted, size,
    begin, end,
):  # pragma: no cover - compiled  # fmt: skip
    """Fill `of_offset` and `of_weight` and add to `of_value` for begin..end of all images' groups.

    No two of these add into the same channels of the same image, and a thread takes them in order:
    the result does not depend on the number of threads.
    """
    _, H, W, C, G, K, form, _ = size
    taps, c = G * K, C // G
    planes = 2 if form <= _STRIP_W else 4
    y, x = np.empty(2 * taps, value.dtype), np.empty(2 * taps, value.dtype)
    index, share = np.empty(planes * taps, np.int32), np.empty(planes * taps, value.dtype)
    product = np.empty(planes * taps, value.dtype)
    _, together, enlarged, channel, target = _sums(size)
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
                at = ((image * H + h) * enlarged * W + w) * enlarged * C
                for s in range(begin_tap // together, end_tap // together):
                    first = s * together
                    _scatter_channels(
                        grad, at + target[s], value, index, share, first, first + together, taps,
                        planes, C, channel[s], c, of_value, product,
                    )  # fmt: skip
                _slopes(
                    y, x, weight, weighted, pixel, begin_tap, end_tap, size, product, of_offset,
                    of_weight,
                )  # fmt: skip
