"""Values of 16 bit or of reals as brightness from 1 to 255, by percentiles of the whole raster."""

from __future__ import annotations

import numpy as np
import rasterio
from rasterio.windows import Window

#: What becomes 1 and 255, by band.
Limits = tuple[tuple[float, float], ...]

PERCENTILES = (2, 98)
#: Side of the reduced copy that is looked at, where overviews make it cheap.
SAMPLE_PX = 1024
#: Without overviews as many patches as this squared are looked at, of this side.
PATCHES, PATCH_PX = 16, 64


def sample_limits(source: rasterio.DatasetReader, bands: tuple[int, ...]) -> Limits:
    """The percentiles of each band over the raster, of what has data."""
    H, W = source.shape
    whole = Window(0, 0, W, H)
    windows = [whole]
    if max(H, W) > 2 * SAMPLE_PX and not source.overviews(bands[0]):
        windows = _patches(H, W)
    values = _valid_values(source, bands, windows)
    if not values.shape[1] and windows != [whole]:
        values = _valid_values(source, bands, [whole])
    if not values.shape[1]:
        return ((0.0, 1.0),) * len(bands)
    limits = np.percentile(values, PERCENTILES, axis=1).T.tolist()
    return tuple((low, high if high > low else low + 1) for low, high in limits)


def to_8bit(values: np.ndarray, valid: np.ndarray, limits: Limits) -> np.ndarray:
    """uint8 (B, H, W) of values of any type: limits become 1 and 255, what is not valid 0.

    Where no band is below 0, pixels of 0 in all of them stay 0: only of these fill may be made.
    """
    result = np.empty(values.shape, np.uint8)
    empty = ~valid
    if all(low >= 0 for low, _ in limits):
        empty |= ~values.any(axis=0)
    for band, (low, high) in enumerate(limits):
        if values.dtype == np.uint16:
            np.take(_brightness(np.arange(2**16), low, high), values[band], out=result[band])
        else:
            usable = np.where(valid, values[band], low)
            result[band] = _brightness(usable, low, high)
        result[band][empty] = 0
    return result


def _brightness(values: np.ndarray, low: float, high: float) -> np.ndarray:
    share = (values.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    return (1.5 + 254 * share.clip(0, 1)).astype(np.uint8)  # rounds: the cast cuts off


def _patches(H: int, W: int) -> list[Window]:
    """The middles of as many equal parts."""
    height, width = min(PATCH_PX, H), min(PATCH_PX, W)
    middles = (np.arange(PATCHES) + 0.5) / PATCHES
    return [
        Window(round(left), round(top), width, height)
        for top in (middles * H - height / 2).clip(0, H - height)
        for left in (middles * W - width / 2).clip(0, W - width)
    ]


def _valid_values(
    source: rasterio.DatasetReader, bands: tuple[int, ...], windows: list[Window]
) -> np.ndarray:
    """The values (B, P) of the pixels with data, large windows reduced.

    0 in all bands is left out: the fill of a file without a nodata value would rule the stretch.
    """
    found = []
    for window in windows:
        factor = max(1.0, max(window.height, window.width) / SAMPLE_PX)
        shape = tuple(max(1, round(side / factor)) for side in (window.height, window.width))
        values = source.read(bands, window=window, out_shape=(len(bands), *shape))
        valid = source.dataset_mask(window=window, out_shape=shape) > 0
        valid &= np.isfinite(values).all(axis=0) & values.any(axis=0)
        found.append(values[:, valid])
    return np.concatenate(found, axis=1)
