"""Which map of a network meets which, as the papers' figures have it.

The encoders are replaced by random maps, and heavy parts that have tests of their own by one layer.
All is in double precision and compared closely: what comes from deep down is faint in the logits.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.baselines import (
    afdanet,
    ccnet,
    cgcnet,
    cmtfnet,
    deeplabv3plus,
    dlinknet,
    strip_unet,
    transroadnet,
    unet,
)
from tests.formulas import batch_norm, conv, random_map, relu, scrambled

RESNET34 = (64, 64, 128, 256, 512)
RESNET50 = (64, 256, 512, 1024, 2048)
STRIDES = (2, 4, 8, 16, 32)

pytestmark = pytest.mark.usefixtures("no_gradients")
upsampled = partial(F.interpolate, mode="nearest")
bilinear = partial(F.interpolate, mode="bilinear", align_corners=True)


class Maps(nn.Module):
    """In place of an encoder: random maps of its shapes, the same for every image."""

    pool = nn.MaxPool2d(3, stride=2, padding=1)

    def __init__(self, network: str, *, num_stages: int = 4, **_: object) -> None:
        super().__init__()
        self.channels = (RESNET34 if network == "resnet34" else RESNET50)[: num_stages + 1]

    def forward(self, image: Tensor) -> list[Tensor]:
        generator = torch.Generator().manual_seed(2)
        shapes = [
            (len(image), channels, *(side // stride for side in image.shape[2:]))
            for channels, stride in zip(self.channels, STRIDES, strict=False)
        ]
        return [
            torch.randn(*shape, generator=generator, dtype=image.dtype).abs() for shape in shapes
        ]


@pytest.fixture
def built(monkeypatch):
    """A function from a model's module, and layers in place of its parts, to the model, eval."""

    torch.manual_seed(0)

    def build(module, name: str, **parts: type[nn.Module] | partial) -> nn.Module:
        for part, layer in ({"ResNetEncoder": Maps} | parts).items():
            monkeypatch.setattr(module, part, layer)
        return getattr(module, name)(pretrained=False).double().eval()

    return build


def run(network: nn.Module) -> tuple[Tensor, list[Tensor]]:
    """The logits of an image, and the encoder's maps of it."""
    image = torch.zeros(1, 3, 64, 64, dtype=torch.float64)
    return network.forward_padded(image), network.encoder(image)


assert_same = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-12)


def test_dlinknet(built):
    network = built(dlinknet, "DLinkNet")
    logits, (_, e1, e2, e3, e4) = run(network)
    d4 = network.up4(network.centre(e4)) + e3
    d3 = network.up3(d4) + e2
    d2 = network.up2(d3) + e1
    assert_same(logits, network.head(network.up1(d2)))


def test_deeplab(built):
    network = built(deeplabv3plus, "DeepLabV3Plus")
    logits, (_, e1, _, _, e4) = run(network)
    context = bilinear(network.aspp(e4), (16, 16))
    low = relu(batch_norm(conv(e1, network.reduce_low[0], bias=False), network.reduce_low[1]))
    x = torch.cat([context, low], 1)
    x = relu(batch_norm(conv(x, network.decoder[0], padding=1, bias=False), network.decoder[1]))
    x = relu(batch_norm(conv(x, network.decoder[4], padding=1, bias=False), network.decoder[5]))
    assert_same(logits, bilinear(conv(x, network.decoder[8]), (64, 64)))
    dropped = [m.p for m in network.modules() if isinstance(m, nn.Dropout)]
    assert dropped == [0.5, 0.5, 0.1]


@pytest.mark.parametrize(("output_stride", "rates"), [(16, (6, 12, 18)), (8, (12, 24, 36))])
def test_deeplabs_pyramid(monkeypatch, output_stride, rates):
    class Narrow(Maps):
        def __init__(self, network: str, **_: object) -> None:
            super().__init__(network)
            self.channels = (8, 8, 8, 8, 8)

    monkeypatch.setattr(deeplabv3plus, "ResNetEncoder", Narrow)
    network = deeplabv3plus.DeepLabV3Plus(pretrained=False, output_stride=output_stride)
    pyramid = scrambled(network.aspp)

    def step(x: Tensor, layers: nn.Sequential, first: int = 0, **options: int) -> Tensor:
        layer, norm = layers[first], layers[first + 1]
        return relu(batch_norm(conv(x, layer, bias=False, **options), norm))

    x = random_map(1, 8, 38, 5)  # the farthest taps of the largest rate lie on it
    point, *dilated, pooled = pyramid.convs
    levels = [step(x, point)]
    for rate, level in zip(rates, dilated, strict=True):
        levels.append(step(x, level, padding=rate, dilation=rate))
    levels.append(step(x.mean((2, 3), keepdim=True), pooled, 1).expand_as(levels[0]))
    torch.testing.assert_close(pyramid(x), step(torch.cat(levels, 1), pyramid.project))


def test_afdanet(built):
    network = built(afdanet, "AFDANet")
    logits, (e0, e1, e2, e3, e4) = run(network)
    s1, s2, s3, s4 = network.fusions
    f1 = s1(e0, e1)
    f2 = s2(f1, e2)
    f3 = s3(f2, e3)
    f4 = s4(f3, e4) + e4
    g4, g3, g2, g1 = network.decoders
    d4 = g4(f4) + f3
    d3 = g3(d4) + f2
    d2 = g2(d3) + f1
    assert_same(logits, network.head(g1(d2)))


def test_c2net(built):
    light = partial(nn.Conv2d, kernel_size=1)
    network = built(ccnet, "CCNet", ContextPerception=lambda channels: light(channels, channels))
    exchanged: list[Tensor] = []

    def exchange(maps: list[Tensor]) -> list[Tensor]:
        exchanged[:] = [x.flip(2) for x in maps]
        return exchanged

    network.interaction.forward = exchange
    logits, (e0, e1, e2, e3, e4) = run(network)
    f1, f2, f3, f4 = exchanged
    d4 = network.perception(e4) + e4 + f4
    d3 = network.up4(d4) + e3 + f3
    d2 = network.up3(d3) + e2 + f2
    d1 = network.up2(d2) + e1 + f1
    d0 = network.up1(d1) + e0
    c5, c4, c3, c2 = network.collect
    total = d0 + c5(upsampled(e4, scale_factor=16)) + c4(upsampled(d3, scale_factor=8))
    total = total + c3(upsampled(d2, scale_factor=4)) + c2(upsampled(d1, scale_factor=2))
    assert_same(logits, network.head(network.up0(total)))


def test_cgcnet(built):
    network = built(cgcnet, "CGCNet")
    logits, (_, e1, e2, e3) = run(network)
    z = e3 + network.expand(network.context(network.reduce(e3)))
    d3 = network.up3(z) + e2
    d2 = network.up2(d3) + e1
    assert_same(logits, network.head(network.up1(d2)))


def test_cmtfnet(built):
    network = built(cmtfnet, "CMTFNet")
    logits, (_, e1, e2, e3, e4) = run(network)
    b4 = network.block4(network.reduce4(e4))
    b3 = network.block3(network.fuse3(b4, network.reduce3(e3)))
    b2 = network.block2(network.fuse2(b3, e2))
    reduce, norm = network.reduce2
    q = batch_norm(conv(b2, reduce, bias=False), norm)  # no activation
    p1 = network.fuse1(q, e1)
    at_full_size = F.interpolate(network.head(p1), (64, 64), mode="bilinear", align_corners=False)
    assert_same(logits, at_full_size)
    x = random_map(1, 128, 12, 12)
    for part, dilations in (
        (network.block4.attention[0], (1, 3, 5)),
        (network.block3.attention[0], (3, 5, 7)),
        (network.block2.attention[0], (5, 7, 9)),
        (network.head, (7, 9, 11)),
    ):
        for d, (depthwise, *_) in zip(dilations, part.multi_scale.branches, strict=True):
            groups = len(depthwise.weight)
            expected = conv(x[:, :groups], depthwise, padding=d, dilation=d, groups=groups)
            assert_same(depthwise(x[:, :groups]), expected)


def test_strip_unet(built):
    light = partial(nn.Conv2d, kernel_size=1)
    network = built(strip_unet, "StripUnet", MultiScaleFusion=lambda dim: light(dim, dim))
    logits, (e0, e1, e2, e3, e4) = run(network)
    a1, a2, a3, a4 = network.attentions
    t1, t2, t3 = network.downs
    s1 = a1(e1, F.max_pool2d(e0, 3, stride=2, padding=1))
    s2 = a2(e2, t1(s1))
    s3 = a3(e3, t2(s2))
    s4 = a4(e4, t3(s3))
    m = network.centre(e4 + s4)
    c = network.enhancements
    v4, v3, v2 = network.ups
    c4 = c[0](s4 + m)
    c3 = c[1](s3 + v4(c4))
    c2 = c[2](s2 + v3(c3))
    c1 = c[3](s1 + v2(c2))
    g4, g3, g2, g1 = network.decoders
    d3 = g4(m + c4) + c3
    d2 = g3(d3) + c2
    d1 = g2(d2) + c1
    assert_same(logits, network.head(g1(d1)))


def test_transroadnet(built):
    network = built(transroadnet, "TransRoadNet")
    assert network.semantic_share.item() == 0
    network.semantic_share.fill_(0.3)
    logits, (e0, e1, e2, e3, e4) = run(network)
    t = network.context(network.position(e3))
    z = relu(batch_norm(conv(0.3 * e4 + 0.7 * t, network.fuse[0]), network.fuse[1]))
    x2, x3, x4, x5 = (
        relu(conv(torch.cat([upsampled(t, scale_factor=n), e], 1), layer, padding=1))
        for layer, n, e in zip(network.supplements, (2, 4, 8, 16), (e3, e2, e1, e0), strict=True)
    )
    u4, u3, u2, u1 = network.up
    d1 = u1(u2(u3(u4(z) + x2) + x3) + x4) + x5
    assert_same(logits, network.head(d1))


def test_transroadnets_upsampling():
    part = transroadnet.UpBlock(64, 3)
    bound = (6 / (64 * 9)) ** 0.5  # He's uniform rule for the layer's input
    assert 0.95 * bound < part[0].weight.abs().max() <= bound
    assert 0.01 < part[1].weight.std() < 0.03 and abs(part[1].weight.mean() - 1) < 0.01
    part = scrambled(part)
    x = random_map(2, 64, 4, 5)
    y = relu(batch_norm(conv(x, part[0], padding=1, bias=False), part[1]))
    y = conv(bilinear(y, (8, 10)), part[4], bias=False)
    torch.testing.assert_close(part(x), relu(batch_norm(y, part[5])))


@pytest.mark.parametrize("by_interpolation", [True, False])
def test_unet(monkeypatch, by_interpolation):
    monkeypatch.setattr(unet, "CHANNELS", (4, 8, 16, 32, 64))
    network = scrambled(unet.UNet(bilinear=by_interpolation))

    def double(x: Tensor, layers: nn.Sequential) -> Tensor:
        for i in (0, 3):
            x = relu(batch_norm(conv(x, layers[i], padding=1, bias=False), layers[i + 1]))
        return x

    image = random_map(1, 3, 49, 32)  # an odd side somewhere on the way down
    maps = [double(image, network.entry)]
    for block in network.down:
        maps.append(double(F.max_pool2d(maps[-1], 2), block[1]))
    x = maps.pop()
    for block in network.up:
        skip = maps.pop()
        if by_interpolation:
            x = bilinear(x, scale_factor=2)
        else:
            x = F.conv_transpose2d(x, block.upsample.weight, block.upsample.bias, 2)
        down, right = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
        x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
        x = double(torch.cat([skip, x], 1), block.convs)
    torch.testing.assert_close(network(image), conv(x, network.head).float())
