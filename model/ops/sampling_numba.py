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
def _places(offset, pixel, taps_y, taps_x, h, w, first, count, size, y, x):
    """Where `count` taps of a pixel from `first` on read: a plane of whole pixels, one of fractions
    beyond them."""
    form, taps = size.form, size.G * size.K
    row, column = y.dtype.type(h), x.dtype.type(w)
    at = pixel * taps + first
    if form == _STRIP_H:
        for t in range(count):
            y[t], y[count + t] = _split(offset[np.uintp(at + t)], row + taps_y[np.uintp(first + t)])
    elif form == _STRIP_W:
        for t in range(count):
            x[t], x[count + t] = _split(
                offset[np.uintp(at + t)], column + taps_x[np.uintp(first + t)]
            )
    elif form == _SQUARE:
        for t in range(count):
            pair, tap = 2 * (at + t), np.uintp(first + t)
            y[t], y[count + t] = _split(offset[np.uintp(pair)], row + taps_y[tap])
            x[t], x[count + t] = _split(offset[np.uintp(pair + 1)], column + taps_x[tap])
    else:
        at += pixel * taps
        for t in range(count):  # sub-pixels lie at fractions themselves
            tap = np.uintp(first + t)
            x[t], x[count + t] = _split(offset[np.uintp(at + t)] + taps_x[tap], column)
            y[t], y[count + t] = _split(offset[np.uintp(at + taps + t)] + taps_y[tap], row)


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
def _corners(y, x, weight, weighted, pixel, image, h, w, first, count, size, index, share):
    """Pixel and share of the corners of these taps, one plane a corner."""
    H, W, form = size.H, size.W, size.form
    one = y.dtype.type(1)
    bottom, right = y.dtype.type(H - 1), y.dtype.type(W - 1)
    origin, columns = np.int32(image * H * W), np.int32(W)
    if form == _STRIP_H:
        here = np.int32(origin + w)
        for t in range(count):
            low, high, share[t], share[count + t], _, _ = _between(
                y[t], y[count + t], one, bottom, False
            )
            index[t], index[count + t] = here + low * columns, here + high * columns
    elif form == _STRIP_W:
        here = np.int32(origin + h * W)
        for t in range(count):
            low, high, share[t], share[count + t], _, _ = _between(
                x[t], x[count + t], one, right, False
            )
            index[t], index[count + t] = here + low, here + high
    else:
        border, at = form == _SUBPIXELS, pixel * size.G * size.K + first
        for t in range(count):
            top, below, upper, lower, _, _ = _between(y[t], y[count + t], one, bottom, border)
            left, beside, before, behind, _, _ = _between(x[t], x[count + t], one, right, border)
            if weighted:
                factor = weight[np.uintp(at + t)]
                upper, lower = upper * factor, lower * factor
            index[t] = origin + top * columns + left
            index[count + t] = origin + top * columns + beside
            index[2 * count + t] = origin + below * columns + left
            index[3 * count + t] = origin + below * columns + beside
            share[t], share[count + t] = upper * before, upper * behind
            share[2 * count + t], share[3 * count + t] = lower * before, lower * behind


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
def _slopes(
    y, x, weight, weighted, pixel, first, count, size, product, results, of_offset, of_weight
):
    """From the corners' products to the gradients of these taps, by way of the planes `results`:
    loops that write to the gradients themselves are not vectorised, as those might overlap."""
    H, W, form, taps = size.H, size.W, size.form, size.G * size.K
    one = y.dtype.type(1)
    bottom, right = y.dtype.type(H - 1), y.dtype.type(W - 1)
    at = pixel * taps + first
    if form <= _STRIP_W:
        place, side = (y, bottom) if form == _STRIP_H else (x, right)
        for t in range(count):
            _, _, _, _, low, high = _between(place[t], place[count + t], one, side, False)
            results[t] = low * product[t] + high * product[count + t]
        for t in range(count):
            of_offset[np.uintp(at + t)] = results[t]
        return
    border = form == _SUBPIXELS
    for t in range(count):
        _, _, upper, lower, up, down = _between(y[t], y[count + t], one, bottom, border)
        _, _, before, behind, back, on = _between(x[t], x[count + t], one, right, border)
        above = before * product[t] + behind * product[count + t]
        beneath = before * product[2 * count + t] + behind * product[3 * count + t]
        slope_x = upper * (back * product[t] + on * product[count + t])
        slope_x += lower * (back * product[2 * count + t] + on * product[3 * count + t])
        results[t], results[count + t] = up * above + down * beneath, slope_x
        results[2 * count + t] = upper * above + lower * beneath
    if weighted:
        for t in range(count):
            factor = weight[np.uintp(at + t)]
            results[t] *= factor
            results[count + t] *= factor
        for t in range(count):
            of_weight[np.uintp(at + t)] = results[2 * count + t]
    if form == _SQUARE:
        for t in range(count):
            pair = 2 * (at + t)
            of_offset[np.uintp(pair)] = results[t]
            of_offset[np.uintp(pair + 1)] = results[count + t]
    else:
        at += pixel * taps
        for t in range(count):
            of_offset[np.uintp(at + t)] = results[count + t]
            of_offset[np.uintp(at + taps + t)] = results[t]


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
    c, planes = C // G, 2 if form <= _STRIP_W else 4
    _, together, enlarged, channel, target = _sums(size)
    for image in range(begin // G, (end + G - 1) // G):
        # These groups' channels of this image are this thread's alone.
        first = max(begin - image * G, 0) * K
        count = min(end - image * G, G) * K - first
        y, x = np.empty(2 * count, value.dtype), np.empty(2 * count, value.dtype)
        index, share = np.empty(planes * count, np.int32), np.empty(planes * count, value.dtype)
        product = np.empty(planes * count, value.dtype)
        for h in range(H):
            for w in range(W):
                pixel = (image * H + h) * W + w
                _places(offset, pixel, taps_y, taps_x, h, w, first, count, size, y, x)
                _corners(
                    y, x, weight, weighted, pixel, image, h, w, first, count, size, index, share
                )
                product[:] = 0
                at = ((image * H + h) * enlarged * W + w) * enlarged * C
                for tap in range(0, count, together):
                    s = (first + tap) // together
                    _scatter_channels(
                        grad, at + target[s], value, index, share, tap, tap + together, count,
                        planes, C, channel[s], c, of_value, product,
                    )  # fmt: skip
                _slopes(  # for which the shares make room
                    y, x, weight, weighted, pixel, first, count, size, product, share, of_offset,
                    of_weight,
                )  # fmt: skip
