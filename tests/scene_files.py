"""Generated scenes for tests: roads drawn bright on dark ground, in files of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
from affine import Affine

#: Somewhere in UTM zone 11, pixels of half a metre.
UTM = {"crs": "EPSG:32611", "transform": Affine(0.5, 0, 640_000, 0, -0.5, 4_010_000)}
BRIGHT, DARK = 240, 20


def road_mask(H: int, W: int, seed: int = 0, num: int = 5, width_px: int = 9) -> np.ndarray:
    """bool H x W: straight roads from border to border, and a ring."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((H, W), np.uint8)
    for _ in range(num):
        ends = rng.random(2)
        cv2.line(mask, (0, int(ends[0] * H)), (W - 1, int(ends[1] * H)), 1, width_px)
        ends = rng.random(2)
        cv2.line(mask, (int(ends[0] * W), 0), (int(ends[1] * W), H - 1), 1, width_px)
    cv2.circle(mask, (W // 2, H // 2), min(H, W) // 4, 1, width_px)
    return mask > 0


def picture(mask: np.ndarray, bands: int = 3) -> np.ndarray:
    """uint8 (bands, H, W) that `BrightNet` finds the mask in."""
    return np.where(mask, BRIGHT, DARK).astype(np.uint8)[None].repeat(bands, axis=0)


def write_scene(path: Path | str, bands: np.ndarray, **profile: Any) -> None:
    count, H, W = bands.shape
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    settings = {"driver": "GTiff", "compress": "deflate", **tiles, **profile}
    shape = {"count": count, "height": H, "width": W, "dtype": bands.dtype}
    with rasterio.open(path, "w", **shape, **settings) as file:
        file.write(bands)
