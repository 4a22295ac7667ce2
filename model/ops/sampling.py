"""Weighted sums of bilinear samples, tap by tap: what the deformable operators have in common."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

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
    maps = value.permute(0, 3, 1, 2).reshape(B * G, C // G, H, W).to(precise)  # BHWC -> (B G) c H W
    y, x = (_taps_first(t.to(precise)) for t in (y, x))
    weight = None if weight is None else _taps_first(weight.to(precise))
    out = _SumOfSamples.apply(maps, y, x, weight)
    return out.reshape(B, C, H, W).permute(0, 2, 3, 1).to(value.dtype)  # BCHW -> BHWC


def _taps_first(t: Tensor) -> Tensor:
    B, H, W, G, K = t.shape
    return t.permute(4, 0, 3, 1, 2).reshape(K, B * G, H, W)  # B H W G K -> K (B G) H W


def _grid(y: Tensor, x: Tensor) -> Tensor:
    """Normalised coordinates; pixel i has its centre at (2 i + 1) / side - 1."""
    H, W = y.shape[-2:]
    # Two steps outside nothing is read and no gradient flows; the clamp keeps far offsets within
    # integer range.
    y, x = y.clamp(-2, H + 1), x.clamp(-2, W + 1)
    return torch.stack(((2 * x + 1) / W - 1, (2 * y + 1) / H - 1), -1)


class _SumOfSamples(torch.autograd.Function):
    """maps (N, c, H, W); y, x and weight (K, N, H, W)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, maps: Tensor, y: Tensor, x: Tensor, weight: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(maps, y, x, weight)
        out = torch.zeros_like(maps)
        for tap in range(len(y)):
            sample = _sample(maps, _grid(y[tap], x[tap]))
            if weight is None:
                out += sample
            else:
                out.addcmul_(sample, weight[tap][:, None])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        maps, y, x, weight = ctx.saved_tensors
        needs_maps, *needs_position, needs_weight = ctx.needs_input_grad
        H, W = maps.shape[-2:]
        grad_maps = torch.zeros_like(maps) if needs_maps else None
        grad_y, grad_x = torch.empty_like(y), torch.empty_like(x)
        grad_weight = torch.empty_like(weight) if needs_weight else None
        grad = grad.contiguous()
        for tap in range(len(y)):
            grid = _grid(y[tap], x[tap])
            if needs_weight:
                grad_weight[tap] = (_sample(maps, grid) * grad).sum(1)
            weighted = grad if weight is None else grad * weight[tap][:, None]
            of_maps, of_grid = torch.ops.aten.grid_sampler_2d_backward(
                weighted, maps, grid, _BILINEAR, _ZEROS, False, [needs_maps, any(needs_position)]
            )
            if needs_maps:
                grad_maps += of_maps
            if any(needs_position):
                grad_x[tap] = of_grid[..., 0] * (2 / W)
                grad_y[tap] = of_grid[..., 1] * (2 / H)
        needed = (needs_maps, *needs_position, needs_weight)
        gradients = (grad_maps, grad_y, grad_x, grad_weight)
        return tuple(g if n else None for g, n in zip(gradients, needed, strict=True))


def _sample(maps: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
