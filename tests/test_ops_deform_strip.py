"""Deformable strip: against loops over pixels, torchvision's deform_conv2d, its own reference."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torchvision.ops import deform_conv2d

from model.ops.deform_strip import deform_strip, deform_strip_reference, strip_positions

AXES = ("h", "w")
BOTH = pytest.mark.parametrize("strip", [deform_strip, deform_strip_reference])


def operands(
    B: int = 2, H: int = 5, W: int = 7, G: int = 2, K: int = 5, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(H * 100 + W)
    value = torch.randn(B, H, W, 3 * G, generator=generator, dtype=dtype)
    return value, 3 * torch.randn(B, H, W, G, K, generator=generator, dtype=dtype)


def by_loops(value: Tensor, offset: Tensor, axis: str) -> Tensor:
    B, H, W, C = value.shape
    G, K = offset.shape[3:]
    out = torch.zeros_like(value)
    for b, h, w, c, k in torch.cartesian_prod(*map(torch.arange, (B, H, W, C, K))).tolist():
        shift = k - K // 2 + offset[b, h, w, c // (C // G), k].item()
        here = (w if axis == "w" else h) + shift
        for neighbour in (math.floor(here), math.floor(here) + 1):
            if 0 <= neighbour < (W if axis == "w" else H):
                pixel = value[b, h, neighbour, c] if axis == "w" else value[b, neighbour, w, c]
                out[b, h, w, c] += pixel * (1 - abs(here - neighbour))
    return out


@BOTH
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("sides", [(5, 7), (1, 6), (4, 1), (1, 1)])
def test_agrees_with_loops_over_pixels(strip, axis, sides):
    value, offset = operands(H=sides[0], W=sides[1])
    torch.testing.assert_close(strip(value, offset, axis), by_loops(value, offset, axis))


@pytest.mark.parametrize("axis", AXES)
def test_agrees_with_deform_conv2d_up_to_and_beyond_the_border(axis):
    value, offset = operands(H=9, W=8, G=3, K=7)
    C, K = value.shape[3], offset.shape[4]
    # A depthwise kernel of ones sums the taps; the other axis gets no offset.
    yx = [torch.zeros_like(offset), offset] if axis == "w" else [offset, torch.zeros_like(offset)]
    yx = torch.stack(yx, -1).flatten(3).permute(0, 3, 1, 2)
    kernel = (1, K) if axis == "w" else (K, 1)
    weight = torch.ones(C, 1, *kernel, dtype=value.dtype)
    padding = (0, K // 2) if axis == "w" else (K // 2, 0)
    expected = deform_conv2d(value.permute(0, 3, 1, 2), yx, weight, padding=padding)
    actual = deform_strip(value, offset, axis)
    torch.testing.assert_close(actual.permute(0, 3, 1, 2), expected)


@BOTH
def test_the_last_pixel_fades_out_within_one_step(strip):
    value = torch.tensor([2.0, 3.0, 5.0]).view(1, 1, 3, 1)
    at_last = torch.tensor([0.25, 0.75, 1.0, 1.25])
    for shift in at_last.tolist():
        offset = torch.full((1, 1, 3, 1, 1), shift)
        expected = 5 * max(0.0, 1 - shift)
        assert strip(value, offset, "w")[0, 0, 2, 0].item() == pytest.approx(expected)
        expected = 2 * max(0.0, 1 - shift)
        assert strip(value, -offset, "w")[0, 0, 0, 0].item() == pytest.approx(expected)


@BOTH
@pytest.mark.parametrize("far", [1e4, 3e9, 1e30, math.inf])
@pytest.mark.parametrize("axis", AXES)
def test_far_offsets_read_zero_and_pass_no_gradient(strip, far, axis):
    value, offset = operands(dtype=torch.float32)
    offset = torch.full_like(offset, far)
    offset[..., ::2] *= -1
    value.requires_grad_()
    offset.requires_grad_()
    out = strip(value, offset, axis)
    out.sum().backward()
    assert out.count_nonzero() == 0
    assert value.grad.count_nonzero() == 0
    assert offset.grad.count_nonzero() == 0


@BOTH
@pytest.mark.parametrize("axis", AXES)
def test_gradients_are_those_of_finite_differences(strip, axis):
    value, offset = operands(B=1, H=4, W=3, G=2, K=3)
    leaves = value.requires_grad_(), offset.requires_grad_()
    assert torch.autograd.gradcheck(lambda v, o: strip(v, o, axis), leaves)


@pytest.mark.parametrize("axis", AXES)
def test_gradients_at_whole_pixels_agree_with_the_reference(axis):
    value, offset = operands()
    grads = []
    for strip in (deform_strip, deform_strip_reference):
        leaves = value.clone().requires_grad_(), offset.round().requires_grad_()
        (strip(*leaves, axis) * value.cos()).sum().backward()
        grads.append([leaf.grad for leaf in leaves])
    torch.testing.assert_close(*grads)
    assert grads[0][1].count_nonzero() > 0


@pytest.mark.parametrize("axis", AXES)
def test_memory_layout_does_not_matter(axis):
    value, offset = operands()
    expected = deform_strip(value, offset, axis)
    channels_first = value.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    scattered = offset.transpose(1, 2).contiguous().transpose(1, 2)
    assert not channels_first.is_contiguous() and not scattered.is_contiguous()
    torch.testing.assert_close(deform_strip(channels_first, scattered, axis), expected)


def test_bfloat16_is_rounded_once():
    value, offset = operands(K=7, dtype=torch.float32)
    value, offset = value.bfloat16(), offset.bfloat16()
    out = deform_strip(value, offset, "w")
    exact = by_loops(value.double(), offset.double(), "w")
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, exact.bfloat16(), rtol=2**-7, atol=1e-6)


def test_positions_keep_fractions_of_a_pixel_at_the_end_of_a_long_row():
    offset = torch.full((1, 1, 2000, 1, 1), 0.25, dtype=torch.bfloat16)
    assert strip_positions(offset, "w")[0, 0, 1999, 0, 0] == 1999.25


def test_keeps_its_operands_alone_for_the_backward_pass():
    value = torch.randn(1, 8, 8, 128, requires_grad=True)
    offset = torch.randn(1, 8, 8, 2, 9, requires_grad=True)
    kept: list[int] = []
    with saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t):
        deform_strip(value, offset, "w").sum().backward()
    assert sum(kept) < value.numel() + 4 * offset.numel()


def test_offsets_that_do_not_fit_are_refused():
    value, offset = operands()
    with pytest.raises(AssertionError, match=r"for \(2, 4, 7, 6\)"):
        deform_strip(value[:, 1:], offset, "w")
    with pytest.raises(AssertionError, match="do not divide"):
        deform_strip(value[..., :5], offset, "w")
    with pytest.raises(AssertionError, match="middle tap"):
        deform_strip(value, offset[..., :4], "w")
