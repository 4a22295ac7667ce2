"""Coordinate reference systems: which are metric, and coordinates brought into one that is."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from pyproj import CRS, Transformer
from pyproj.aoi import AreaOfInterest
from pyproj.database import query_utm_crs_info

WGS84 = "EPSG:4326"


def crs_name(crs: object) -> str:
    """A CRS (pyproj's, rasterio's, or text) as text that `pyproj` reads: EPSG:1234 or WKT."""
    parsed = CRS.from_user_input(crs)
    code = parsed.to_epsg()
    return f"EPSG:{code}" if code else parsed.to_wkt()


def metric_crs(crs: str, points: np.ndarray) -> str:
    """`crs` itself when its unit is a true metre, else the UTM zone of the mean of `points`.

    Mercator does not count as metric: its metre shrinks with the latitude.
    """
    if _is_metric(crs):
        return crs
    longitude, latitude = to_crs(points, crs, WGS84).mean(axis=0)
    if not -80 <= latitude <= 84:
        raise ValueError(f"no UTM zone at latitude {latitude:.2f}: reproject to a metric CRS")
    where = AreaOfInterest(longitude, latitude, longitude, latitude)
    return f"EPSG:{query_utm_crs_info('WGS 84', where)[0].code}"


def to_crs(points: np.ndarray, source: str, target: str) -> np.ndarray:
    """Points (P x 2: x or longitude, y or latitude) from one CRS in another."""
    if source == target:
        return points
    return np.stack(_transformer(source, target).transform(*points.T), axis=1)


@lru_cache(maxsize=64)
def _is_metric(crs: str) -> bool:
    parsed = CRS.from_user_input(crs)
    operation = parsed.coordinate_operation
    mercator = operation is not None and "mercator" in operation.method_name.lower()
    transverse = operation is not None and "transverse" in operation.method_name.lower()
    in_metres = all(axis.unit_conversion_factor == 1 for axis in parsed.axis_info)
    return parsed.is_projected and in_metres and (transverse or not mercator)


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)
