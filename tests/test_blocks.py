"""Parts of the baselines against slow, independent versions of what their papers say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from model.baselines.ccnet import ContextPerception, ScaleInteraction, _to_map, _to_table
from model.baselines.cgcnet import CompactGlobalContext
from model.baselines.cmtfnet import HEAD_DIM, MultiScaleAttention
from model.baselines.deeplabv3plus import DeepLabV3Plus
from model.baselines.transroadnet import PositionAttention
from model.blocks.linknet import DilatedCascade
from model.blocks.resnet import ResNetEncoder
from model.blocks.swin import SwinStage, WindowAttention


def window_groups(side: int, window: int, shift: int) -> list[list[int]]:
    """Which rows of a padded map attend together, in the order of their places in the window.

    A roll by `shift` puts the first rows after the last; the last window then holds rows from both
    ends, which stay apart.
    """
    rolled = [(i + shift) % side for i in range(side)]
    return [rolled[i : i + window] for i in range(0, side, window)]


def attention_pixel_by_pixel(layer: WindowAttention, x: np.ndarray) -> np.ndarray:
    """Plain loops over pixels, heads and partners of one (H, W, C) map."""
    H, W, C = x.shape
    w, h, d = layer.window, layer.heads, layer.head_dim
    qkv_weight = layer.qkv.weight.detach().double().numpy()
    table = layer.table.detach().double().numpy()
    out_weight = layer.project.weight.detach().double().numpy()
    out_bias = layer.project.bias.detach().double().numpy()
    padded_H, padded_W = -(-H // w) * w, -(-W // w) * w
    shift_y = layer.shift if padded_H > w else 0
    shift_x = layer.shift if padded_W > w else 0
    qkv = (x @ qkv_weight.T).reshape(H, W, 3, h, d)
    out = np.zeros((H, W, C))
    for rows in window_groups(padded_H, w, shift_y):
        for columns in window_groups(padded_W, w, shift_x):
            places = [(i, j, r, c) for i, r in enumerate(rows) for j, c in enumerate(columns)]
            real = [p for p in places if p[2] < H and p[3] < W]
            for i, j, r, c in real:
                partners = [
                    (k, m, s, t)
                    for k, m, s, t in real
                    if (s < shift_y) == (r < shift_y) and (t < shift_x) == (c < shift_x)
                ]
                mixed = np.zeros((h, d))
                for head in range(h):
                    q = qkv[r, c, 0, head]
                    scores = []
                    for k, m, s, t in partners:
                        if layer.relative:
                            bias = table[k - i + w - 1, m - j + w - 1]
                        else:
                            bias = table[i * w + j, k * w + m]
                        scores.append(q @ qkv[s, t, 1, head] / math.sqrt(d) + bias)
                    weights = np.exp(np.array(scores) - max(scores))
                    weights /= weights.sum()
                    for weight, (_, _, s, t) in zip(weights, partners, strict=True):
                        mixed[head] += weight * qkv[s, t, 2, head]
                out[r, c] = out_weight @ mixed.ravel() + out_bias
    return out


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("size", [(8, 8), (4, 8), (7, 5), (3, 2), (9, 4)])
def test_window_attention(size, relative):
    torch.manual_seed(0)
    for shift in (0, 2):
        layer = WindowAttention(6, heads=2, head_dim=5, window=4, shift=shift, relative=relative)
        x = torch.randn(2, *size, 6)
        got = layer(x).detach().numpy()
        for image, result in zip(x.double().numpy(), got, strict=True):
            np.testing.assert_allclose(
                result, attention_pixel_by_pixel(layer, image), rtol=1e-4, atol=1e-5
            )


def test_swin_stage_merges_patches_channel_first():
    stage = SwinStage(3, 4, merge=2, heads=1, head_dim=4, window=2)
    x = torch.randn(2, 3, 6, 8)
    seen = []
    stage.embed.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    assert stage(x).shape == (2, 4, 3, 4)
    patches = torch.nn.functional.unfold(x, 2, stride=2)  # (B, C*2*2, places)
    assert torch.equal(seen[0].flatten(1, 2), patches.transpose(1, 2))


def test_dilated_cascade_sees_31_pixels_and_starts_unbiased():
    cascade = DilatedCascade(1)
    for conv in cascade.convs:
        assert not conv.bias.any()
        torch.nn.init.ones_(conv.weight)
    impulse = torch.zeros(1, 1, 41, 41)
    impulse[0, 0, 20, 20] = 1
    reach = [path.count_nonzero(dim=-1).max().item() for path in cascade.paths(impulse)]
    assert reach == [1, 3, 7, 15, 31]
    torch.testing.assert_close(cascade(impulse), torch.stack(cascade.paths(impulse)).sum(0))


@pytest.mark.parametrize("network", ["resnet18", "resnet50"])
def test_encoder_is_torchvisions(network):
    torch.manual_seed(0)
    encoder = ResNetEncoder(network).eval()
    torch.manual_seed(0)
    resnet = torchvision.models.get_model(network, weights=None).eval()
    nodes = {"relu": "0", "layer1": "1", "layer2": "2", "layer3": "3", "layer4": "4"}
    getter = torchvision.models._utils.IntermediateLayerGetter(resnet, nodes)
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected, features = getter(image), encoder(image)
    assert [f.shape[1] for f in features] == encoder.channels
    for level, feature in enumerate(features):
        torch.testing.assert_close(feature, expected[str(level)])


@pytest.mark.parametrize("output_stride", [8, 16])
def test_deeplab_has_the_stride_it_says(output_stride):
    with torch.device("meta"):
        network = DeepLabV3Plus(pretrained=False, output_stride=output_stride)
        features = network.encoder(torch.empty(1, 3, 256, 256))
    assert features[1].shape[-1] == 64
    assert features[-1].shape[-1] == 256 // output_stride


def test_deeplab_draws_the_weights_of_its_own_layers_alone(monkeypatch):
    """torchvision draws those of the encoder, and what is loaded there afterwards stays."""
    drawn, draw = [], nn.init.kaiming_normal_
    monkeypatch.setattr(
        nn.init, "kaiming_normal_", lambda t, **kw: drawn.append(t) or draw(t, **kw)
    )
    with torch.device("meta"):
        network = DeepLabV3Plus(pretrained=False)
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [sum(t is conv.weight for t in drawn) for conv in convs] == [1] * len(convs)


def test_deeplab_refuses_to_train_on_one_image():
    network = DeepLabV3Plus(pretrained=False)
    with pytest.raises(ValueError, match="two images"):
        network(torch.zeros(1, 3, 32, 32))


def test_position_attention_weighs_rows_and_columns():
    attention = PositionAttention()
    x = torch.rand(2, 5, 4, 6)
    weight = attention.conv.weight.detach().flatten()

    def gate(profile):  # (B, C, length)
        score = weight[0] * profile.mean(1) + weight[1] * profile.max(1).values
        return torch.sigmoid(score + attention.conv.bias.detach())

    rows, columns = gate(x.mean(3)), gate(x.mean(2))
    expected = torch.einsum("bchw,bh,bw->bchw", x, rows, columns)
    torch.testing.assert_close(attention(x).detach(), expected)


def test_context_perception_weighs_places_and_channels_by_sigmoids():
    torch.manual_seed(0)
    part = ContextPerception(16).eval()
    nn.init.normal_(part.dependence.bias, 2.0)  # far from where a sigmoid is a line
    x = torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        near = [
            torch.relu(F.conv2d(x, conv.weight, conv.bias, padding=d, dilation=d))
            for conv, d in zip(part.local, (1, 3, 5, 7), strict=True)
        ]
        branches = [
            join(a + torch.relu(windows(a)))
            for a, windows, join in zip(near, part.windows, part.join, strict=True)
        ]
        scores = part.dependence(torch.cat([g.mean((2, 3)) for g in branches], 1).unsqueeze(1))
        semantic = torch.einsum(
            "kbchw,bkc->bchw", torch.stack(branches), scores.sigmoid().view(2, 4, 16)
        )
        spatial = sum(
            g * conv(g).sigmoid() for g, conv in zip(branches, part.awareness, strict=True)
        )
        torch.testing.assert_close(part(x), part.project(spatial + semantic))


def test_pixels_attend_to_a_grid_of_keys_head_by_head():
    torch.manual_seed(0)
    layer = MultiScaleAttention(2 * HEAD_DIM, (1, 3, 5)).eval()
    x = torch.randn(2, 64, 6, 10)
    with torch.no_grad():
        grid = nn.AdaptiveAvgPool2d(16)(layer.multi_scale(x))
        k, v = layer.keys_values(grid).view(2, 2, 2, 32, 256).unbind(1)  # image, head, channel
        scores = torch.einsum("bhcp,bhcg->bhpg", x.view(2, 2, 32, 60), k) / math.sqrt(32)
        attended = torch.einsum("bhpg,bhcg->bhcp", scores.softmax(-1), v).reshape(x.shape)
        torch.testing.assert_close(layer(x), attended + layer.channel_gate(x))


def test_compact_context_follows_its_formulas():
    torch.manual_seed(0)
    layer = CompactGlobalContext(32, map_size=3)
    x = torch.randn(2, 32, 3, 3)
    value = layer.value(x) + layer.position
    softmaps = torch.softmax(layer.token_maps(x).reshape(2, 4, 9), dim=2)
    gate = layer.gate(x.mean((2, 3)))
    tokens = torch.einsum("btn,bcn,bc->btc", softmaps, x.reshape(2, 32, 9), gate)
    tokens = tokens + layer.token_position
    query, key = layer.query_key(tokens).split(16, dim=-1)
    attention = torch.softmax(torch.einsum("bti,btj->bij", query, key), dim=1)
    mixed = torch.einsum("bin,bij->bjn", value.reshape(2, 16, 9), attention)
    expected = layer.project(mixed.reshape(2, 16, 3, 3)) + x
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("size", [(3, 4), (5, 2)])
def test_compact_context_stretches_its_positions(size):
    """Bilinear between the centres of pixels, and as the border beyond it."""
    layer = CompactGlobalContext(32, map_size=4)

    def matrix(side: int) -> torch.Tensor:
        places = ((torch.arange(side) + 0.5) * 4 / side - 0.5).clamp(0, 3)
        return (1 - (places[:, None] - torch.arange(4)).abs()).clamp(min=0)

    stretched = matrix(size[0]) @ layer.position @ matrix(size[1]).T
    torch.testing.assert_close(layer._position(*size), stretched)
    assert layer._position(4, 4) is layer.position


def test_grid_table_has_a_row_a_place():
    x = torch.arange(2 * 3 * 16 * 32.0).view(2, 3, 16, 32)
    table = _to_table(x)
    assert table.shape == (2, 3, 64, 8)
    for place in (0, 9, 63):
        row, column = divmod(place, 8)
        patch = x[:, :, 2 * row : 2 * row + 2, 4 * column : 4 * column + 4]
        assert torch.equal(table[:, :, place], patch.flatten(2))
    assert torch.equal(_to_map(table, (16, 32)), x)


def test_scale_interaction_keeps_every_scale_in_its_place():
    """With the convolutions of the table silent, each map only passes its own two convolutions."""
    torch.manual_seed(0)
    stages = (2, 3)
    layer = ScaleInteraction(stages, width=4)
    for conv in (layer.along_scales, layer.along_places, layer.around):
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    maps = [torch.randn(1, 2, 16, 16), torch.randn(1, 3, 8, 8)]
    results = layer(maps)
    for x, enter, leave, result in zip(maps, layer.enter, layer.leave, results, strict=True):
        entered = enter(x)
        expected = leave(layer.fuse(torch.cat([entered] * 3, 1)))
        torch.testing.assert_close(result, expected)


def test_scale_interaction_convolves_the_table_in_three_ways():
    """The table's neighbours by plain sums, for two maps of 4 x 8 and 2 x 4 pixels a patch."""
    torch.manual_seed(0)
    layer = ScaleInteraction((2, 3), width=2)
    maps = [torch.randn(1, 2, 32, 64), torch.randn(1, 3, 16, 32)]
    entered = [enter(x) for enter, x in zip(layer.enter, maps, strict=True)]
    table = torch.cat([_to_table(x)[0] for x in entered], 2)  # (2, 64, 32 + 8)
    neighbours = {
        layer.along_scales: [(0, 7 * k) for k in range(-64, 65)],
        layer.along_places: [(2 * k, 0) for k in range(-2, 3)],
        layer.around: [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)],
    }
    # zeros around the table, wide enough for the farthest offset
    around = torch.from_numpy(np.pad(table.detach(), ((0, 0), (4, 4), (448, 448))))
    ways = []
    for conv, offsets in neighbours.items():
        way = table + conv.bias[:, None, None]
        for weight, (down, right) in zip(conv.weight.flatten(2).unbind(2), offsets, strict=True):
            near = around[:, 4 + down : 68 + down, 448 + right : 488 + right]
            way = way + torch.einsum("oi,irc->orc", weight, near)
        ways.append(way)
    fused = torch.einsum("oi,irc->orc", layer.fuse.weight[..., 0, 0], torch.cat(ways))
    fused = (fused + layer.fuse.bias[:, None, None])[None]
    for x, leave, part, result in zip(
        entered, layer.leave, fused.split((32, 8), 3), layer(maps), strict=True
    ):
        torch.testing.assert_close(result, leave(_to_map(part, x.shape[2:])))
