"""From an image of any size to its map of road probability: tiles, views, blending."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model.base import RoadModel, normalise
from utils.tiling import TileBlender, TileGrid
from utils.tta import average_over


class NonFinitePrediction(ArithmeticError):
    """The model answered NaN: broken weights, or float16 that overflowed."""


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
    how many of how many tiles are done. The model is used in eval mode and left in the modes it
    had. Raises ValueError for another kind of image, and NonFinitePrediction.
    """
    if image.dtype != torch.uint8 or image.ndim != 3:
        raise ValueError(f"expected a uint8 image (C, H, W), got {image.dtype} {image.shape}")
    grid = TileGrid(*image.shape[-2:], tile, overlap)
    blender = TileBlender(grid)
    cuts = (grid.cut(image, place) for place in grid)
    settings = {"batch_size": batch_size, "ops": ops, "device": device}
    with prediction_mode(model, device, amp_dtype):
        values = predict_tiles(model, cuts, **settings)
        for done, (place, value) in enumerate(zip(grid, values, strict=True), start=1):
            blender.add(place, value)
            after_tiles(done, len(grid))
    refuse_nan(blender.map, amp_dtype)
    return blender.map.clamp_(0, 1).numpy()  # the weights sum to one but for rounding


def predict_tiles(
    model: RoadModel,
    tiles: Iterable[Tensor],
    *,
    batch_size: int,
    ops: Sequence[str],
    device: torch.device | str,
) -> Iterator[Tensor]:
    """Road probability (h, w), float32 on the CPU, of tiles uint8 (3, h, w) of one size, in order.

    To be used within `prediction_mode`. The results of a batch are fetched after the next one was
    started, so that a GPU has work while the caller looks at them.
    """

    def probability(views: Tensor) -> Tensor:
        logits = model(normalise(views, model.normalisation))
        assert logits.shape[1] == 1, f"a road map has one channel, not {logits.shape[1]}"
        return logits.float().sigmoid()

    tiles, before = iter(tiles), None
    while batch := list(islice(tiles, batch_size)):
        views = torch.stack(batch).to(device, non_blocking=True)
        values = average_over(ops, probability, views)[:, 0]
        if before is not None:
            yield from before.cpu()
        before = values
    if before is not None:
        yield from before.cpu()


@contextmanager
def prediction_mode(
    model: nn.Module, device: torch.device | str, amp_dtype: torch.dtype | None
) -> Iterator[None]:
    """Eval mode, no gradients, and one autocast around all batches, which casts weights once."""
    kind = torch.device(device).type
    autocast = torch.autocast(kind, dtype=amp_dtype, enabled=amp_dtype is not None)
    with torch.inference_mode(), eval_mode(model), autocast:
        yield


def refuse_nan(probability: Tensor, amp_dtype: torch.dtype | None) -> None:
    """Raise NonFinitePrediction when there is one in it."""
    if probability.isnan().any():
        hint = "set amp=false" if amp_dtype else "its weights are broken"
        raise NonFinitePrediction(f"the model's answer is not a number: {hint}")


@contextmanager
def naming(image: str, weights: Path | None = None) -> Iterator[None]:
    """Put the image's name before the message of a NonFinitePrediction, and the weights' after."""
    try:
        yield
    except NonFinitePrediction as error:
        behind = f" ({weights})" if weights else ""
        raise NonFinitePrediction(f"{image}: {error}{behind}") from error


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
