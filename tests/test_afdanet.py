"""The parts of AFDANet against their formulas, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.baselines.afdanet import (
    ChannelSelfAttention,
    DirectionalGate,
    SplitMLP,
    StageFusion,
    StripBlock,
    StripDecoder,
    ThreeWayDownsample,
)
from tests.formulas import (
    batch_norm,
    conv,
    doubled,
    gelu,
    group_norm,
    random_map,
    relu,
    scrambled,
    sigmoid,
)

pytestmark = pytest.mark.usefixtures("no_gradients")


def phases(x: Tensor) -> list[Tensor]:
    return [x[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]


def downsampled(part: ThreeWayDownsample, x: Tensor) -> Tensor:
    wide = conv(x, part.widen, padding=1, groups=x.shape[1])
    dim = wide.shape[1]
    # The order of the four phases is a choice: here each channel's stand together.
    a = conv(torch.stack(phases(x), 2).flatten(1, 2), part.phases[1])
    b = gelu(conv(wide, part.strided[0], stride=2, padding=3, groups=dim))
    c = torch.stack(phases(wide)).amax(0)
    norms = (part.phases[2], part.strided[2], part.pooled[1])
    ways = [batch_norm(way, norm) for way, norm in zip((a, b, c), norms, strict=True)]
    return conv(torch.cat(ways, 1), part.fuse)


def directional(part: DirectionalGate, x: Tensor) -> Tensor:
    """One channel and one image at a time."""
    share = x.shape[1] // 4

    def gate(profile: Tensor, norm: torch.nn.GroupNorm) -> Tensor:
        scores = torch.empty_like(profile)
        for channel in range(x.shape[1]):
            group, place = divmod(channel, share)
            length, layer = (3, 5, 7, 9)[group], part.profile.convs[group]
            for b, line in enumerate(profile[:, channel]):
                padded = np.pad(line.numpy(), length // 2)
                taps = np.correlate(padded, layer.weight[place, 0].numpy(), "valid")
                scores[b, channel] = torch.from_numpy(taps) + layer.bias[place]
        return sigmoid(group_norm(scores, norm, 4))

    rows = gate(x.mean(3), part.norm_rows)
    columns = gate(x.mean(2), part.norm_columns)
    return torch.einsum("bchw,bch,bcw->bchw", x, rows, columns)


def channel_attention(part: ChannelSelfAttention, x: Tensor) -> Tensor:
    """One image and one of the 8 heads at a time, on a grid of cells of at most 8 x 8 pixels."""
    B, C, H, W = x.shape
    h, w, d = min(8, H), min(8, W), C // 8
    cells = [
        x[..., i : i + h, j : j + w].mean((2, 3))
        for i in range(0, H - h + 1, h)
        for j in range(0, W - w + 1, w)
    ]
    y = group_norm(torch.stack(cells, 2), part.norm, 1)
    out = torch.empty_like(x)
    for b in range(B):
        for head in range(8):
            own = slice(head * d, head * d + d)
            q, k, v = (y[b, own] * layer.weight[own, 0, 0] for layer in (part.q, part.k, part.v))
            weights = (q @ k.T / math.sqrt(d)).exp()
            weights = weights / weights.sum(1, keepdim=True)
            gate = sigmoid((weights @ v).mean(1))
            out[b, own] = gate[:, None, None] * x[b, own]
    return out


def mlp(part: SplitMLP, x: Tensor) -> Tensor:
    z = batch_norm(gelu(conv(x, part.expand[0], bias=False)), part.expand[2])
    share = z.shape[1] // 4
    mixed = [
        conv(z[:, i * share : (i + 1) * share], layer, padding=k // 2, groups=share)
        for i, (k, layer) in enumerate(zip((1, 3, 5, 7), part.mix.convs, strict=True))
    ]
    z = batch_norm(gelu(z + torch.cat(mixed, 1)), part.project[1])
    return batch_norm(conv(z, part.project[2], bias=False), part.project[3])


def strips(part: StripBlock, x: Tensor, k: int) -> Tensor:
    def joined(first: Tensor, second: Tensor, attention: torch.nn.Module) -> Tensor:
        y = relu(torch.cat([first, second], 1))
        taps = attention.conv.weight[0, 0].numpy()
        assert attention.conv.bias is None
        for image in y:  # channel attention: three neighbours along the channels
            means = np.pad(image.mean((1, 2)).numpy(), 1)
            scores = torch.from_numpy(np.correlate(means, taps, "valid"))
            image *= sigmoid(scores)[:, None, None]
        return y + x

    x = relu(batch_norm(conv(x, part.reduce[0]), part.reduce[1]))
    horizontal, vertical, anti, main = (strip[0] for strip in part.strips)
    straight = (
        conv(x, horizontal, padding=(0, k // 2)),
        conv(x, vertical, padding=(k // 2, 0)),
        F.conv2d(x, torch.diag_embed(anti.weight[..., 0]).flip(3), anti.bias, padding=k // 2),
        F.conv2d(x, torch.diag_embed(main.weight[..., 0]), main.bias, padding=k // 2),
    )
    a, b, c, d = (batch_norm(y, s[1]) for y, s in zip(straight, part.strips, strict=True))
    y = torch.cat([joined(a, b, part.gate_straight), joined(c, d, part.gate_diagonal)], 1)
    y = relu(batch_norm(doubled(y, part.up[0]), part.up[1]))
    return relu(batch_norm(conv(y, part.up[3]), part.up[4]))


def test_downsampling_goes_three_ways():
    part = scrambled(ThreeWayDownsample(3, 6))
    x = random_map(2, 3, 8, 6)
    torch.testing.assert_close(part(x), downsampled(part, x))


@pytest.mark.parametrize("size", [(5, 11), (2, 1)])
def test_gates_of_rows_and_columns(size):
    part = scrambled(DirectionalGate(8))
    x = random_map(2, 8, *size)
    torch.testing.assert_close(part(x), directional(part, x))


@pytest.mark.parametrize("size", [(17, 9), (3, 20), (1, 1)])
def test_channels_attend_to_channels(size):
    part = scrambled(ChannelSelfAttention(32))
    x = random_map(2, 32, *size)
    torch.testing.assert_close(part(x), channel_attention(part, x))


def test_mlp_mixes_four_sizes():
    part = scrambled(SplitMLP(4))
    x = random_map(2, 4, 6, 7)
    torch.testing.assert_close(part(x), mlp(part, x))


def test_fusion_of_two_stages():
    assert torch.equal(StageFusion(8, 16).balance, torch.ones(2))
    part = scrambled(StageFusion(8, 16))
    before, stage = random_map(2, 8, 18, 10), random_map(2, 16, 9, 5, seed=2)
    down, norm, _ = part.downsample
    w1, w2 = part.balance.exp() / part.balance.exp().sum()
    x = w1 * gelu(group_norm(downsampled(down, before), norm, 1)) + w2 * stage
    y = directional(part.directional, x) + channel_attention(part.channel, x) + x
    expected = mlp(part.mlp[1], group_norm(y, part.mlp[0], 1)) + y
    torch.testing.assert_close(part(before, stage), expected)


def test_strips_of_three_lengths_in_four_directions():
    part = scrambled(StripDecoder(16, 6))
    x = random_map(2, 16, 5, 8)
    blocks = [strips(block, x, k) for block, k in zip(part.blocks, (3, 5, 7), strict=True)]
    fused = conv(torch.cat(blocks, 1), part.fuse[0], bias=False)
    expected = relu(batch_norm(fused, part.fuse[1]))
    assert expected.shape == (2, 6, 10, 16)
    torch.testing.assert_close(part(x), expected)
