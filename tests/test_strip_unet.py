"""The parts of StripUnet against their formulas, written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model.baselines.strip_unet import (
    ConvModulation,
    MultiScaleFusion,
    SnakeDecoder,
    StripAttention,
    StripChain,
    StripEnhancement,
    StripGate,
    StripUnet,
)
from model.meta import on_meta
from model.ops.snake_conv import SnakeConv2d
from tests.formulas import (
    batch_norm,
    conv,
    doubled,
    gelu,
    pixel_norm,
    random_map,
    relu,
    scrambled,
    sigmoid,
)

pytestmark = pytest.mark.usefixtures("no_gradients")


def strip_gate(part: StripGate, x: Tensor) -> Tensor:
    dim = x.shape[1]
    local = conv(x, part.local, padding=2, groups=dim)
    total = local
    for k, (along_row, along_column) in zip((7, 11, 15), part.strips, strict=True):
        assert along_row.kernel_size == (1, k)
        y = conv(local, along_row, padding=(0, k // 2), groups=dim)
        total = total + conv(y, along_column, padding=(k // 2, 0), groups=dim)
    return x * conv(total, part.project)


def modulated(part: ConvModulation, x: Tensor) -> Tensor:
    dim = x.shape[1]
    n = pixel_norm(x, part.norm1, eps=1e-6)
    context = conv(gelu(conv(n, part.context[0])), part.context[2], padding=5, groups=dim)
    x = x + part.scale1 * conv(context * conv(n, part.value), part.project)
    f = gelu(conv(pixel_norm(x, part.norm2, eps=1e-6), part.expand[0]))
    f = f + gelu(conv(f, part.mix[0], padding=1, groups=4 * dim))
    return x + part.scale2 * conv(f, part.reduce)


def bn_prelu(x: Tensor, norm: nn.BatchNorm2d, slopes: nn.PReLU) -> Tensor:
    x = batch_norm(x, norm, eps=1e-3)
    return torch.where(x > 0, x, x * slopes.weight.view(1, -1, 1, 1))


def chain(part: StripChain, x: Tensor, dilation: int) -> Tensor:
    outputs = []
    for k, pair in zip((3, 5, 7), part.pairs, strict=True):
        down, norm1, slopes1, across, norm2, slopes2 = pair
        reach = dilation * (k // 2)
        options = {"dilation": dilation, "bias": False}
        x = conv(x, down, padding=(reach, 0), groups=part.pairs[0][0].out_channels, **options)
        x = bn_prelu(x, norm1, slopes1)
        x = conv(x, across, padding=(0, reach), groups=x.shape[1], **options)
        x = bn_prelu(x, norm2, slopes2)
        outputs.append(x)
    return torch.cat(outputs, 1)


def test_strip_gate():
    part = scrambled(StripGate(3))
    x = random_map(2, 3, 9, 17)
    torch.testing.assert_close(part(x), strip_gate(part, x))


def test_strip_attention_joins_two_maps():
    part = scrambled(StripAttention(4))
    x, y = random_map(2, 4, 7, 5), random_map(2, 4, 7, 5, seed=2)
    spatial_conv, spatial_norm, *_ = part.spatial_gate
    spatial = sigmoid(relu(batch_norm(conv(x, spatial_conv, bias=False), spatial_norm)))
    assert spatial.min() == 0.5 and spatial.shape[1] == 1
    _, squeeze, _, excite, _ = part.channel_gate
    pooled = x.mean((2, 3), keepdim=True)
    channel = sigmoid(conv(relu(conv(pooled, squeeze, bias=False)), excite))
    joined = torch.cat([x + x * spatial + x * channel, strip_gate(part.strip, y)], 1)
    expected = relu(batch_norm(conv(joined, part.fuse[0]), part.fuse[1]))
    torch.testing.assert_close(part(x, y), expected)


def test_fusion_modulates_every_path_of_the_cascade():
    part = scrambled(MultiScaleFusion(4))
    x = random_map(2, 4, 12, 9)
    paths = [x]
    for d, layer in zip((1, 2, 4, 8), part.cascade.convs, strict=True):
        paths.append(relu(conv(paths[-1], layer, padding=d, dilation=d)))
    blocks = zip(part.modulations, paths, strict=True)
    torch.testing.assert_close(part(x), sum(modulated(block, path) for block, path in blocks))


def test_fusion_starts_unbiased_and_nearly_silent():
    part = MultiScaleFusion(4)
    assert not any(m.bias.any() for m in part.modules() if isinstance(m, nn.Conv2d))
    for block in part.modulations:
        assert block.drop_path.drop_prob == 0.2
        for scale in (block.scale1, block.scale2):
            torch.testing.assert_close(scale, torch.full((4, 1, 1), 1e-6))


@pytest.mark.parametrize(
    ("spread", "dilations"), [(1, (1, 1, 1)), (2, (1, 1, 2)), (4, (1, 2, 3)), (8, (1, 3, 5))]
)
def test_enhancement_sums_strips_of_three_dilations(spread, dilations):
    part = StripEnhancement(32, spread)
    assert {m.weight[0].item() for m in part.modules() if isinstance(m, nn.PReLU)} == {0.25}
    part = scrambled(part)
    x = random_map(2, 32, 7, 10)
    norm1, slopes1, layer, norm2, slopes2 = part.reduce
    i = conv(bn_prelu(x, norm1, slopes1), layer, padding=1, bias=False)
    i = bn_prelu(i, norm2, slopes2)
    o1, o2, o3 = (chain(c, i, d) for c, d in zip(part.chains, dilations, strict=True))
    joined = conv(torch.cat([i, o1, o1 + o2, o1 + o2 + o3], 1), part.fuse[0], bias=False)
    torch.testing.assert_close(part(x), bn_prelu(joined, *part.fuse[1:]) + x)


def test_snake_decoder_joins_three_branches_at_twice_the_size():
    part = scrambled(SnakeDecoder(8, 5))
    x = random_map(2, 8, 5, 4)
    t = relu(batch_norm(doubled(x, part.up[0]), part.up[1]))
    across, down, square = part.branches
    assert [(s.axis, s.extent, s.conv.kernel_size) for s in (across[0], down[0])] == [
        ("horizontal", 3, (1, 3)),
        ("vertical", 5, (5, 1)),
    ]
    branches = [relu(batch_norm(branch[0](t), branch[1])) for branch in (across, down)]
    branches.append(relu(batch_norm(conv(t, square[0], padding=3, bias=False), square[1])))
    fused = conv(torch.cat(branches, 1), part.fuse[0], bias=False)
    assert fused.shape[-2:] == (10, 8)
    torch.testing.assert_close(part(x), relu(batch_norm(fused, part.fuse[1])))


def test_spreads_grow_towards_the_finer_stages():
    with on_meta():
        network = StripUnet(pretrained=False)
    dilations = [[c.pairs[0][0].dilation[0] for c in part.chains] for part in network.enhancements]
    assert dilations == [[1, 1, 1], [1, 1, 2], [1, 2, 3], [1, 3, 5]]
    snakes = [m for m in network.modules() if isinstance(m, SnakeConv2d)]
    assert [s.norm.num_groups for s in snakes] == [w // 4 for w in (256, 128, 64, 32) for _ in "xy"]
