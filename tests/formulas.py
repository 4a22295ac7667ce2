"""Layers as plain arithmetic, to write a paper's formulas with, and random numbers to try them on.

A layer gives its weights alone: strides, paddings, dilations, groups, eps and whether there is a
bias are the formula's to say.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def scrambled(module: nn.Module, seed: int = 0) -> nn.Module:
    """`module` in double precision and eval mode, with random parameters and statistics: nothing
    that starts at 0 or 1 is hidden by it."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        tensor.normal_(0, 0.4, generator=generator)
        if name.endswith("running_var"):
            tensor.square_().add_(0.05)
    return module.double().eval()


def random_map(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def conv(x: Tensor, layer: nn.Conv2d, *, bias: bool = True, **options: object) -> Tensor:
    """F.conv2d with the layer's weights and the formula's options."""
    assert (layer.bias is not None) is bias
    return F.conv2d(x, layer.weight, layer.bias, **options)


def doubled(x: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """The transposed 3x3 convolution of stride 2 that several decoders have."""
    return F.conv_transpose2d(x, layer.weight, layer.bias, 2, padding=1, output_padding=1)


def batch_norm(x: Tensor, layer: nn.BatchNorm2d, eps: float = 1e-5) -> Tensor:
    """In eval mode, of (B, C, ...)."""
    mean, variance = (_along(s, x) for s in (layer.running_mean, layer.running_var))
    return _affine((x - mean) / (variance + eps).sqrt(), layer)


def group_norm(x: Tensor, layer: nn.GroupNorm, groups: int, eps: float = 1e-5) -> Tensor:
    """Of (B, C, ...)."""
    parts = x.reshape(len(x), groups, -1)
    centred = parts - parts.mean(2, keepdim=True)
    parts = centred / (centred.square().mean(2, keepdim=True) + eps).sqrt()
    return _affine(parts.reshape(x.shape), layer)


def pixel_norm(x: Tensor, layer: nn.LayerNorm, eps: float) -> Tensor:
    """Layer norm over the channels of every pixel of (B, C, H, W)."""
    centred = x - x.mean(1, keepdim=True)
    return _affine(centred / (centred.square().mean(1, keepdim=True) + eps).sqrt(), layer)


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def relu(x: Tensor) -> Tensor:
    return x.clamp(min=0)


def relu6(x: Tensor) -> Tensor:
    return x.clamp(0, 6)


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


def _affine(x: Tensor, layer: nn.Module) -> Tensor:
    return x * _along(layer.weight, x) + _along(layer.bias, x)


def _along(of_channels: Tensor, x: Tensor) -> Tensor:
    return of_channels.view(1, -1, *[1] * (x.ndim - 2))
