"""Tiled prediction against the model called on the whole image."""

from __future__ import annotations

import copy
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model.base import RoadModel, normalise
from tests.tiny_net import TinyNet
from utils.predict import NonFinitePrediction, eval_mode, predict


@pytest.fixture(scope="module")
def network() -> TinyNet:
    torch.manual_seed(0)
    network = TinyNet()
    network(torch.randn(2, 3, 32, 32))  # running statistics other than 0 and 1
    return network.eval()


def random_image(H: int, W: int) -> Tensor:
    return torch.randint(0, 256, (3, H, W), dtype=torch.uint8)


def on_cpu(model: RoadModel, image: Tensor, **settings: object) -> np.ndarray:
    return predict(model, image, **{"batch_size": 3, "overlap": 0.25, "device": "cpu"} | settings)


def untiled(model: RoadModel, image: Tensor) -> np.ndarray:
    with torch.no_grad():
        return model(normalise(image[None], model.normalisation)).sigmoid()[0, 0].numpy()


class PointwiseNet(RoadModel):
    """Looks at each pixel alone: tiles must not show at all."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 1, 1)
        self.sizes: list[tuple[int, ...]] = []

    def forward_padded(self, image: Tensor) -> Tensor:
        self.sizes.append(tuple(image.shape))
        return self.mix(image)


@pytest.mark.parametrize(("H", "W"), [(64, 64), (64, 50), (13, 64), (1, 1)])
def test_an_image_in_one_tile_equals_the_untiled_one_exactly(
    network: TinyNet, H: int, W: int
) -> None:
    image = random_image(H, W)
    probability = on_cpu(network, image, tile=64)
    assert probability.dtype == np.float32 and probability.shape == (H, W)
    np.testing.assert_array_equal(probability, untiled(network, image))


@given(
    H=st.integers(1, 60),
    W=st.integers(1, 60),
    tile=st.sampled_from([8, 16, 32]),
    overlap=st.floats(0, 0.75),
    batch_size=st.integers(1, 5),
)
@settings(max_examples=40, deadline=None)
def test_a_pointwise_model_sees_no_tiles(
    H: int, W: int, tile: int, overlap: float, batch_size: int
) -> None:
    torch.manual_seed(1)
    model, image = PointwiseNet(), random_image(H, W)
    probability = on_cpu(model, image, tile=tile, overlap=overlap, batch_size=batch_size)
    np.testing.assert_allclose(probability, untiled(model, image), atol=1e-6)
    assert probability.min() >= 0 and probability.max() <= 1


def test_tiles_are_batched() -> None:
    model = PointwiseNet()
    on_cpu(model, random_image(40, 100), tile=32, overlap=0.0, batch_size=5)
    assert model.sizes == [(5, 3, 32, 32), (3, 3, 32, 32)]


def test_tiles_that_see_less_than_the_image_agree_inside(network: TinyNet) -> None:
    """On a grid aligned with the stride, only what lies near a tile's border can differ."""
    image = random_image(64, 64)
    whole, tiled = untiled(network, image), on_cpu(network, image, tile=32, overlap=0.0)
    reach = 4 + 4 + 4  # the strided convolution, the 3 x 3 one on its grid, the interpolation
    interior = np.ones((64, 64), bool)
    interior[32 - reach : 32 + reach] = interior[:, 32 - reach : 32 + reach] = False
    np.testing.assert_allclose(tiled[interior], whole[interior], atol=1e-6)
    assert not np.allclose(tiled, whole, atol=1e-6)


def test_views_are_averaged_tile_by_tile(network: TinyNet) -> None:
    image = random_image(40, 56)
    turned = untiled(network, torch.rot90(image, -1, (-2, -1)))
    expected = (untiled(network, image) + np.rot90(turned)) / 2
    views = on_cpu(network, image, tile=64, ops=["identity", "rot90"])
    np.testing.assert_allclose(views, expected, atol=1e-6)


def test_modes_are_restored_also_after_an_error() -> None:
    model = TinyNet()
    model.train()
    model.norm.eval()  # as a frozen part
    before = [module.training for module in model.modules()]
    statistics = model.norm.running_mean.clone()
    on_cpu(model, random_image(20, 20), tile=32)
    assert [module.training for module in model.modules()] == before
    assert torch.equal(model.norm.running_mean, statistics)
    with pytest.raises(RuntimeError, match="stop"), eval_mode(model):
        assert not any(module.training for module in model.modules())
        raise RuntimeError("stop")
    assert [module.training for module in model.modules()] == before


def test_predict_uses_eval_mode(network: TinyNet) -> None:
    image = random_image(24, 24)
    expected = untiled(network, image)
    training = copy.deepcopy(network).train()
    np.testing.assert_array_equal(on_cpu(training, image, tile=32), expected)


def test_bf16_is_close_and_other(network: TinyNet) -> None:
    image = random_image(40, 40)
    exact = on_cpu(network, image, tile=64)
    rough = on_cpu(network, image, tile=64, amp_dtype=torch.bfloat16)
    assert rough.dtype == np.float32
    np.testing.assert_allclose(rough, exact, atol=0.03)
    assert not np.array_equal(rough, exact)


def test_other_images_are_refused(network: TinyNet) -> None:
    with pytest.raises(ValueError, match="uint8"):
        on_cpu(network, torch.rand(3, 8, 8), tile=32)
    with pytest.raises(ValueError, match="uint8"):
        on_cpu(network, random_image(8, 8)[None], tile=32)


class BrokenNet(RoadModel):
    stride: ClassVar[int] = 1

    def forward_padded(self, image: Tensor) -> Tensor:
        return image[:, :1] * float("nan")


def test_an_answer_that_is_no_number_is_an_error() -> None:
    with pytest.raises(NonFinitePrediction, match="not a number"):
        on_cpu(BrokenNet(), random_image(8, 8), tile=32)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(network: TinyNet) -> None:
    image = random_image(100, 70)
    cpu = on_cpu(network, image, tile=32)
    there = copy.deepcopy(network).cuda()
    cuda = predict(there, image, tile=32, overlap=0.25, batch_size=4, device="cuda")
    np.testing.assert_allclose(cuda, cpu, atol=5e-3)  # TF32 convolutions
