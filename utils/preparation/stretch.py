"""Imagery of 11 bits and more as 8 bits: between the percentiles of a whole city, band by band."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import rasterio

from utils.dataset_check import in_threads
from utils.preparation.sources import Source

#: The share of a city's darkest and of its brightest values that a stretch to 8 bits cuts off.
PERCENTILES = (2.0, 98.0)
#: Every how manyth pixel, along both axes, is looked at for them.
STRETCH_STEP = 8
VALUES = 1 << 16


class Stretch(NamedTuple):
    """Values that become 1 and 255, of red, green and blue."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def apply(self, values: np.ndarray) -> np.ndarray:
        """uint8 H W 3 of values H W 3; 0 is kept for pixels without data."""
        low, high = np.array(self.low, np.float32), np.array(self.high, np.float32)
        scaled = 1 + (values.astype(np.float32) - low) * (254 / np.maximum(high - low, 1))
        return np.rint(scaled.clip(1, 255)).astype(np.uint8)


def stretches(sources: Sequence[Source]) -> dict[str, Stretch]:
    """How the 16-bit chips of each city become 8-bit; cities with 8-bit chips are left out."""
    totals: dict[str, np.ndarray] = {}
    found = in_threads(_histogram, sources, "spacenet: brightness of the cities")
    for source, counts in zip(sources, found, strict=True):
        if counts is not None:
            totals[source.part] = totals.get(source.part, 0) + counts
    return {city: _stretch(counts) for city, counts in totals.items() if counts.any()}


def _histogram(source: Source) -> np.ndarray | None:
    """How often each 16-bit value occurs, 3 x 65536; None for an 8-bit chip."""
    with rasterio.open(source.image) as chip:
        if chip.dtypes[0] == "uint8":
            return None
        size = [-(-side // STRETCH_STEP) for side in chip.shape]
        bands = chip.read([1, 2, 3], out_shape=(3, *size)).clip(0, VALUES - 1).astype(np.int64)
    valid = (bands > 0).any(axis=0)
    return np.stack([np.bincount(band[valid], minlength=VALUES) for band in bands])


def _stretch(counts: np.ndarray) -> Stretch:
    """The least values that the percentiles' shares do not exceed."""
    reached = counts.cumsum(axis=1) / counts.sum(axis=1, keepdims=True)
    low, high = ((reached < percentile / 100).sum(axis=1) for percentile in PERCENTILES)
    return Stretch(tuple(map(float, low)), tuple(map(float, high)))
