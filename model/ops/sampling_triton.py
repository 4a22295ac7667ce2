"""Deformable sampling on CUDA, written in Triton, which PyTorch's CUDA builds bring along.

A program takes a block of pixels and, of one group, a block of channels (forward) or all of them
(backward). Sums are kept in float32 (float64 of float64 operands) whatever the type of the
operands; gradients of the value are added in place. Arguments are those of
`sampling.deform_sample`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops.taps import FORMS, REACH_PX, output_shape, tap_count

_STRIP_H, _STRIP_W = tl.constexpr(0), tl.constexpr(1)
_SQUARE, _SUBPIXELS = tl.constexpr(2), tl.constexpr(3)
_FAR = tl.constexpr(float(REACH_PX))
_BLOCK = 1024  # elements of a block: pixels times channels
_MOST_CHANNELS, _MOST_PIXELS = 64, 128


def forward(value: Tensor, offset: Tensor, weight: Tensor | None, form: str, step: int) -> Tensor:
    """The arguments are those of `sampling.deform_sample`."""
    value, offset, weight = _contiguous(value, offset, weight)
    out = value.new_empty(output_shape(value.shape, form, step))
    grid, settings = _launch(value, offset, weight, form, step)
    with torch.cuda.device_of(value):
        _forward[grid](value, offset, offset if weight is None else weight, out, **settings)
    return out


def backward(
    grad: Tensor, value: Tensor, offset: Tensor, weight: Tensor | None, form: str, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, offset and weight; the last is empty without weights."""
    grad, value, offset, weight = _contiguous(grad, value, offset, weight)
    of_value = torch.zeros_like(value, dtype=torch.promote_types(value.dtype, torch.float32))
    of_offset = torch.empty_like(offset)
    of_weight = value.new_empty(0) if weight is None else torch.empty_like(weight)
    (blocks, groups, _), settings = _launch(value, offset, weight, form, step)
    with torch.cuda.device_of(value):
        _backward[(blocks, groups)](
            grad, value, offset, offset if weight is None else weight, of_value, of_offset,
            of_weight, **settings,
        )  # fmt: skip
    return of_value.to(value.dtype), of_offset, of_weight


def _contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.detach().contiguous() for t in tensors]


def _launch(
    value: Tensor, offset: Tensor, weight: Tensor | None, form: str, step: int
) -> tuple[tuple[int, int, int], dict[str, object]]:
    """The grid (blocks of pixels, groups, blocks of a group's channels) and all but the tensors."""
    B, H, W, C = value.shape
    G, K = tap_count(offset, form, step)
    block_c = min(triton.next_power_of_2(C // G), _MOST_CHANNELS)
    block_p = min(_BLOCK // block_c, _MOST_PIXELS)
    settings = {
        "pixels": B * H * W, "H": H, "W": W, "C": C, "G": G, "K": K, "STEP": step,
        "FORM": FORMS.index(form), "SIDE": round(K**0.5), "WEIGHTED": weight is not None,
        "PRECISE": tl.float64 if value.dtype == torch.float64 else tl.float32,
        "BLOCK_P": block_p, "BLOCK_C": block_c,
    }  # fmt: skip
    return (triton.cdiv(B * H * W, block_p), G, triton.cdiv(C // G, block_c)), settings


@triton.jit
def _split(shift, base):
    """The place base + shift as whole pixels and the shift's own fraction, as in sampling_numba.

    NaN stays with the fraction, and its pixel is the base.
    """
    no_number = shift != shift
    held = tl.where(no_number, 0.0, tl.minimum(tl.maximum(shift, -_FAR), _FAR))
    whole = tl.floor(held)
    return base.to(tl.int32) + whole.to(tl.int32), tl.where(no_number, shift, held - whole)


@triton.jit
def _place(
    offset, pixel, here, h, w, g, k, G: tl.constexpr, K: tl.constexpr, STEP: tl.constexpr,
    FORM: tl.constexpr, SIDE: tl.constexpr, PRECISE: tl.constexpr,
):  # fmt: skip
    """Where tap k of group g reads: whole pixels and fractions, of y and of x. A strip stays on its
    line."""
    tap = (pixel * G + g) * K + k
    if FORM == _STRIP_H:
        y = tl.load(offset + tap, mask=here, other=0.0).to(PRECISE)
        x = tl.zeros_like(y)
        h += k - K // 2
    elif FORM == _STRIP_W:
        x = tl.load(offset + tap, mask=here, other=0.0).to(PRECISE)
        y = tl.zeros_like(x)
        w += k - K // 2
    elif FORM == _SQUARE:
        y = tl.load(offset + 2 * tap, mask=here, other=0.0).to(PRECISE)
        x = tl.load(offset + 2 * tap + 1, mask=here, other=0.0).to(PRECISE)
        h += (k // SIDE - SIDE // 2) * STEP
        w += (k % SIDE - SIDE // 2) * STEP
    else:
        tap = (pixel * 2 * G + g) * K + k
        x = tl.load(offset + tap, mask=here, other=0.0).to(PRECISE)
        y = tl.load(offset + tap + G * K, mask=here, other=0.0).to(PRECISE)
        # Sub-pixels lie at fractions themselves, to be divided in the type of the sums.
        y += (tl.zeros_like(y) + (k // STEP - (STEP - 1) / 2)) / STEP
        x += (tl.zeros_like(x) + (k % STEP - (STEP - 1) / 2)) / STEP
    top, part_y = _split(y, h)
    left, part_x = _split(x, w)
    return top, part_y, left, part_x


@triton.jit
def _between(low, part, side, BORDER: tl.constexpr):
    """The pixel below the place low + part, the shares of it and of the next, and their slopes,
    zero outside the map. With BORDER the place is held within it."""
    zero = part - part  # or NaN, which tl.where would drop with the branch not taken
    if BORDER:
        has_low = (low >= 0) & (low < side - 1) & ((low > 0) | (part > 0))
        has_high = has_low
        low = tl.minimum(tl.maximum(low, 0), side - 1)
        share_high = tl.where(has_high, part, zero)
        share_low = 1.0 - share_high
    else:
        has_low = (low >= 0) & (low < side)
        has_high = (low >= -1) & (low < side - 1)
        share_low = tl.where(has_low, 1.0 - part, zero)
        share_high = tl.where(has_high, part, zero)
    return low, share_low, share_high, tl.where(has_low, -1.0, 0.0), tl.where(has_high, 1.0, 0.0)


@triton.jit
def _subpixel(image, h, w, k, H, W, STEP: tl.constexpr):
    """The number of sub-pixel k of a pixel among all pixels of the enlarged maps."""
    return ((image * H + h) * STEP + k // STEP) * W * STEP + w * STEP + k % STEP


@triton.jit
def _read(value, image, row, column, channel, here, H, W, C, PRECISE: tl.constexpr):
    """A corner's channels (pixels, channels), zero outside the map, and where they stand."""
    there = here & ((row >= 0) & (row < H) & (column >= 0) & (column < W))[:, None]
    at = (((image * H + row) * W + column) * C)[:, None] + channel[None, :]
    return tl.load(value + at, mask=there, other=0.0).to(PRECISE), at, there


@triton.jit
def _forward(
    value, offset, weight, out, pixels, H, W, C: tl.constexpr, G: tl.constexpr, K: tl.constexpr,
    STEP: tl.constexpr, FORM: tl.constexpr, SIDE: tl.constexpr, WEIGHTED: tl.constexpr,
    PRECISE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    g = tl.program_id(1)
    within = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    channel = g * (C // G) + within
    image, h, w = pixel // (H * W), pixel // W % H, pixel % W
    here = pixel < pixels
    inside = here[:, None] & (within < C // G)[None, :]
    total = tl.zeros((BLOCK_P, BLOCK_C), dtype=PRECISE)
    for k in range(K):
        top, y, left, x = _place(
            offset, pixel, here, h, w, g, k, G, K, STEP, FORM, SIDE, PRECISE
        )  # fmt: skip
        top, upper, lower, _, _ = _between(top, y, H, FORM == _SUBPIXELS)
        left, before, behind, _, _ = _between(left, x, W, FORM == _SUBPIXELS)
        if WEIGHTED:
            tap = (pixel * G + g) * K + k
            factor = tl.load(weight + tap, mask=here, other=0.0).to(PRECISE)
            upper *= factor
            lower *= factor
        sample, _, _ = _read(value, image, top, left, channel, inside, H, W, C, PRECISE)
        sample *= (upper * before)[:, None]
        if FORM != _STRIP_H:
            corner, _, _ = _read(value, image, top, left + 1, channel, inside, H, W, C, PRECISE)
            sample += (upper * behind)[:, None] * corner
        if FORM != _STRIP_W:
            corner, _, _ = _read(value, image, top + 1, left, channel, inside, H, W, C, PRECISE)
            sample += (lower * before)[:, None] * corner
        if (FORM == _SQUARE) or (FORM == _SUBPIXELS):  # noqa: SIM109 - Triton knows no `in`
            corner, _, _ = _read(value, image, top + 1, left + 1, channel, inside, H, W, C, PRECISE)
            sample += (lower * behind)[:, None] * corner
        if FORM == _SUBPIXELS:
            place = _subpixel(image, h, w, k, H, W, STEP)
            tl.store(
                out + (place * C)[:, None] + channel[None, :],
                sample.to(out.dtype.element_ty),
                mask=inside,
            )
        else:
            total += sample
    if FORM != _SUBPIXELS:
        tl.store(
            out + (pixel * C)[:, None] + channel[None, :],
            total.to(out.dtype.element_ty),
            mask=inside,
        )


@triton.jit
def _give(of_value, given, value, image, row, column, share, channel, inside, H, W, C,
          PRECISE: tl.constexpr):  # fmt: skip
    """Add share * given to a corner's gradient; the products of given and value, summed."""
    corner, at, there = _read(value, image, row, column, channel, inside, H, W, C, PRECISE)
    # Nobody reads the sums before the kernel ends, so no order is asked for.
    tl.atomic_add(of_value + at, share[:, None] * given, mask=there, sem="relaxed")
    return tl.sum(given * corner, axis=1)


@triton.jit
def _give_corners(
    grad, place, of_value, value, image, top, left, upper, lower, before, behind, here, g, H, W,
    C: tl.constexpr, G: tl.constexpr, FORM: tl.constexpr, PRECISE: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Add the gradient at a place of the result to those of the four corners, by their shares; the
    products of the gradient with each corner, summed over the channels."""
    one = tl.zeros((BLOCK_P,), dtype=PRECISE)
    two = tl.zeros((BLOCK_P,), dtype=PRECISE)
    three = tl.zeros((BLOCK_P,), dtype=PRECISE)
    four = tl.zeros((BLOCK_P,), dtype=PRECISE)
    for start in range(0, C // G, BLOCK_C):
        within = start + tl.arange(0, BLOCK_C)
        channel = g * (C // G) + within
        inside = here[:, None] & (within < C // G)[None, :]
        at = (place * C)[:, None] + channel[None, :]
        given = tl.load(grad + at, mask=inside, other=0.0).to(PRECISE)
        one += _give(
            of_value, given, value, image, top, left, upper * before, channel, inside, H, W, C,
            PRECISE,
        )  # fmt: skip
        if FORM != _STRIP_H:
            two += _give(
                of_value, given, value, image, top, left + 1, upper * behind, channel, inside, H, W,
                C, PRECISE,
            )  # fmt: skip
        if FORM != _STRIP_W:
            three += _give(
                of_value, given, value, image, top + 1, left, lower * before, channel, inside, H, W,
                C, PRECISE,
            )  # fmt: skip
        if (FORM == _SQUARE) or (FORM == _SUBPIXELS):  # noqa: SIM109 - Triton knows no `in`
            four += _give(
                of_value, given, value, image, top + 1, left + 1, lower * behind, channel, inside,
                H, W, C, PRECISE,
            )  # fmt: skip
    return one, two, three, four


@triton.jit
def _store_slopes(
    of_offset, slope_y, slope_x, pixel, here, g, k, G: tl.constexpr, K: tl.constexpr,
    FORM: tl.constexpr,
):  # fmt: skip
    """The gradient of the offset of tap k of group g, in its layout."""
    tap = (pixel * G + g) * K + k
    kind = of_offset.dtype.element_ty
    if FORM == _STRIP_H:
        tl.store(of_offset + tap, slope_y.to(kind), mask=here)
    elif FORM == _STRIP_W:
        tl.store(of_offset + tap, slope_x.to(kind), mask=here)
    elif FORM == _SQUARE:
        tl.store(of_offset + 2 * tap, slope_y.to(kind), mask=here)
        tl.store(of_offset + 2 * tap + 1, slope_x.to(kind), mask=here)
    else:
        tap = (pixel * 2 * G + g) * K + k
        tl.store(of_offset + tap, slope_x.to(kind), mask=here)
        tl.store(of_offset + tap + G * K, slope_y.to(kind), mask=here)


@triton.jit
def _backward(
    grad, value, offset, weight, of_value, of_offset, of_weight, pixels, H, W, C: tl.constexpr,
    G: tl.constexpr, K: tl.constexpr, STEP: tl.constexpr, FORM: tl.constexpr, SIDE: tl.constexpr,
    WEIGHTED: tl.constexpr, PRECISE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    g = tl.program_id(1)
    image, h, w = pixel // (H * W), pixel // W % H, pixel % W
    here = pixel < pixels
    for k in range(K):
        tap = (pixel * G + g) * K + k
        top, y, left, x = _place(
            offset, pixel, here, h, w, g, k, G, K, STEP, FORM, SIDE, PRECISE
        )  # fmt: skip
        top, upper, lower, up, down = _between(top, y, H, FORM == _SUBPIXELS)
        left, before, behind, back, on = _between(left, x, W, FORM == _SUBPIXELS)
        factor = tl.full((BLOCK_P,), 1.0, dtype=PRECISE)
        if WEIGHTED:
            factor = tl.load(weight + tap, mask=here, other=0.0).to(PRECISE)
        place = pixel
        if FORM == _SUBPIXELS:
            place = _subpixel(image, h, w, k, H, W, STEP)
        one, two, three, four = _give_corners(
            grad, place, of_value, value, image, top, left, upper * factor, lower * factor, before,
            behind, here, g, H, W, C, G, FORM, PRECISE, BLOCK_P, BLOCK_C,
        )  # fmt: skip
        above, beneath = before * one + behind * two, before * three + behind * four
        slope_y = (up * above + down * beneath) * factor
        slope_x = upper * (back * one + on * two) + lower * (back * three + on * four)
        _store_slopes(of_offset, slope_y, slope_x * factor, pixel, here, g, k, G, K, FORM)
        if WEIGHTED:
            sample = upper * above + lower * beneath
            tl.store(of_weight + tap, sample.to(of_weight.dtype.element_ty), mask=here)
