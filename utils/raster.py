"""Rasters of any size and kind, read window by window as the 8-bit RGB that a model takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import rasterio
from affine import Affine
from pyproj.exceptions import ProjError
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from utils.decoding import has_end, one_line_errors
from utils.stretch import Limits, sample_limits, to_8bit
from utils.topology.crs import crs_name
from utils.topology.grid import PixelGrid

#: GDAL takes 5 % of a machine's memory for its cache unless told how much.
GDAL_SETTINGS = {"GDAL_CACHEMAX": 256 * 2**20}


@dataclass(frozen=True)
class Raster:
    """A raster and how it is read. Its own grid is `shape`; the model sees `grid_shape`.

    Both cover the same ground, and differ when the raster is read at another resolution.
    """

    path: str
    bands: tuple[int, ...]  # one (grey) or three (red, green, blue), counted from 1
    shape: tuple[int, int]
    grid_shape: tuple[int, int]
    transform: Affine | None  # None: without georeference
    crs_wkt: str | None
    limits: Limits | None  # the values that become 1 and 255, a band each; None: 8 bit as it is
    palette: bool
    has_mask: bool  # nodata, alpha or a mask band
    sides_m: tuple[float, float] | None  # height and width of the model's pixels; None: not known

    @property
    def name(self) -> str:
        return raster_name(self.path)

    @property
    def crs(self) -> str | None:
        """As text that pyproj reads; None when there is none that can be turned into metres."""
        return None if self.sides_m is None else crs_name(self.crs_wkt)

    @property
    def grid_transform(self) -> Affine | None:
        if self.transform is None:
            return None
        a, b, c, d, e, f = self.transform[:6]
        down, right = self.shape[0] / self.grid_shape[0], self.shape[1] / self.grid_shape[1]
        return Affine(a * right, b * down, c, d * right, e * down, f)

    @property
    def pixel_size_m(self) -> float | None:
        return self.sides_m and math.sqrt(self.sides_m[0] * self.sides_m[1])

    @property
    def ground(self) -> PixelGrid:
        """Where the pixels of the model's grid lie, in metres, or in pixels when without a CRS."""
        if self.crs is None:
            return PixelGrid.of(self.grid_shape)
        return PixelGrid.of(self.grid_shape, transform=self.grid_transform, crs=self.crs)


def raster_name(path: str) -> str:
    """What the files made of it are called: the stem, of an address without its query."""
    return PurePosixPath(path.split("?")[0]).stem


def is_virtual(path: str) -> bool:
    """Whether this is a place that only GDAL can look at: /vsicurl/..., s3://..."""
    return path.startswith("/vsi") or "://" in path


def source_files(path: str) -> list[str]:
    """What a raster's pixels come from: the file, those beside it, and those that a VRT names.

    What only GDAL can look at is named, and not looked into. ValueError when it cannot be opened.
    """
    found, ahead = {}, [path]
    while ahead:
        file = ahead.pop()
        found[file] = None
        if not is_virtual(file) and (file == path or file.lower().endswith(".vrt")):
            with one_line_errors(file), rasterio.open(file) as source:
                ahead += [other for other in source.files if other not in found]
    return sorted(found)


def is_photo(path: str) -> bool:
    """Whether this is a JPEG or PNG without georeference. ValueError when it cannot be opened."""
    with one_line_errors(path), rasterio.open(path) as source:
        return source.driver in ("JPEG", "PNG") and not _is_georeferenced(source)


def open_raster(
    path: str, bands: Sequence[int] | None = None, gsd: float | None = None
) -> tuple[Raster, list[str]]:
    """How to read a raster, and what its user should know about it, a line each.

    `bands` are counted from 1, one or three of them, by default the first three, or of fewer the
    first as grey. `gsd` is the side of the model's pixels in metres, by default the raster's own.
    Values other than of 8 bit are stretched: the 2nd and the 98th percentile of the whole raster
    become 1 and 255. Raises ValueError, one line, when the raster cannot be used.
    """
    with one_line_errors(path), rasterio.Env(**GDAL_SETTINGS), rasterio.open(path) as source:
        if source.driver in ("JPEG", "PNG") and not is_virtual(path) and not has_end(Path(path)):
            raise ValueError(f"{path}: is truncated")
        chosen, notes = _choose_bands(path, source, bands)
        sides_m, trouble = _pixel_sides_m(path, source)
        if gsd is not None and sides_m is None:
            raise ValueError(f"{path}: {trouble}, and --gsd needs the pixel size")
        if trouble is not None:
            notes.append(f"{trouble}; lengths and widths are in pixels")
        if not source.transform.is_rectilinear:
            notes.append("its grid is turned against the CRS's axes; the results keep it")
        grid_shape = source.shape
        if gsd is not None:
            grid_shape = tuple(
                max(1, round(num * side_m / gsd))
                for num, side_m in zip(source.shape, sides_m, strict=True)
            )
        palette = source.colorinterp[chosen[0] - 1] == ColorInterp.palette
        is_8bit = all(source.dtypes[band - 1] == "uint8" for band in chosen)
        raster = Raster(
            path=path,
            bands=chosen,
            shape=source.shape,
            grid_shape=grid_shape,
            transform=source.transform if _has_transform(source) else None,
            crs_wkt=source.crs.to_wkt() if source.crs else None,
            limits=None if is_8bit or palette else sample_limits(source, chosen),
            palette=palette,
            has_mask=not all(MaskFlags.all_valid in source.mask_flag_enums[b - 1] for b in chosen),
            sides_m=(gsd, gsd) if gsd else sides_m,
        )
    return raster, [f"{path}: {note}" for note in notes]


def read_window(
    raster: Raster, top: int, left: int, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """A window of the model's grid: uint8 (3, H, W), and bool (H, W), False without data.

    Each call opens the raster for itself, so that threads may read at the same time. Raises
    ValueError, one line, when the window cannot be read.
    """
    window = Window(left, top, width, height)
    with one_line_errors(raster.path), rasterio.Env(**GDAL_SETTINGS), _on_grid(raster) as source:
        values = source.read(raster.bands, window=window)
        valid = np.ones((height, width), bool)
        if raster.has_mask:
            valid = source.dataset_mask(window=window) > 0
        if raster.palette:
            table = np.zeros((np.iinfo(values.dtype).max + 1, 4), np.uint8)
            for index, colour in source.colormap(raster.bands[0]).items():
                table[index] = colour
            return table[values[0], :3].transpose(2, 0, 1), valid  # HWC -> CHW
    if np.issubdtype(values.dtype, np.floating):
        valid &= np.isfinite(values).all(axis=0)
    if raster.limits is not None:
        values = to_8bit(values, valid, raster.limits)
    return (values if len(values) == 3 else values.repeat(3, axis=0)), valid


@contextmanager
def _on_grid(raster: Raster) -> Iterator[rasterio.DatasetReader | WarpedVRT]:
    with rasterio.open(raster.path) as source:
        if raster.grid_shape == raster.shape:
            yield source
            return
        H, W = raster.grid_shape
        has_alpha = ColorInterp.alpha in source.colorinterp
        with WarpedVRT(
            source,
            src_crs=source.crs,
            crs=source.crs,
            transform=raster.grid_transform,
            height=H,
            width=W,
            resampling=Resampling.nearest if raster.palette else Resampling.bilinear,
            add_alpha=raster.has_mask and source.nodata is None and not has_alpha,
        ) as resampled:
            yield resampled


def _choose_bands(
    path: str, source: rasterio.DatasetReader, bands: Sequence[int] | None
) -> tuple[tuple[int, ...], list[str]]:
    colours = [
        band
        for band, meaning in zip(source.indexes, source.colorinterp, strict=True)
        if meaning != ColorInterp.alpha
    ]
    if not colours or source.width * source.height == 0:
        raise ValueError(f"{path}: is empty")
    notes = []
    if bands is None:
        bands = colours[:3] if len(colours) >= 3 else colours[:1]
        is_colour = len(bands) == 3 or source.colorinterp[bands[0] - 1] == ColorInterp.palette
        notes = [] if is_colour else ["has no three colour bands; its first is taken as grey"]
    if missing := [band for band in bands if band not in source.indexes]:
        raise ValueError(f"{path}: has bands 1 to {source.count}, --bands asks for {missing[0]}")
    if complex_ := [b for b in bands if np.dtype(source.dtypes[b - 1]).kind not in "uif"]:
        raise ValueError(f"{path}: band {complex_[0]} holds {source.dtypes[complex_[0] - 1]}")
    return tuple(bands), notes


def _is_georeferenced(source: rasterio.DatasetReader) -> bool:
    return source.crs is not None or _has_transform(source) or bool(source.gcps[0])


def _has_transform(source: rasterio.DatasetReader) -> bool:
    return source.transform != Affine.identity()


def _pixel_sides_m(
    path: str, source: rasterio.DatasetReader
) -> tuple[tuple[float, float] | None, str | None]:
    """Height and width in metres of the pixel in the middle, or why they are not known."""
    if not _has_transform(source):
        hint = ", only ground control points: warp it first" if source.gcps[0] else ""
        return None, f"has no georeference{hint}"
    if source.transform.determinant == 0:
        raise ValueError(f"{path}: its transform maps all pixels to a line")
    if source.crs is None:
        return None, "has no CRS"
    H, W = source.shape
    corners = np.array([(W / 2, H / 2), (W / 2, H / 2 + 1), (W / 2 + 1, H / 2)])
    try:
        crs = crs_name(source.crs)
        ground = PixelGrid.of(source.shape, transform=source.transform, crs=crs)
        middle, below, right = ground.to_ground(corners)
    except (ValueError, ProjError) as error:
        return None, f"its CRS cannot be turned into metres ({error})"
    sides_m = math.dist(middle, below), math.dist(middle, right)
    if not all(0 < side_m < math.inf for side_m in sides_m):
        return None, "its transform does not fit its CRS"
    return sides_m, None
