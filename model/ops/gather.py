"""Reading pixels at computed places, one channel group at a time: what the deformable operators
have in common."""

from __future__ import annotations

import torch
from torch import Tensor


def gather_groups(value: Tensor, pixel: Tensor) -> Tensor:
    """The channels of group g at pixel[..., g] of the same image.

    Args:
        value: (B, H, W, C), C a multiple of G.
        pixel: (B, H, W, G) int64, h * W + w of the pixel to read, inside the map.

    Returns:
        (B, H, W, G, C // G) in the type of `value`.
    """
    B, H, W, C = value.shape
    G = pixel.shape[-1]
    first_pixel = torch.arange(B, device=value.device).view(B, 1, 1, 1) * (H * W)
    row = (first_pixel + pixel) * G + torch.arange(G, device=value.device)
    # Whole rows along dimension 0: PyTorch copies and scatters them several times faster than
    # single elements along a middle dimension.
    rows = value.reshape(-1, C // G).gather(0, row.reshape(-1, 1).expand(-1, C // G))
    return rows.view(B, H, W, G, C // G)


def check_operands(name: str, value: Tensor, *per_group: Tensor) -> None:
    """Assert that (B, H, W, G, ...) tensors fit a value map (B, H, W, C) and its channels."""
    assert value.ndim == 4, f"{name}: value must be (B, H, W, C), got {tuple(value.shape)}"
    for tensor in per_group:
        assert tensor.shape[:3] == value.shape[:3], (
            f"{name}: {tuple(tensor.shape)} does not fit the value map {tuple(value.shape)}"
        )
        assert value.shape[3] % tensor.shape[3] == 0, (
            f"{name}: {value.shape[3]} channels do not divide into {tensor.shape[3]} groups"
        )
