"""DCNv3: against loops over pixels, torchvision's deform_conv2d, and its own reference."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torchvision.ops import deform_conv2d

from model.ops.dcnv3 import DCNv3, dcnv3, dcnv3_reference

BOTH = pytest.mark.parametrize("operator", [dcnv3, dcnv3_reference])


def operands(
    B: int = 2, H: int = 5, W: int = 7, G: int = 2, K: int = 9, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(H * 100 + W)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    return random(B, H, W, 3 * G), 2 * random(B, H, W, G, K, 2), random(B, H, W, G, K).softmax(-1)


def by_loops(value: Tensor, offset: Tensor, mask: Tensor, dilation: int = 1) -> Tensor:
    """The sum of taps by Python's own arithmetic, one channel group at a time."""
    B, H, W, C = value.shape
    G, K = mask.shape[3:]
    side, c = math.isqrt(K), C // G
    out = torch.zeros_like(value)
    for b, h, w, g, k in torch.cartesian_prod(*map(torch.arange, (B, H, W, G, K))).tolist():
        y = h + (k // side - side // 2) * dilation + offset[b, h, w, g, k, 0].item()
        x = w + (k % side - side // 2) * dilation + offset[b, h, w, g, k, 1].item()
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < H and 0 <= column < W:
                    share = (1 - abs(y - row)) * (1 - abs(x - column)) * mask[b, h, w, g, k]
                    group = slice(g * c, (g + 1) * c)
                    out[b, h, w, group] += share * value[b, row, column, group]
    return out


@BOTH
@pytest.mark.parametrize("sides", [(5, 7), (1, 4), (3, 1), (1, 1)])
@pytest.mark.parametrize("dilation", [1, 3])
def test_agrees_with_loops_over_pixels(operator, sides, dilation):
    value, offset, mask = operands(H=sides[0], W=sides[1])
    expected = by_loops(value, offset, mask, dilation)
    torch.testing.assert_close(operator(value, offset, mask, dilation=dilation), expected)


@pytest.mark.parametrize(("kernel_size", "dilation"), [(3, 1), (3, 7), (5, 2), (1, 1)])
def test_agrees_with_deform_conv2d_up_to_and_beyond_the_border(kernel_size, dilation):
    value, offset, mask = operands(H=9, W=8, G=3, K=kernel_size**2)
    C = value.shape[3]
    expected = deform_conv2d(
        value.permute(0, 3, 1, 2),
        offset.flatten(3).permute(0, 3, 1, 2),
        torch.ones(C, 1, kernel_size, kernel_size, dtype=value.dtype),
        padding=dilation * (kernel_size // 2),
        dilation=dilation,
        mask=mask.flatten(3).permute(0, 3, 1, 2),
    )
    actual = dcnv3(value, offset, mask, kernel_size=kernel_size, dilation=dilation)
    torch.testing.assert_close(actual.permute(0, 3, 1, 2), expected)


@pytest.mark.parametrize("far", [1e4, 3e9, 1e30, math.inf])
def test_far_offsets_read_zero_and_pass_no_gradient(far):
    value, offset, mask = operands(dtype=torch.float32)
    offset = torch.full_like(offset, far)
    offset[:, :, ::2] *= -1
    leaves = [t.requires_grad_() for t in (value, offset, mask)]
    out = dcnv3(*leaves)
    out.sum().backward()
    for tensor in (out, *(leaf.grad for leaf in leaves)):
        assert tensor.count_nonzero() == 0


@BOTH
def test_gradients_are_those_of_finite_differences(operator):
    leaves = [t.requires_grad_() for t in operands(B=1, H=3, W=2)]
    assert torch.autograd.gradcheck(operator, leaves, fast_mode=True)


def test_gradients_agree_with_the_reference():
    grads = []
    for operator in (dcnv3, dcnv3_reference):
        leaves = [t.requires_grad_() for t in operands()]
        (operator(*leaves, dilation=3) * leaves[0].detach().cos()).sum().backward()
        grads.append([leaf.grad for leaf in leaves])
    torch.testing.assert_close(*grads)


def test_memory_layout_does_not_matter():
    value, offset, mask = operands()
    expected = dcnv3(value, offset, mask)
    channels_first = value.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    scattered = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (offset, mask)]
    assert not any(t.is_contiguous() for t in (channels_first, *scattered))
    torch.testing.assert_close(dcnv3(channels_first, *scattered), expected)


def test_bfloat16_is_rounded_once():
    rounded = [t.bfloat16() for t in operands(dtype=torch.float32)]
    out = dcnv3(*rounded)
    exact = by_loops(*(t.double() for t in rounded))
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, exact.bfloat16(), rtol=2**-7, atol=1e-6)


def test_keeps_its_operands_alone_for_the_backward_pass():
    value = torch.randn(1, 8, 8, 256, requires_grad=True)
    offset = torch.randn(1, 8, 8, 2, 9, 2, requires_grad=True)
    mask = torch.rand(1, 8, 8, 2, 9, requires_grad=True)
    kept: list[int] = []
    with saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t):
        dcnv3(value, offset, mask).sum().backward()
    assert sum(kept) < value.numel() + 2 * offset.numel() + 2 * mask.numel()


def test_taps_that_are_no_square_kernel_are_refused():
    with pytest.raises(AssertionError, match="3 x 3 kernel, but 25 taps"):
        dcnv3(*operands(K=25))


def test_the_layer_starts_as_a_mean_over_its_regular_taps():
    torch.manual_seed(0)
    layer, x = DCNv3(32, groups=2, dilation=3), torch.randn(2, 32, 11, 9)
    value = layer.input_projection(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    taps = torch.full((32, 1, 3, 3), 1 / 9)
    mean = torch.nn.functional.conv2d(value, taps, padding=3, dilation=3, groups=32)
    expected = layer.output_projection(mean.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(layer(x), expected)


def test_the_layer_takes_offsets_and_masks_from_its_input():
    torch.manual_seed(0)
    layer, x = DCNv3(32, groups=2), torch.randn(2, 32, 6, 5)
    for head in (layer.offset, layer.mask):
        torch.nn.init.normal_(head.weight, std=0.2)
    guide = layer.depthwise(x).permute(0, 2, 3, 1)
    guide = torch.nn.functional.gelu(layer.norm(guide))
    offset = layer.offset(guide).view(2, 6, 5, 2, 9, 2)
    mask = layer.mask(guide).view(2, 6, 5, 2, 9).softmax(-1)
    value = layer.input_projection(x.permute(0, 2, 3, 1))
    expected = layer.output_projection(by_loops(value, offset, mask)).permute(0, 3, 1, 2)
    torch.testing.assert_close(layer(x), expected)
