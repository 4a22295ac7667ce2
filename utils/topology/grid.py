"""Where the pixels of a raster lie on the ground, in metres."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from affine import Affine

from utils.topology.crs import metric_crs, to_crs


@dataclass(frozen=True)
class PixelGrid:
    """Pixels of an H x W raster on the ground: georeferenced, or squares of a given side.

    Pixel coordinates (x: column, y: row) are those of rasterio: 0, 0 is the outer corner of the
    first pixel, 0.5, 0.5 its centre. Without `crs`, ground coordinates are pixel coordinates
    times `pixel_size_m`, y pointing down; with `crs` and `transform` they are in `target_crs`.
    """

    shape: tuple[int, int]
    pixel_size_m: float
    transform: Affine | None = None
    crs: str | None = None
    target_crs: str | None = None

    @classmethod
    def of(
        cls,
        shape: tuple[int, int],
        pixel_size_m: float = 1.0,
        transform: Affine | None = None,
        crs: str | None = None,
        target_crs: str | None = None,
    ) -> PixelGrid:
        """The grid of a raster; with `crs` the pixel size is measured, not taken.

        `target_crs` is by default `crs` itself when metric, else the UTM zone of the centre.
        """
        if (crs is None) != (transform is None):
            raise ValueError("give transform and crs together, or neither")
        if crs is None:
            if not 0 < pixel_size_m < math.inf:
                raise ValueError(f"pixel_size_m must be a positive number, got {pixel_size_m}")
            return cls(shape, pixel_size_m)
        H, W = shape
        x, y = W / 2, H / 2
        corners = _affine(transform, np.array([(x, y), (x + 1, y), (x, y + 1)]))
        target_crs = target_crs or metric_crs(crs, corners)
        (a, b), (c, d) = np.diff(to_crs(corners, crs, target_crs)[[1, 0, 2]], axis=0)
        # |cross product| of the pixel's two sides: the area of the pixel on the ground.
        return cls(shape, math.sqrt(abs(a * d - b * c)), transform, crs, target_crs)

    def to_ground(self, points_px: np.ndarray) -> np.ndarray:
        """Ground coordinates in metres of points (P x 2: x, y) in pixels."""
        if self.crs is None:
            return points_px * self.pixel_size_m
        return to_crs(_affine(self.transform, points_px), self.crs, self.target_crs)

    def to_pixels(self, points_m: np.ndarray) -> np.ndarray:
        """Pixel coordinates of points (P x 2) on the ground."""
        if self.crs is None:
            return points_m / self.pixel_size_m
        return _affine(~self.transform, to_crs(points_m, self.target_crs, self.crs))


def _affine(transform: Affine, points: np.ndarray) -> np.ndarray:
    x, y = points.T
    t = transform
    return np.stack([t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f], axis=1)
