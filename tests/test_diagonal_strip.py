"""Diagonal strips against the square convolution whose kernel is zero off the diagonal."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from model.ops.diagonal_strip import DiagonalStripConv2d, shear, unshear

SIZES = [(6, 6), (5, 9), (9, 4), (1, 7), (7, 1), (2, 3)]


def square_convolution(x: torch.Tensor, layer: DiagonalStripConv2d) -> torch.Tensor:
    strip = layer.weight[..., 0]
    square = torch.diag_embed(strip)
    square = square if layer.diagonal == "main" else square.flip(-1)
    return F.conv2d(x, square, layer.bias, padding=strip.shape[-1] // 2)


@pytest.mark.parametrize("diagonal", ["main", "anti"])
@pytest.mark.parametrize("length", [3, 5, 7])
@pytest.mark.parametrize("size", SIZES)
def test_equals_a_square_convolution(size, length, diagonal):
    torch.manual_seed(0)
    layer = DiagonalStripConv2d(3, 4, length, diagonal).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    y, expected = layer(x), square_convolution(x, layer)
    torch.testing.assert_close(y, expected)
    targets = (x, layer.weight, layer.bias)
    weight = torch.randn_like(y)
    for grad, of_square in zip(
        torch.autograd.grad(y, targets, weight),
        torch.autograd.grad(expected, targets, weight),
        strict=True,
    ):
        torch.testing.assert_close(grad, of_square)


def test_the_two_diagonals_point_as_they_are_named():
    """A single pixel through a strip of ones draws the strip."""
    x = torch.zeros(1, 1, 5, 5)
    x[..., 2, 2] = 1
    drawn = {}
    for diagonal in ("main", "anti"):
        layer = DiagonalStripConv2d(1, 1, 5, diagonal)
        torch.nn.init.ones_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        drawn[diagonal] = layer(x)[0, 0]
    assert torch.equal(drawn["main"], torch.eye(5))
    assert torch.equal(drawn["anti"], torch.eye(5).flip(1))


@pytest.mark.parametrize("size", SIZES)
def test_shear_moves_rows_and_back(size):
    H, W = size
    x = torch.randn(2, 3, H, W)
    sheared = shear(x)
    for r in range(H):
        assert torch.equal(sheared[..., r, r : r + W], x[..., r, :])
    assert sheared.count_nonzero() == x.count_nonzero()
    assert torch.equal(unshear(sheared, W), x)


def test_gradients_by_finite_differences():
    layer = DiagonalStripConv2d(1, 2, 3, "main").double()
    assert gradcheck(layer, torch.randn(1, 1, 3, 4, dtype=torch.float64, requires_grad=True))
