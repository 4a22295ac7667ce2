"""What imagery of 11 bits and more is stretched between: percentiles of a whole city, by band."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import rasterio

from utils.dataset_check import in_threads
from utils.decoding import one_line_errors
from utils.preparation.sources import Source
from utils.stretch import PERCENTILES, Limits

#: Every how manyth pixel, along both axes, is looked at for them.
STRETCH_STEP = 8
VALUES = 1 << 16


def city_limits(sources: Sequence[Source]) -> dict[str, Limits]:
    """The percentiles of each city's 16-bit chips; cities with 8-bit chips are left out."""
    totals: dict[str, np.ndarray] = {}
    found = in_threads(_histogram, sources, "spacenet: brightness of the cities")
    for source, counts in zip(sources, found, strict=True):
        if counts is not None:
            totals[source.part] = totals.get(source.part, 0) + counts
    return {city: _limits(counts) for city, counts in totals.items() if counts.any()}


def _histogram(source: Source) -> np.ndarray | None:
    """How often each 16-bit value occurs, 3 x 65536; None for an 8-bit or damaged chip."""
    try:
        with one_line_errors(source.image), rasterio.open(source.image) as chip:
            if chip.dtypes[0] == "uint8":
                return None
            size = [-(-side // STRETCH_STEP) for side in chip.shape]
            bands = chip.read([1, 2, 3], out_shape=(3, *size))
    except ValueError:  # the conversion tells of it
        return None
    bands = bands.clip(0, VALUES - 1).astype(np.int64)
    valid = (bands > 0).any(axis=0)
    return np.stack([np.bincount(band[valid], minlength=VALUES) for band in bands])


def _limits(counts: np.ndarray) -> Limits:
    """The least values that the percentiles' shares do not exceed, of each band."""
    reached = counts.cumsum(axis=1) / counts.sum(axis=1, keepdims=True)
    low, high = ((reached < percentile / 100).sum(axis=1) for percentile in PERCENTILES)
    return tuple(zip(low.tolist(), np.maximum(high, low + 1).tolist(), strict=True))
