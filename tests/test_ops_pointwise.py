"""The linear layer over the channels of maps, against `F.linear`."""

from __future__ import annotations

import pytest
import thop
import torch
import torch.nn.functional as F
from torch import nn

from model.ops.pointwise import Pointwise, pointwise
from utils.profiling.weigh import THOP_RULES


@pytest.fixture(autouse=True, params=[1, 2], ids=["one thread", "two threads"])
def threads(request):
    """By one it is a matrix product, by more a convolution."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def gradients(layer, x, weight, bias):
    x, weight, bias = (t.detach().clone().requires_grad_() for t in (x, weight, bias))
    out = layer(x, weight, bias)
    out.square().sum().backward()
    return out, x.grad, weight.grad, bias.grad


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
@pytest.mark.parametrize("shape", [(2, 7, 5, 12), (1, 1, 1, 12), (3, 1, 9, 12)])
def test_results_and_gradients_are_those_of_a_linear_layer(shape, dtype, error):
    torch.manual_seed(0)
    weight, bias = torch.randn(20, 12, dtype=dtype), torch.randn(20, dtype=dtype)
    for x in (
        torch.randn(shape, dtype=dtype),
        torch.randn(shape, dtype=dtype).permute(0, 2, 1, 3),
        torch.randn(shape, dtype=dtype).permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
    ):
        ours = gradients(pointwise, x, weight, bias)
        for mine, expected in zip(ours, gradients(F.linear, x, weight, bias), strict=True):
            torch.testing.assert_close(mine, expected, rtol=error, atol=error)


def test_half_precision_where_autocast_asks_for_it():
    torch.manual_seed(0)
    layer, x = Pointwise(32, 8), torch.randn(2, 6, 5, 32)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), layer(x), rtol=0.02, atol=0.02)


def test_without_a_bias():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 4, 6, 8), torch.randn(3, 8)
    torch.testing.assert_close(pointwise(x, weight, None), x @ weight.T)


def test_its_weights_are_those_of_a_linear_layer():
    layer, linear = Pointwise(6, 4), nn.Linear(6, 4)
    linear.load_state_dict(layer.state_dict())
    x = torch.randn(1, 3, 2, 6)
    torch.testing.assert_close(layer(x), linear(x))


def test_thop_counts_it_as_a_linear_layer():
    x = torch.randn(1, 3, 2, 6)
    macs, _ = thop.profile(Pointwise(6, 4), (x,), custom_ops=THOP_RULES, verbose=False)
    assert macs == 3 * 2 * 6 * 4
