"""Weighted sums of bilinear samples: what the deformable operators have in common.

A custom operator of PyTorch, so that compilers and counters see one call. On a CPU it is compiled
by Numba (`sampling_cpu`), elsewhere it runs PyTorch's own sampler tap by tap.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from model.ops import sampling_cpu

_BILINEAR, _ZEROS = 0, 0  # the codes of PyTorch's grid sampler


def sum_of_samples(value: Tensor, y: Tensor, x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sum over taps of weight * value(y, x): bilinear, zero outside the map.

    Within one step beyond the border the inside neighbours still give their share.

    Args:
        value: (B, H, W, C); any memory layout.
        y, x: (B, H, W, G, K) in pixels; group g reads channels g * C / G and following.
        weight: (B, H, W, G, K); None for ones.

    Returns:
        (B, H, W, C) in the type of `value`, accumulated in float32 at least. Only the operands are
        kept for the backward pass, which samples again: no tensor of K times the map exists.
    """
    B, H, W, C = value.shape
    G, K = y.shape[-2:]
    for tensor in (y, x) if weight is None else (y, x, weight):
        assert tensor.shape == (B, H, W, G, K), f"{tuple(tensor.shape)} for {tuple(value.shape)}"
    assert C % G == 0, f"{C} channels do not divide into {G} groups"
    precise = torch.promote_types(value.dtype, torch.float32)
    operands = [t.to(precise).contiguous() for t in (value, y, x)]
    factor = None if weight is None else weight.to(precise).contiguous()
    return _sum_of_samples(*operands, factor).to(value.dtype)


@torch.library.custom_op("anchor_sam::sum_of_samples", mutates_args=())
def _sum_of_samples(value: Tensor, y: Tensor, x: Tensor, weight: Tensor | None) -> Tensor:
    if value.device.type == "cpu":
        return torch.from_numpy(sampling_cpu.forward(*_numpy(value, y, x, weight)))
    return _native_forward(value, y, x, weight)


@torch.library.custom_op("anchor_sam::sum_of_samples_backward", mutates_args=())
def _sum_of_samples_backward(
    grad: Tensor, value: Tensor, y: Tensor, x: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of value, y, x and weight; the last is empty without weights."""
    if value.device.type == "cpu":
        results = sampling_cpu.backward(*_numpy(grad, value, y, x, weight))
        return tuple(value.new_empty(0) if r is None else torch.from_numpy(r) for r in results)
    return _native_backward(grad, value, y, x, weight)


def _numpy(*tensors: Tensor | None) -> list[np.ndarray | None]:
    return [None if t is None else t.detach().numpy() for t in tensors]


@_sum_of_samples.register_fake
def _(value: Tensor, y: Tensor, x: Tensor, weight: Tensor | None) -> Tensor:
    return torch.empty_like(value)


@_sum_of_samples_backward.register_fake
def _(
    grad: Tensor, value: Tensor, y: Tensor, x: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    of_weight = value.new_empty(0) if weight is None else torch.empty_like(weight)
    return torch.empty_like(value), torch.empty_like(y), torch.empty_like(x), of_weight


def _keep_operands(ctx: FunctionCtx, inputs: tuple[Tensor | None, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
    *gradients, of_weight = _sum_of_samples_backward(grad.contiguous(), *ctx.saved_tensors)
    return *gradients, of_weight if ctx.saved_tensors[-1] is not None else None


_sum_of_samples.register_autograd(_backward, setup_context=_keep_operands)


def _native_forward(value: Tensor, y: Tensor, x: Tensor, weight: Tensor | None) -> Tensor:
    """By PyTorch's own sampler, one tap at a time."""
    B = len(value)
    maps, y, x, weight = _maps_and_taps(value, y, x, weight)
    out = torch.zeros_like(maps)
    for tap in range(len(y)):
        sample = _sample(maps, _grid(y[tap], x[tap]))
        out += sample if weight is None else sample * weight[tap][:, None]
    return _channels_last(out, B)


def _native_backward(
    grad: Tensor, value: Tensor, y: Tensor, x: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    B, H, W, _ = value.shape
    G = y.shape[3]
    grad_maps, *_ = _maps_and_taps(grad, y)
    maps, y, x, weight = _maps_and_taps(value, y, x, weight)
    of_maps, of_y, of_x = torch.zeros_like(maps), torch.empty_like(y), torch.empty_like(x)
    of_weight = value.new_empty(0) if weight is None else torch.empty_like(weight)
    for tap in range(len(y)):
        grid, tap_grad = _grid(y[tap], x[tap]), grad_maps
        if weight is not None:
            of_weight[tap] = (_sample(maps, grid) * grad_maps).sum(1)
            tap_grad = grad_maps * weight[tap][:, None]
        more, of_grid = torch.ops.aten.grid_sampler_2d_backward(
            tap_grad, maps, grid, _BILINEAR, _ZEROS, False, [True, True]
        )
        of_maps += more
        of_x[tap], of_y[tap] = of_grid[..., 0] * (2 / W), of_grid[..., 1] * (2 / H)
    taps = [t if t.ndim == 1 else _taps_last(t, G) for t in (of_y, of_x, of_weight)]
    return _channels_last(of_maps, B), *taps


def _maps_and_taps(value: Tensor, *taps: Tensor | None) -> list[Tensor | None]:
    B, H, W, C = value.shape
    G, K = taps[0].shape[3:]
    maps = value.permute(0, 3, 1, 2).reshape(B * G, C // G, H, W)  # BHWC -> (B G) c H W
    moved = [
        # B H W G K -> K (B G) H W
        None if t is None else t.permute(4, 0, 3, 1, 2).reshape(K, B * G, H, W)
        for t in taps
    ]
    return [maps, *moved]


def _channels_last(maps: Tensor, B: int) -> Tensor:
    N, c, H, W = maps.shape
    # (B G) c H W -> BHWC
    return maps.view(B, N // B * c, H, W).permute(0, 2, 3, 1).contiguous()


def _taps_last(taps: Tensor, G: int) -> Tensor:
    K, N, H, W = taps.shape
    # K (B G) H W -> B H W G K
    return taps.view(K, N // G, G, H, W).permute(1, 3, 4, 2, 0).contiguous()


def _grid(y: Tensor, x: Tensor) -> Tensor:
    """Normalised coordinates; pixel i has its centre at (2 i + 1) / side - 1."""
    H, W = y.shape[-2:]
    # Two steps outside nothing is read and no gradient flows; the clamp keeps far offsets within
    # integer range.
    y, x = y.clamp(-2, H + 1), x.clamp(-2, W + 1)
    return torch.stack(((2 * x + 1) / W - 1, (2 * y + 1) / H - 1), -1)


def _sample(maps: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
