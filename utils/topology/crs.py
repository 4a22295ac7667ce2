"""Coordinate reference systems: which are metric, and coordinates brought into one that is."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from pyproj import CRS, Transformer
from pyproj.aoi import AreaOfInterest
from pyproj.database import query_utm_crs_info
from pyproj.exceptions import CRSError, ProjError

WGS84 = "EPSG:4326"
#: Farther from its middle a UTM zone's metres are 3 % too long, and ever longer.
MOST_DEGREES = 15


def crs_name(crs: object) -> str:
    """A CRS (pyproj's, rasterio's, or text) as text that `pyproj` reads: EPSG:1234 or WKT.

    Raises ValueError for what is none.
    """
    parsed = _parsed(crs)
    code = parsed.to_epsg()
    return f"EPSG:{code}" if code else parsed.to_wkt()


def metric_crs(crs: str, points: np.ndarray) -> str:
    """`crs` itself when its unit is a true metre, else the UTM zone of the mean of `points`.

    Mercator does not count as metric: its metre shrinks with the latitude. Raises ValueError for
    what is no CRS, for points without a UTM zone, and for those that reach too far for one.
    """
    if _is_metric(crs):
        return crs
    longitudes, latitudes = to_crs(points, crs, WGS84).T
    longitude, latitude = _middle(longitudes), latitudes.mean()
    if not -80 <= latitude <= 84:
        raise ValueError(f"no UTM zone at latitude {latitude:.2f}: reproject to a metric CRS")
    where = AreaOfInterest(longitude, latitude, longitude, latitude)
    return f"EPSG:{query_utm_crs_info('WGS 84', where)[0].code}"


def _middle(longitudes: np.ndarray) -> float:
    """Their mean, on both sides of the 180th meridian, too."""
    somewhere = np.rad2deg(np.angle(np.exp(1j * np.deg2rad(longitudes)).sum()))
    offsets = (longitudes - somewhere + 180) % 360 - 180
    reach = np.abs(offsets - offsets.mean()).max()
    if reach > MOST_DEGREES:
        raise ValueError(
            f"reaches {reach:.0f} degrees east or west of its middle, too far for one UTM zone: "
            "cut it into parts, or reproject it to a metric CRS"
        )
    return float((somewhere + offsets.mean() + 180) % 360 - 180)


def to_crs(points: np.ndarray, source: str, target: str) -> np.ndarray:
    """Points (P x 2: x or longitude, y or latitude) from one CRS in another.

    Raises ValueError where they have no place in it.
    """
    if source == target:
        return points
    moved = np.stack(_transformer(source, target).transform(*points.T), axis=1)
    if not np.isfinite(moved).all():
        raise ValueError(f"coordinates that {_parsed(source).name} does not have")
    return moved


def _parsed(crs: object) -> CRS:
    try:
        return CRS.from_user_input(crs)
    except CRSError:
        raise ValueError(f"unknown CRS {str(crs)!r}") from None


@lru_cache(maxsize=64)
def _is_metric(crs: str) -> bool:
    parsed = _parsed(crs)
    operation = parsed.coordinate_operation
    mercator = operation is not None and "mercator" in operation.method_name.lower()
    transverse = operation is not None and "transverse" in operation.method_name.lower()
    in_metres = all(axis.unit_conversion_factor == 1 for axis in parsed.axis_info)
    return parsed.is_projected and in_metres and (transverse or not mercator)


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> Transformer:
    try:
        return Transformer.from_crs(_parsed(source), _parsed(target), always_xy=True)
    except ProjError:
        names = _parsed(source).name, _parsed(target).name
        raise ValueError("no way leads from CRS {!r} to {!r}".format(*names)) from None
