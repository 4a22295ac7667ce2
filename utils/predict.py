"""From an image of any size to its map of road probability: tiles, views, blending."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from model.base import RoadModel, normalise
from utils.tiling import TileBlender, TileGrid
from utils.tta import average_over


class NonFinitePrediction(ArithmeticError):
    """The model answered NaN: broken weights, or float16 that overflowed."""


@torch.inference_mode()
def predict(
    model: RoadModel,
    image: Tensor,
    *,
    tile: int,
    overlap: float,
    batch_size: int,
    ops: Sequence[str] = ("identity",),
    device: torch.device | str,
    amp_dtype: torch.dtype | None = None,
    after_tiles: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Road probability (H, W), float32 in [0, 1], of a uint8 image (3, H, W) on the CPU.

    An image larger than `tile` pixels is cut into tiles that share `overlap` of their side and
    are blended; every tile is seen in each of the views `ops` (see `utils.tta`). `batch_size`
    tiles at a time lie on `device`; `amp_dtype` None computes in float32. `after_tiles` is told
    after each batch how many of how many tiles are done. The model is used in eval mode and left
    in the modes it had. Raises ValueError for another kind of image, and
    NonFinitePrediction.
    """
    if image.dtype != torch.uint8 or image.ndim != 3:
        raise ValueError(f"expected a uint8 image (C, H, W), got {image.dtype} {image.shape}")
    device = torch.device(device)

    def probability(views: Tensor) -> Tensor:
        logits = model(normalise(views, model.normalisation))
        assert logits.shape[1] == 1, f"a road map has one channel, not {logits.shape[1]}"
        return logits.float().sigmoid()

    grid = TileGrid(*image.shape[-2:], tile, overlap)
    blender = TileBlender(grid)
    tiles, done = iter(grid), 0
    # One autocast around all batches casts each weight once.
    autocast = torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None)
    with eval_mode(model), autocast:
        while batch := list(islice(tiles, batch_size)):
            views = torch.stack([grid.cut(image, place) for place in batch]).to(device)
            values = average_over(ops, probability, views)[:, 0].cpu()
            for place, value in zip(batch, values, strict=True):
                blender.add(place, value)
            done += len(batch)
            after_tiles(done, len(grid))
    if blender.map.isnan().any():
        hint = "set amp=false" if amp_dtype else "its weights are broken"
        raise NonFinitePrediction(f"the model's answer is not a number: {hint}")
    return blender.map.clamp_(0, 1).numpy()  # the weights sum to one but for rounding


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; afterwards each of its modules in the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
