"""The rasters of a scene as Cloud-Optimized GeoTIFFs on its own grid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.shutil import copy

from utils.raster import GDAL_SETTINGS, Raster
from utils.scenes.plan import ScenePlan, Window
from utils.scenes.store import FULL, NO_DATA, BlockStore
from utils.scenes.trace import road

#: What the files hold where the scene has no data.
NO_DATA_BYTE = 255
#: The probability 1 in a file of bytes.
FULL_BYTE = 254

TIFF_BLOCK_PX = 512
WINDOW_PX = 4 * TIFF_BLOCK_PX
BLACK, WHITE, CLEAR = (0, 0, 0, 255), (255, 255, 255, 255), (0, 0, 0, 0)


def assemble(plan: ScenePlan) -> tuple[dict[str, Path], float | None]:
    """Write mask and probability beside their places; the files by kind, and the share of road.

    The share is that of the pixels with data, None when there are none.
    """
    store, raster = BlockStore(plan), plan.raster
    kinds = [kind for kind in plan.files() if kind in ("mask", "prob")]
    plain = {kind: plan.work / f"{kind}.plain.tif" for kind in kinds}
    num_road = num_valid = 0
    with rasterio.Env(**GDAL_SETTINGS), ExitStack() as files:
        open_files = {
            kind: files.enter_context(rasterio.open(path, "w", **_profile(raster)))
            for kind, path in plain.items()
        }
        for window in _windows(raster.shape):
            values = scene_values(store, raster, window)
            has_data = values != NO_DATA
            is_road = road(values, plan.wanted.threshold)
            num_valid += int(has_data.sum())
            num_road += int(is_road.sum())
            for kind, file in open_files.items():
                content = is_road.astype(np.uint8) if kind == "mask" else _bytes(values)
                content[~has_data] = NO_DATA_BYTE
                place = rasterio.windows.Window(window.left, window.top, *content.shape[::-1])
                file.write(content, 1, window=place)
        for kind, file in open_files.items():
            _describe(file, kind, plan)
        files.close()
        done = {
            kind: _cloud_optimized(path, plan.work / f"{kind}.tif") for kind, path in plain.items()
        }
    return done, num_road / num_valid if num_valid else None


def scene_values(store: BlockStore, raster: Raster, window: Window) -> np.ndarray:
    """The stored probabilities in a window of the scene's own grid, uint16 H x W.

    Where the model worked on another grid they are interpolated between its pixels; a pixel has
    data when the model's pixel around its centre has.
    """
    if raster.grid_shape == raster.shape:
        return store.read(window)
    rows, columns = (
        _Axis.of(start, num, own, grid)
        for start, num, own, grid in zip(
            window[:2], window[2:], raster.shape, raster.grid_shape, strict=True
        )
    )
    values = store.read(Window(rows.first, columns.first, rows.num, columns.num))
    known = np.where(values == NO_DATA, 0, values).astype(np.float32)
    known = known[rows.low] + (known[rows.high] - known[rows.low]) * rows.share[:, None]
    known = known[:, columns.low] + (known[:, columns.high] - known[:, columns.low]) * columns.share
    result = np.rint(known).astype(np.uint16)
    result[(values == NO_DATA)[np.ix_(rows.nearest, columns.nearest)]] = NO_DATA
    return result


class _Axis(NamedTuple):
    """Pixels of a scene between pixels of the model's grid, along one axis."""

    first: int  # of the grid's pixels that are needed
    num: int
    low: np.ndarray  # counted from `first`, for each pixel of the scene
    high: np.ndarray
    share: np.ndarray  # of `high`, float32
    nearest: np.ndarray

    @classmethod
    def of(cls, start: int, num: int, own: int, grid: int) -> _Axis:
        place = (np.arange(start, start + num) + 0.5) * (grid / own)
        low = np.floor(place - 0.5).clip(0, grid - 1).astype(int)
        high = (low + 1).clip(max=grid - 1)
        share = (place - 0.5 - low).clip(0, 1).astype(np.float32)
        nearest = np.floor(place).clip(0, grid - 1).astype(int)
        first, last = int(low[0]), int(high[-1])
        return cls(first, last - first + 1, low - first, high - first, share, nearest - first)


def _bytes(values: np.ndarray) -> np.ndarray:
    """Stored probabilities as whole numbers up to FULL_BYTE, rounded."""
    whole = values.clip(0, FULL).astype(np.uint32) * FULL_BYTE
    return ((whole + FULL // 2) // FULL).astype(np.uint8)


def _windows(shape: tuple[int, int]) -> Iterator[Window]:
    H, W = shape
    for top in range(0, H, WINDOW_PX):
        for left in range(0, W, WINDOW_PX):
            yield Window(top, left, min(WINDOW_PX, H - top), min(WINDOW_PX, W - left))


def _profile(raster: Raster) -> dict[str, Any]:
    """Of the plain file that the Cloud-Optimized one is made from."""
    profile = {
        "driver": "GTiff",
        "height": raster.shape[0],
        "width": raster.shape[1],
        "count": 1,
        "dtype": "uint8",
        "nodata": NO_DATA_BYTE,
        "tiled": True,
        "blockxsize": TIFF_BLOCK_PX,
        "blockysize": TIFF_BLOCK_PX,
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "if_safer",
    }
    if raster.transform is not None:
        profile["transform"] = raster.transform
    if raster.crs_wkt is not None:
        profile["crs"] = CRS.from_wkt(raster.crs_wkt)
    return profile


def _describe(file: rasterio.io.DatasetWriter, kind: str, plan: ScenePlan) -> None:
    file.update_tags(**dict(plan.tags))
    file.set_band_description(1, "road" if kind == "mask" else "road probability")
    if kind == "mask":
        file.write_colormap(1, {0: BLACK, 1: WHITE, NO_DATA_BYTE: CLEAR})
    else:
        file.scales = (1 / FULL_BYTE,)


def _cloud_optimized(plain: Path, path: Path) -> Path:
    copy(
        plain,
        path,
        driver="COG",
        compress="deflate",
        blocksize=TIFF_BLOCK_PX,
        bigtiff="if_safer",
        overview_resampling="nearest",
    )
    plain.unlink()
    return path
