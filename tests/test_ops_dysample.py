"""DySample: against loops over pixels and PyTorch's bilinear enlargement."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.ops.dysample import DySample, dysample


def operands(
    B: int = 2, H: int = 4, W: int = 5, G: int = 2, s: int = 2, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(H * 100 + W)
    x = torch.randn(B, 3 * G, H, W, generator=generator, dtype=dtype)
    return x, 2 * torch.randn(B, 2, G, s * s, H, W, generator=generator, dtype=dtype)


def by_loops(x: Tensor, offset: Tensor, s: int) -> Tensor:
    """Every sub-pixel from the four pixels around its point, which is held within the map."""
    B, C, H, W = x.shape
    G = offset.shape[2]
    out = x.new_zeros(B, C, s * H, s * W)
    for b, c, i, j in torch.cartesian_prod(*map(torch.arange, (B, C, s * H, s * W))).tolist():
        shift = offset[b, :, c // (C // G), (i % s) * s + j % s, i // s, j // s]
        px = (j + 0.5) / s - 0.5 + shift[0].item()
        py = (i + 0.5) / s - 0.5 + shift[1].item()
        px, py = min(max(px, 0), W - 1), min(max(py, 0), H - 1)
        for row in {math.floor(py), math.ceil(py)}:
            for column in {math.floor(px), math.ceil(px)}:
                share = (1 - abs(py - row)) * (1 - abs(px - column))
                out[b, c, i, j] += share * x[b, c, row, column]
    return out


@pytest.mark.parametrize("sides", [(4, 5), (1, 3), (3, 1), (1, 1)])
@pytest.mark.parametrize("scale", [2, 3])
def test_agrees_with_loops_over_pixels(sides, scale):
    x, offset = operands(H=sides[0], W=sides[1], s=scale)
    torch.testing.assert_close(dysample(x, offset, scale=scale), by_loops(x, offset, scale))


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_without_offsets_it_is_bilinear_enlargement(scale):
    x, offset = operands(H=7, W=6, s=scale)
    expected = F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
    torch.testing.assert_close(dysample(x, offset * 0, scale=scale), expected)


@pytest.mark.parametrize("far", [1e4, 3e9, 1e30])
def test_far_offsets_read_the_border(far):
    x, offset = operands(dtype=torch.float32)
    out = dysample(x, torch.full_like(offset, far))
    torch.testing.assert_close(out, x[:, :, -1:, -1:].expand_as(out))
    out = dysample(x, torch.full_like(offset, -far))
    torch.testing.assert_close(out, x[:, :, :1, :1].expand_as(out))


def test_gradients_are_those_of_finite_differences():
    leaves = [t.requires_grad_() for t in operands(B=1, H=3, W=2)]
    assert torch.autograd.gradcheck(dysample, leaves)


def test_memory_layout_does_not_matter():
    x, offset = operands()
    expected = dysample(x, offset)
    scattered = offset.transpose(4, 5).contiguous().transpose(4, 5)
    assert not scattered.is_contiguous()
    actual = dysample(x.contiguous(memory_format=torch.channels_last), scattered)
    torch.testing.assert_close(actual, expected)


def test_bfloat16_is_rounded_once():
    rounded = [t.bfloat16() for t in operands(dtype=torch.float32)]
    out = dysample(*rounded)
    exact = by_loops(*(t.double() for t in rounded), 2)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, exact.bfloat16(), rtol=2**-7, atol=1e-5)


def test_offsets_that_do_not_fit_are_refused():
    x, offset = operands()
    with pytest.raises(AssertionError, match="is not"):
        dysample(x, offset, scale=3)
    with pytest.raises(AssertionError, match="do not divide"):
        dysample(x[:, :5], offset)


def test_the_layer_moves_by_a_quarter_of_what_its_convolution_says():
    torch.manual_seed(0)
    layer, x = DySample(8), torch.randn(1, 8, 3, 4)
    torch.nn.init.normal_(layer.offset.weight)
    torch.nn.init.normal_(layer.offset.bias)
    weight = layer.offset.weight[:, :, 0, 0]
    raw = torch.einsum("oc,bchw->bohw", weight, x) + layer.offset.bias.view(-1, 1, 1)
    expected = by_loops(x, raw.view(1, 2, 4, 4, 3, 4) / 4, 2)
    torch.testing.assert_close(layer(x), expected)


def test_the_layer_starts_close_to_bilinear_enlargement():
    torch.manual_seed(0)
    layer, x = DySample(16), torch.randn(2, 16, 5, 5)
    assert layer.offset.bias.count_nonzero() == 0
    assert 0.0005 < layer.offset.weight.std().item() < 0.0015
    expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0.02)
