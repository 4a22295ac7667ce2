"""The parts of CMTFNet against their formulas, written out. Its attention is in test_blocks.py."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.baselines.cmtfnet import (
    HEAD_DIM,
    AttentionHead,
    ChannelGate,
    EfficientFeedForward,
    MultiScale,
    TransformerBlock,
    WeightedFuse,
)
from tests.formulas import batch_norm, conv, random_map, relu6, scrambled, sigmoid

pytestmark = pytest.mark.usefixtures("no_gradients")


def step(x: Tensor, layers: nn.Sequential, first: int = 0, **options: object) -> Tensor:
    """ReLU6(BN(convolution)), of the layers from `first` on."""
    return relu6(batch_norm(conv(x, layers[first], **options), layers[first + 1]))


def multi_scale(part: MultiScale, x: Tensor, dilations: tuple[int, ...]) -> Tensor:
    narrow = step(x, part.reduce)
    total = 0
    for d, branch in zip(dilations, part.branches, strict=True):
        y = step(narrow, branch, padding=d, dilation=d, groups=narrow.shape[1])
        total = total + step(y, branch, 3)
    return step(total, part.fuse) * x


def channel_gate(part: ChannelGate, x: Tensor) -> Tensor:
    _, squeeze, _, excite, _ = part
    pooled = x.mean((2, 3), keepdim=True)
    return sigmoid(conv(relu6(conv(pooled, squeeze)), excite)) * x


def separable(layers: nn.Sequential, x: Tensor, k: int) -> Tensor:
    x = conv(x, layers[0], padding=k // 2, groups=x.shape[1], bias=False)
    return step(batch_norm(x, layers[1]), layers, 2, bias=False)


def feed_forward(part: EfficientFeedForward, x: Tensor) -> Tensor:
    z = step(x, part.reduce, bias=False)
    options = {"groups": z.shape[1], "bias": False}
    y = step(z, part.wide, padding=2, **options) + step(z, part.close, padding=1, **options)
    return step(y, part.expand, bias=False)


def test_multi_scale_weighs_the_map():
    part = scrambled(MultiScale(8, (1, 3, 5)))
    x = 3 * random_map(2, 8, 6, 7)  # beyond the 6 of ReLU6, too
    torch.testing.assert_close(part(x), multi_scale(part, x, (1, 3, 5)))


def test_block_normalises_after_the_attention():
    dim = HEAD_DIM
    part = scrambled(TransformerBlock(dim, (3, 5, 7)))
    x = random_map(2, dim, 5, 6)
    attention, norm = part.attention
    y = x + batch_norm(attention(x), norm)
    torch.testing.assert_close(part(x), y + feed_forward(part.feed_forward, y))
    torch.testing.assert_close(attention.channel_gate(x), channel_gate(attention.channel_gate, x))


@pytest.mark.parametrize("thetas", [(0.5, 2.0), (-1.0, 7.0), (-1.0, -2.0)])
def test_fuse_mixes_the_skip_and_what_comes_from_below(thetas):
    assert torch.equal(WeightedFuse(4).weights, torch.ones(2))
    part = scrambled(WeightedFuse(4))
    part.weights.copy_(torch.tensor(thetas))
    below, skip = random_map(2, 4, 3, 4), random_map(2, 4, 6, 8, seed=2)
    w0, w1 = (min(max(theta, 0.0), 6.0) for theta in thetas)
    enlarged = F.interpolate(below, scale_factor=2, mode="bilinear", align_corners=False)
    mixed = (w0 * skip + w1 * enlarged) / (w0 + w1 + 1e-8)
    torch.testing.assert_close(part(below, skip), separable(part.refine, mixed, 5))


def test_head_adds_three_attentions():
    part = AttentionHead(8, (7, 9, 11), n_classes=3)
    assert isinstance(part.classify[5], nn.Dropout2d) and part.classify[5].p == 0.1
    part = scrambled(part)
    x = random_map(2, 8, 9, 6)
    profile = torch.stack([x.mean(1), x.max(1).values], 1)
    spatial = sigmoid(conv(profile, part.spatial_gate[0], padding=2)) * x
    total = multi_scale(part.multi_scale, x, (7, 9, 11))
    total = total + channel_gate(part.channel_gate, x) + spatial
    expected = conv(separable(part.classify, total, 3), part.classify[-1], bias=False)
    torch.testing.assert_close(part(x), expected)
