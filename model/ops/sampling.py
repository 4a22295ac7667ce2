"""Deformable sampling: what the deformable operators have in common.

One custom operator of PyTorch and its gradient, so that compilers, exporters and counters see one
call. Numba runs it on a CPU (`sampling_cpu`), Triton on CUDA (`sampling_triton`), PyTorch's own
sampler elsewhere (`sampling_native`). Only the operands are kept for the backward pass, which
samples again: no tensor of K times the map exists.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from model.ops import sampling_native
from model.ops.taps import FORMS, output_shape, tap_count

logger = logging.getLogger(__name__)


class _Form(threading.local):  # not a ContextVar, which torch.compile cannot look into
    def __init__(self) -> None:
        self.portable = False  # of the class it would be a constant to torch.compile


_form = _Form()


@contextmanager
def portable() -> Iterator[None]:
    """Within it the deformable operators are plain PyTorch: `grid_sample`, one tap at a time.

    For exporters to formats that know no custom operator, such as ONNX. Slower; the same results
    but for the rounding of the coordinates that `grid_sample` takes.
    """
    before, _form.portable = _form.portable, True
    try:
        yield
    finally:
        _form.portable = before


def deform_sample(
    value: Tensor, offset: Tensor, weight: Tensor | None, form: str, *, step: int = 1
) -> Tensor:
    """Bilinear samples of `value` at every pixel's regular taps plus their offsets.

    Group g of G reads channels g * C / G and following. Zero outside the map: within one step
    beyond the border the inside neighbours still give their share. Sub-pixels are held within the
    map instead.

    Args:
        value: (B, H, W, C); any memory layout.
        offset: in pixels. 'strip_h' and 'strip_w': (B, H, W, G, K) along that axis;
            'square': (B, H, W, G, K, 2) as (y, x), K = side ** 2 taps row by row;
            'subpixels': (B, H, W, 2, G, K) as (x, y), K = step ** 2 sub-pixels row by row.
        weight: (B, H, W, G, K), of 'square' only.
        form: one of the above.
        step: dilation of 'square', enlargement of 'subpixels'.

    Returns:
        (B, H, W, C), the sum over the taps; (B, step * H, step * W, C) of sub-pixels. In the type
        of `value`, accumulated in float32 at least.
    """
    assert form in FORMS, f"{form!r} is not one of {FORMS}"
    B, H, W, C = value.shape
    G, K = tap_count(offset, form, step)
    expected = {"square": (B, H, W, G, K, 2), "subpixels": (B, H, W, 2, G, K)}
    shape = expected.get(form, (B, H, W, G, K))
    assert offset.shape == shape, f"{tuple(offset.shape)} for {tuple(value.shape)}"
    assert weight is None or weight.shape == (B, H, W, G, K), f"{tuple(weight.shape)} for {shape}"
    assert C % G == 0, f"{C} channels do not divide into {G} groups"
    if _form.portable:
        return sampling_native.forward(value, offset, weight, form, step)
    return _deform_sample(value, offset, weight, form, step)


@torch.library.custom_op("anchor_sam::deform_sample", mutates_args=())
def _deform_sample(
    value: Tensor, offset: Tensor, weight: Tensor | None, form: str, step: int
) -> Tensor:
    return _kernels(value.device.type).forward(value, offset, weight, form, step)


@torch.library.custom_op("anchor_sam::deform_sample_backward", mutates_args=())
def _deform_sample_backward(
    grad: Tensor, value: Tensor, offset: Tensor, weight: Tensor | None, form: str, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, offset and weight; the last is empty without weights."""
    kernels = _kernels(value.device.type)
    return kernels.backward(grad, value, offset, weight, form, step)


@cache
def _kernels(device: str) -> ModuleType:
    """Imported when first needed: either compiler takes its time."""
    if device == "cpu":
        from model.ops import sampling_cpu

        return sampling_cpu
    if device != "cuda" or importlib.util.find_spec("triton") is None:
        return sampling_native
    lacking = _what_triton_lacks()
    if lacking:
        logger.warning(
            "Triton needs a GPU of compute capability 7.0 or above, a C compiler and Python's "
            "header files, and finds no %s: the deformable operators run on PyTorch's own sampler, "
            "which is slower",
            lacking,
        )
        return sampling_native
    from model.ops import sampling_triton

    return sampling_triton


def _what_triton_lacks() -> str | None:
    """On Unix Triton builds what starts its kernels when they first run; where it looks."""
    if torch.cuda.get_device_capability() < (7, 0):
        return "such GPU"
    if os.name != "posix":  # its builds for Windows bring a compiler along
        return None
    compilers = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    if not any(map(shutil.which, compilers)):
        return " or ".join(compilers)
    header = Path(sysconfig.get_path("include", "posix_prefix"), "Python.h")
    return None if header.exists() else str(header)


@_deform_sample.register_fake
def _(value: Tensor, offset: Tensor, weight: Tensor | None, form: str, step: int) -> Tensor:
    return value.new_empty(output_shape(value.shape, form, step))


@_deform_sample_backward.register_fake
def _(
    grad: Tensor, value: Tensor, offset: Tensor, weight: Tensor | None, form: str, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    of_weight = value.new_empty(0) if weight is None else weight.new_empty(weight.shape)
    return value.new_empty(value.shape), offset.new_empty(offset.shape), of_weight


def _keep_operands(ctx: FunctionCtx, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.form, ctx.step = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
    operands = ctx.saved_tensors
    results = _deform_sample_backward(grad, *operands, ctx.form, ctx.step)
    *gradients, of_weight = results
    return *gradients, None if operands[2] is None else of_weight, None, None


_deform_sample.register_autograd(_gradients, setup_context=_keep_operands)
