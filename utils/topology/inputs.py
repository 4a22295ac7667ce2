"""What a person gives to be compared: masks, probability maps, vector files, exchange JSON."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

from utils.decoding import decode
from utils.imageio import looks_like_photo, road_mask
from utils.pairing import EXTENSIONS
from utils.topology.crs import crs_name, metric_crs
from utils.topology.from_vector import CentreLines, read_centre_lines
from utils.topology.graph import GraphError, RoadGraph, graph_from_json, read_json
from utils.topology.grid import PixelGrid

RASTERS = (*EXTENSIONS, ".npy")
VECTORS = (".geojson", ".gpkg", ".json")


@dataclass(frozen=True)
class Raster:
    """A mask (bool H x W) or a map of probabilities (float32 H x W) and where it lies."""

    values: np.ndarray
    valid: np.ndarray  # bool H x W: False where the file says that it has no data
    transform: Affine | None = None
    crs: str | None = None
    looks_like_photo: bool = False  # and is scored as it is

    @property
    def is_probability(self) -> bool:
        return self.values.dtype != bool

    def grid(self, pixel_size_m: float, target_crs: str | None = None) -> PixelGrid:
        return PixelGrid.of(self.values.shape, pixel_size_m, self.transform, self.crs, target_crs)


Given = Raster | CentreLines | RoadGraph


def read_given(path: Path, *, truth: bool) -> Given:
    """A file of either side; ValueError says in one line why it cannot be had.

    A raster of two values is a mask; of more, for the truth a lossy mask, else probabilities:
    floats from 0 to 1, or whole numbers up to their type's largest.
    """
    suffix = path.suffix.lower()
    if suffix not in (*RASTERS, *VECTORS):
        kinds = ", ".join((*RASTERS, *VECTORS))
        raise ValueError(f"cannot read {suffix or 'a file without suffix'}; one of: {kinds}")
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")
    if suffix == ".json":
        return _read_json(path)
    if suffix in VECTORS:
        return read_centre_lines(path)
    return _read_array(path, truth) if suffix == ".npy" else _read_image(path, truth)


def _read_json(path: Path) -> Given:
    values = read_json(path)
    if isinstance(values, dict) and values.get("type") == "FeatureCollection":
        return read_centre_lines(path)
    graph = graph_from_json(values)
    if graph.crs is not None and metric_crs(graph.crs, graph.nodes) != graph.crs:
        raise GraphError(f"exchange JSON is in metres, and {graph.crs} is not")
    return graph


def _read_array(path: Path, truth: bool) -> Raster:
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError):
        raise ValueError("not an array of numbers in .npy format") from None
    if values.dtype.kind not in "biuf":
        raise ValueError(f"expected an array of numbers, got {values.dtype}")
    values = values.squeeze()
    if values.ndim != 2:
        raise ValueError(f"expected an array of H x W, got {values.shape}")
    return Raster(_mask_or_probability(values[..., None], truth), np.ones(values.shape, bool))


def _read_image(path: Path, truth: bool) -> Raster:
    values, has_data = decode(path, palette_indices=True)
    valid = np.ones(values.shape[:2], bool) if has_data is None else has_data
    values = np.where(valid[..., None], values, 0)
    # a grey prediction may be of probabilities
    photo = (truth or bool((values != values[..., :1]).any())) and looks_like_photo(values)
    raster = Raster(_mask_or_probability(values, truth), valid, looks_like_photo=photo)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as source:
            if source.crs is None or source.shape != raster.values.shape:
                return raster
            return replace(raster, transform=source.transform, crs=crs_name(source.crs))


def _mask_or_probability(values: np.ndarray, truth: bool) -> np.ndarray:
    """H W C of a file to bool or float32 H W."""
    if values.dtype == bool:
        return values.any(axis=2)
    if not np.isfinite(values).all():
        raise ValueError("holds values that are not finite numbers")
    low, high = values.min(initial=0), values.max(initial=0)
    if low < 0:
        raise ValueError(f"holds values down to {low:g}; roads are marked by numbers above 0")
    two_valued = not ((values != 0) & (values != high)).any()
    floating = np.issubdtype(values.dtype, np.floating)
    if floating and high > 1 and not two_valued:
        raise ValueError(f"holds floats up to {high:g}; probabilities lie from 0 to 1")
    if two_valued and (not floating or high in (0, 1) or truth):
        return (values != 0).any(axis=2)
    if truth:
        return (values >= 0.5).any(axis=2) if floating else road_mask(values).astype(bool)
    full = 1.0 if floating else np.iinfo(values.dtype).max
    return (values.max(axis=2) / full).astype(np.float32)
