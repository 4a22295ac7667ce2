"""Deformable sampling by PyTorch's own sampler, one tap at a time.

Runs on every device and exports to every format. Its normalised coordinates are rounded: in float32
by about 1e-7 of the map's side. Arguments are those of `sampling.deform_sample`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model.ops.taps import places

_BILINEAR = 0  # the codes of PyTorch's grid sampler
_PADDING = {"zeros": 0, "border": 1}


def forward(value: Tensor, offset: Tensor, weight: Tensor | None, form: str, step: int) -> Tensor:
    """The arguments are those of `sampling.deform_sample`."""
    maps, grids, factors = _maps_and_grids(value, offset, weight, form, step)
    samples = (_sample(maps, grid, form) for grid in grids)
    if factors is not None:
        samples = (
            sample * factor[:, None] for sample, factor in zip(samples, factors, strict=True)
        )
    out = _interleave(list(samples), step) if form == "subpixels" else sum(samples)
    # not len(value), which an exporter takes for a constant
    return _channels_last(out, value.shape[0]).to(value.dtype)


def backward(
    grad: Tensor, value: Tensor, offset: Tensor, weight: Tensor | None, form: str, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, offset and weight; the last is empty without weights."""
    B, H, W, _ = value.shape
    maps, grids, factors = _maps_and_grids(value, offset, weight, form, step)
    grads = _group_maps(grad.to(maps.dtype), len(maps) // B)
    of_maps, of_y, of_x, of_weight = torch.zeros_like(maps), [], [], []
    for tap, grid in enumerate(grids):
        row, column = divmod(tap, step)
        of_tap = grads[..., row::step, column::step] if form == "subpixels" else grads
        if factors is not None:
            sample = _sample(maps, grid, form)
            of_weight.append((sample * of_tap).sum(1))
            of_tap = of_tap * factors[tap][:, None]
        more, of_grid = torch.ops.aten.grid_sampler_2d_backward(
            of_tap, maps, grid, _BILINEAR, _PADDING[_padding(form)], False, [True, True]
        )
        of_maps += more
        of_x.append(of_grid[..., 0] * (2 / W))
        of_y.append(of_grid[..., 1] * (2 / H))
    y, x = (_taps_last(torch.stack(taps), B) for taps in (of_y, of_x))
    of_offset = {
        "strip_h": lambda: y,
        "strip_w": lambda: x,
        "square": lambda: torch.stack((y, x), -1),
        "subpixels": lambda: torch.stack((x, y), 3),
    }[form]().to(offset.dtype)
    last = value.new_empty(0)
    if weight is not None:
        last = _taps_last(torch.stack(of_weight), B).to(weight.dtype)
    return _channels_last(of_maps, B).to(value.dtype), of_offset, last


def _sample(maps: Tensor, grid: Tensor, form: str) -> Tensor:
    sample = F.grid_sample(maps, grid, padding_mode=_padding(form), align_corners=False)
    if _padding(form) == "border":  # PyTorch's sampler holds NaN within the map as well
        sample = sample + (grid - grid).sum(-1)[:, None]
    return sample


def _padding(form: str) -> str:
    return "border" if form == "subpixels" else "zeros"


def _maps_and_grids(
    value: Tensor, offset: Tensor, weight: Tensor | None, form: str, step: int
) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """Maps (B G, c, H, W), a grid (B G, H, W, 2) and a factor (B G, H, W) for each tap."""
    B, H, W, _ = value.shape
    y, x = torch.broadcast_tensors(*places(offset, form, step))
    y, x = (t.expand(B, *t.shape[-4:]) for t in (y, x))
    G, K = y.shape[3:]
    # Two steps outside nothing is read, or the border, and no gradient flows; the clamp keeps far
    # offsets within integer range and infinite ones numbers.
    y, x = y.clamp(-2, H + 1), x.clamp(-2, W + 1)
    # Pixel i has its centre at (2 i + 1) / side - 1 of the normalised coordinates.
    grid = torch.stack(((2 * x + 1) / W - 1, (2 * y + 1) / H - 1), -1)
    # B H W G K 2 -> K (B G) H W 2
    grids = grid.permute(4, 0, 3, 1, 2, 5).reshape(K, B * G, H, W, 2)
    maps = _group_maps(value.to(grid.dtype), G)
    if weight is None:
        return maps, list(grids), None
    # B H W G K -> K (B G) H W
    factors = weight.to(grid.dtype).permute(4, 0, 3, 1, 2).reshape(K, B * G, H, W)
    return maps, list(grids), factors


def _group_maps(value: Tensor, G: int) -> Tensor:
    B, H, W, C = value.shape
    return value.permute(0, 3, 1, 2).reshape(B * G, C // G, H, W)  # BHWC -> (B G) c H W


def _channels_last(maps: Tensor, B: int) -> Tensor:
    N, c, H, W = maps.shape
    # (B G) c H W -> BHWC
    return maps.view(B, N // B * c, H, W).permute(0, 2, 3, 1).contiguous()


def _taps_last(taps: Tensor, B: int) -> Tensor:
    K, N, H, W = taps.shape
    # K (B G) H W -> B H W G K
    return taps.view(K, B, N // B, H, W).permute(1, 3, 4, 2, 0).contiguous()


def _interleave(samples: list[Tensor], step: int) -> Tensor:
    """The sub-pixels (N, c, H, W), row by row, in their places: (N, c, step * H, step * W)."""
    N, c, H, W = samples[0].shape
    return F.pixel_shuffle(torch.stack(samples, 2).view(N, c * step**2, H, W), step)
