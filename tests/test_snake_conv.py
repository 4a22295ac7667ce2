"""Snake convolution against ordinary and deformable convolution, and by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck
from torchvision.ops import deform_conv2d

from model.ops.snake_conv import SnakeConv2d, accumulate, snake_sample

SIZES = [(6, 6), (4, 9), (9, 5), (1, 6), (6, 1)]
AXES = ["horizontal", "vertical"]


def strip_of(axis: str, K: int) -> tuple[int, int]:
    return (1, K) if axis == "horizontal" else (K, 1)


def bilinear(plane: torch.Tensor, row: float, column: float) -> float:
    """The value of a map (H, W) between its pixels, zero outside."""
    value = 0.0
    for r in (math.floor(row), math.floor(row) + 1):
        for c in (math.floor(column), math.floor(column) + 1):
            if 0 <= r < plane.shape[0] and 0 <= c < plane.shape[1]:
                value += (1 - abs(row - r)) * (1 - abs(column - c)) * float(plane[r, c])
    return value


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("size", SIZES)
def test_straight_snake_is_a_strip_convolution(size, axis):
    torch.manual_seed(0)
    K = 5
    layer = SnakeConv2d(3, 8, K, extent=3, axis=axis).eval()
    torch.nn.init.zeros_(layer.offset[0].weight)
    torch.nn.init.zeros_(layer.offset[0].bias)
    x = torch.randn(2, 3, *size)
    kernel = strip_of(axis, K)
    strip = F.conv2d(
        x, layer.conv.weight, layer.conv.bias, padding=(kernel[0] // 2, kernel[1] // 2)
    )
    torch.testing.assert_close(layer(x), layer.norm(strip).relu(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("size", SIZES)
def test_bent_snake_is_a_deformable_convolution(size, axis):
    generator = torch.Generator().manual_seed(1)
    K = 5
    x = torch.randn(2, 3, *size, generator=generator)
    bend = 4 * torch.randn(2, K, *size, generator=generator)
    weight = torch.randn(4, 3, *strip_of(axis, K), generator=generator)
    y = F.conv2d(snake_sample(x, bend, axis), weight, stride=strip_of(axis, K))
    still = torch.zeros_like(bend)
    # (vertical, horizontal) offsets, tap by tap
    pairs = (bend, still) if axis == "horizontal" else (still, bend)
    offset = torch.stack(pairs, dim=2).flatten(1, 2)
    padding = (K // 2, 0) if axis == "vertical" else (0, K // 2)
    torch.testing.assert_close(
        y, deform_conv2d(x, offset, weight, padding=padding), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("axis", AXES)
def test_samples_by_hand(axis):
    generator = torch.Generator().manual_seed(2)
    H, W, K = 4, 5, 3
    x = torch.randn(2, 1, H, W, generator=generator)
    bend = 2 * torch.randn(2, K, H, W, generator=generator)
    samples = snake_sample(x, bend, axis)
    for b in range(2):
        for r in range(H):
            for c in range(W):
                for k in range(K):
                    sideways = float(bend[b, k, r, c])
                    if axis == "horizontal":
                        expected = bilinear(x[b, 0], r + sideways, c + k - 1)
                        sample = samples[b, 0, r, c * K + k]
                    else:
                        expected = bilinear(x[b, 0], r + k - 1, c + sideways)
                        sample = samples[b, 0, r * K + k, c]
                    assert float(sample) == pytest.approx(expected, abs=1e-5)


def test_offsets_grow_from_the_centre():
    o = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]).view(1, 5, 1, 1)
    assert accumulate(o).flatten().tolist() == [3.0, 2.0, 0.0, 8.0, 24.0]


def test_vertical_snake_is_the_transposed_horizontal_one():
    torch.manual_seed(3)
    K = 3
    horizontal = SnakeConv2d(4, 8, K, extent=3, axis="horizontal").eval()
    vertical = SnakeConv2d(4, 8, K, extent=3, axis="vertical").eval()
    vertical.conv.load_state_dict({k: v.mT if v.ndim == 4 else v for k, v in _state(horizontal)})
    half = horizontal.offset[0]
    rows_and_columns_swapped = torch.cat([torch.arange(K, 2 * K), torch.arange(K)])
    vertical.offset[0].load_state_dict(
        {
            "weight": half.weight.mT[rows_and_columns_swapped],
            "bias": half.bias[rows_and_columns_swapped],
        }
    )
    x = torch.randn(2, 4, 6, 9)
    torch.testing.assert_close(vertical(x.mT).mT, horizontal(x), rtol=1e-4, atol=1e-5)


def _state(layer: SnakeConv2d) -> list[tuple[str, torch.Tensor]]:
    return list(layer.conv.state_dict().items())


def test_images_of_a_batch_do_not_mix():
    torch.manual_seed(4)
    layer = SnakeConv2d(4, 8, 5, extent=5, axis="vertical").eval()
    x = torch.randn(3, 4, 7, 5)
    together = layer(x)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], layer(x[i : i + 1]))


@pytest.mark.parametrize("axis", AXES)
def test_gradients_by_finite_differences(axis):
    torch.manual_seed(5)
    x = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    bend = torch.randn(1, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, bend: snake_sample(x, bend, axis), (x, bend))


def test_places_keep_their_precision_under_autocast():
    torch.manual_seed(6)
    layer = SnakeConv2d(4, 8, 3, extent=3, axis="horizontal").eval()
    columns = torch.arange(600.0).expand(1, 4, 2, 600)
    straight = torch.zeros(1, 3, 2, 600)
    samples = snake_sample(columns.bfloat16(), straight, "horizontal")
    torch.testing.assert_close(samples[..., 1::3], columns.bfloat16().float(), rtol=0, atol=1e-2)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(columns / 600).isfinite().all()
