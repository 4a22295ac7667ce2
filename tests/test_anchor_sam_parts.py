"""Anchor-SAM's parts against their formulas in plain torch and against torchvision's blocks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.swin_transformer import ShiftedWindowAttention
from torchvision.ops import deform_conv2d

from model.anchor_sam.anchor_mining import AnchorMining, BayesianFusion
from model.anchor_sam.context_fusion import ContextFusion, MaskedWindowAttention
from model.anchor_sam.decoder import Decoder


def scrambled(module: nn.Module) -> nn.Module:
    """The module with every parameter at random, so that none hides behind a zero or a one."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.eval()


def strip_by_torchvision(value: Tensor, offset: Tensor, axis: str) -> Tensor:
    """(B, C, H, W) along a strip with offsets (B, H, W, G, K)."""
    K, zero = offset.shape[4], torch.zeros_like(offset)
    yx = torch.stack((zero, offset) if axis == "w" else (offset, zero), -1)
    kernel, padding = ((1, K), (0, K // 2)) if axis == "w" else ((K, 1), (K // 2, 0))
    weight = torch.ones(value.shape[1], 1, *kernel)
    return deform_conv2d(value, yx.flatten(3).permute(0, 3, 1, 2), weight, padding=padding)


def test_bayesian_fusion_is_its_formula():
    fusion = scrambled(BayesianFusion(32))
    p, e = torch.randn(2, 2, 32, 5, 6).unbind(0)
    w = list(fusion.state_dict().values())

    def bottle(x: Tensor, at: int) -> Tensor:
        down, bias, depthwise, up, scale, shift = w[at : at + 6]
        k = depthwise.shape[-1]
        x = F.conv2d(F.conv2d(x, down, bias), depthwise, padding=k // 2, groups=4)
        return F.relu(F.group_norm(F.conv2d(x, up), 16, scale, shift))

    evidence = bottle(bottle(e, 6), 12)
    torch.testing.assert_close(fusion(p, e), p + bottle(bottle(p, 0) * evidence, 18))
    assert [t.shape[-1] for t in (w[2], w[8], w[14], w[20])] == [1, 3, 3, 1]


@pytest.mark.parametrize("taps_groups", [(7, 4), (5, 8)])
def test_anchor_mining_is_its_formula(taps_groups):
    taps, groups = taps_groups
    mining, x = scrambled(AnchorMining(32, taps, groups)), torch.randn(2, 32, 9, 7)

    def conv(module: nn.Conv2d, x: Tensor) -> Tensor:
        padding = tuple(side // 2 for side in module.kernel_size)
        return F.conv2d(x, module.weight, module.bias, padding=padding, groups=module.groups)

    def offsets(part: nn.Module, guidance: Tensor) -> Tensor:
        d = conv(part.depthwise, guidance)
        mean, variance = d.mean(1, keepdim=True), d.var(1, keepdim=True, correction=0)
        d = (d - mean) / (variance + 1e-6).sqrt()
        d = F.gelu(d * part.norm.weight.view(-1, 1, 1) + part.norm.bias.view(-1, 1, 1))
        raw = torch.einsum("oc,bchw->bhwo", part.head.weight, d) + part.head.bias
        return raw.view(2, 9, 7, groups, taps)

    y = F.gelu(conv(mining.input_projection, x))
    p = conv(mining.prior, y)
    value = torch.einsum("oc,bchw->bohw", mining.value_projection.weight, p)
    value = value + mining.value_projection.bias.view(-1, 1, 1)
    e = strip_by_torchvision(value, offsets(mining.horizontal_offsets, p), "w")
    z = mining.fusion(p, e)
    a = strip_by_torchvision(e, offsets(mining.vertical_offsets, z), "h")
    expected = x + conv(mining.output_projection, y * conv(mining.gate_projection, a))
    torch.testing.assert_close(mining(x), expected, rtol=1e-4, atol=1e-4)
    assert tuple(mining.horizontal_offsets.depthwise.kernel_size) == (1, taps)
    assert tuple(mining.vertical_offsets.depthwise.kernel_size) == (taps, 1)


def test_a_new_adapter_samples_the_regular_taps():
    torch.manual_seed(0)
    anchors = AnchorMining(32, 7, 4).anchors(torch.randn(1, 32, 5, 5))
    assert anchors.horizontal.count_nonzero() == 0
    assert anchors.vertical.count_nonzero() == 0


@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize("sides", [(8, 8), (16, 24), (8, 16)])
def test_window_attention_is_torchvision_s_where_nothing_is_padded(shift, sides):
    ours = scrambled(MaskedWindowAttention(16, [8, 8], [shift, shift], num_heads=4))
    theirs = ShiftedWindowAttention(16, [8, 8], [shift, shift], num_heads=4).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, *sides, 16)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize("sides", [(1, 1), (5, 3), (9, 20), (8, 11)])
def test_window_attention_sees_the_map_and_no_padding(shift, sides):
    """Pixel by pixel: attention over those pixels that share the shifted window."""
    attention = scrambled(MaskedWindowAttention(8, [8, 8], [shift, shift], num_heads=2))
    H, W = sides
    x = torch.randn(1, H, W, 8)
    steps = [shift if side > 8 else 0 for side in sides]
    place = [(h, w) for h in range(H) for w in range(W)]
    window = [((h - steps[0]) // 8, (w - steps[1]) // 8) for h, w in place]
    q, k, v = attention.qkv(x[0].flatten(0, 1)).view(-1, 3, 2, 4).unbind(1)
    table = attention.relative_position_bias_table.view(15, 15, 2)
    out = torch.zeros(H * W, 2, 4)
    for i, (h, w) in enumerate(place):
        others = [j for j in range(H * W) if window[j] == window[i]]
        bias = torch.stack([table[h - place[j][0] + 7, w - place[j][1] + 7] for j in others])
        scores = (q[i] * k[others]).sum(-1) / 2 + bias
        out[i] = (scores.softmax(0)[..., None] * v[others]).sum(0)
    expected = attention.proj(out.flatten(1)).view(1, H, W, 8)
    torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-5)


def test_context_fusion_weighs_branches_per_place_and_per_channel():
    fusion, x = scrambled(ContextFusion(32, 64)), torch.randn(2, 32, 9, 5)
    branches = [branch(x) for branch in fusion.branches]
    assert [branch.dilation for branch in fusion.branches] == [1, 3, 5, 7]
    stacked = torch.cat(branches, 1)
    maps = fusion.spatial_fusion(stacked)
    weights = fusion.channel_fusion(stacked)
    assert maps.shape == (2, 4, 9, 5)
    assert weights.shape == (2, 128)
    by_place = sum(maps[:, i : i + 1] * branch for i, branch in enumerate(branches))
    by_channel = sum(
        w[..., None, None] * b for w, b in zip(weights.chunk(4, 1), branches, strict=True)
    )
    torch.testing.assert_close(fusion(x), by_place + by_channel, rtol=1e-4, atol=1e-4)


def test_decoder_takes_the_coarsest_level_first():
    decoder = Decoder(context_channels=96, neck_channels=64, n_classes=2).eval()
    torch.manual_seed(0)
    levels = [torch.randn(1, 64, 2 * side, side) for side in (16, 8, 4, 2)]
    seen = []
    for block in decoder.blocks:
        block.register_forward_hook(lambda _m, args, out: seen.append((args[0], out)))
    logits = decoder(torch.randn(1, 96, 4, 2), levels)
    assert logits.shape == (1, 2, 128, 64)
    for (given, out), level, width in zip(seen, reversed(levels), (128, 64, 32, 16), strict=True):
        torch.testing.assert_close(given[:, -64:], level)
        assert out.shape == (1, width, *level.shape[2:])


def test_the_head_comes_before_the_last_upsampling_and_changes_nothing():
    decoder = scrambled(Decoder(context_channels=96, neck_channels=64, n_classes=3))
    x = torch.randn(2, 16, 5, 6)
    expected = decoder.head(decoder.last_upsample(x))
    torch.testing.assert_close(decoder._logits(x), expected, rtol=1e-4, atol=1e-4)
