"""The files that a person takes home: mask, graph and picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import rasterio

from utils.demo.picture import Place
from utils.demo.roads import Roads
from utils.encoding import encoded
from utils.files import atomic_path
from utils.topology.export import write_graph

#: What a result may be taken home as, with the end of the file's name.
MASK, GEOJSON, GEOPACKAGE, VIEW = "mask", "geojson", "gpkg", "view"
DATA = (MASK, GEOJSON, GEOPACKAGE)


def write_mask(roads: Roads, folder: Path, name: str) -> Path:
    """The mask, 0 and 255: a GeoTIFF where the image was georeferenced, else a PNG."""
    values = roads.mask.astype(np.uint8) * 255
    if roads.place is None:
        return write_picture(values, folder / f"{name}_mask.png")
    path = folder / f"{name}_mask.tif"
    _write_geotiff(values, roads.place, path)
    return path


def write_roads(roads: Roads, folder: Path, name: str, suffix: str) -> Path:
    """The road graph in the format that `suffix` ("geojson", "gpkg") names."""
    path = folder / f"{name}_roads.{suffix}"
    write_graph(roads.graph, path)
    return path


def write_picture(pixels: np.ndarray, path: Path) -> Path:
    """Grey or RGB uint8 in the format of the suffix."""
    ordered = pixels if pixels.ndim == 2 else pixels[..., ::-1]  # RGB -> BGR
    quality = [cv2.IMWRITE_JPEG_QUALITY, 90] if path.suffix == ".jpg" else []
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded(path.suffix, ordered, quality))
    return path


def _write_geotiff(values: np.ndarray, place: Place, path: Path) -> None:
    H, W = values.shape
    profile = {
        "driver": "GTiff",
        "height": H,
        "width": W,
        "count": 1,
        "dtype": "uint8",
        "transform": place.transform,
        "crs": place.crs,
        "compress": "deflate",
    }
    with atomic_path(path) as temporary, rasterio.open(temporary, "w", **profile) as target:
        target.write(values, 1)
