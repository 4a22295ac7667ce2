"""Betti errors of two masks: how many components and holes there are too many or too few."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import label

TILE_PX = 64

_TOUCHING = np.ones((3, 3), dtype=bool)


def betti_numbers(mask: np.ndarray) -> tuple[int, int]:
    """b0 and b1 of an H x W bool mask: 8-connected components, and holes.

    A hole is a 4-connected component of the background that does not reach the border, so that
    b1 is b0 less the Euler number.
    """
    components = label(mask, _TOUCHING)[1]
    background = label(np.pad(~mask, 1, constant_values=True))[1]
    return components, background - 1


def betti_errors(
    prediction: np.ndarray, target: np.ndarray, tile_px: int = TILE_PX
) -> dict[str, float]:
    """|b0 - b0'| and |b1 - b1'| of H x W bool masks: on the whole, and the mean over tiles.

    Tiles are `tile_px` wide from the upper left; those at the right and lower border may be
    smaller.
    """
    whole = _errors(prediction, target)
    H, W = target.shape
    tiles = [
        _errors(
            prediction[y : y + tile_px, x : x + tile_px], target[y : y + tile_px, x : x + tile_px]
        )
        for y in range(0, H, tile_px)
        for x in range(0, W, tile_px)
    ]
    tile_b0, tile_b1 = np.mean(tiles, axis=0) if tiles else (0.0, 0.0)
    return {
        "betti0_error": float(whole[0]),
        "betti1_error": float(whole[1]),
        "betti0_error_tiles": float(tile_b0),
        "betti1_error_tiles": float(tile_b1),
    }


def _errors(prediction: np.ndarray, target: np.ndarray) -> tuple[int, int]:
    if np.array_equal(prediction, target):
        return 0, 0
    predicted, true = betti_numbers(prediction), betti_numbers(target)
    return abs(predicted[0] - true[0]), abs(predicted[1] - true[1])
