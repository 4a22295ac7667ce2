"""Road lines as masks: buffered in the UTM zone of the image, so that a width is metres on the
ground, and drawn in the image's own grid.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
import shapely.geometry
from rasterio.features import rasterize

from utils.topology.crs import WGS84, crs_name, metric_crs, to_crs

#: A road without a width is as wide as its lanes, and at least as wide as a parking lot's aisle.
LANE_M = 3.5
LEAST_WIDTH_M = 8.0
WIDTH_KEYS = ("width_m", "width")
LANE_KEYS = ("lane_number", "lane_numbe", "lanes")


def draw_lines(path: Path, chip: Path, width_m: float | None) -> np.ndarray:
    """The road mask of a chip, uint8 H W in {0, 1}.

    A pixel is road when its centre is. `width_m` None: by the lines' own width or lanes
    (`road_width_m`). Raises ValueError, one line, for what is no GeoJSON of lines.
    """
    with rasterio.open(chip) as source:
        crs, transform, shape = source.crs, source.transform, source.shape
        corners = np.array([source.xy(0, 0), source.xy(*shape)])
    assert crs is not None, chip  # chip_problem looks
    mask = np.zeros(shape, np.uint8)
    lines, properties, lines_crs = read_lines(path)
    if not lines:
        return mask
    crs = crs_name(crs)
    metric = metric_crs(crs, corners)
    lines = shapely.transform(lines, lambda xy: to_crs(xy, lines_crs, metric))
    widths = [width_m or road_width_m(found) for found in properties]
    roads = shapely.buffer(lines, np.array(widths) / 2)
    roads = shapely.transform(roads, lambda xy: to_crs(xy, metric, crs))
    return rasterize(roads, out=mask, transform=transform, default_value=1, all_touched=False)


def road_width_m(properties: Mapping[str, Any]) -> float:
    """From a width in metres, else from the number of lanes; both may be text."""
    for key in WIDTH_KEYS:
        if width := _number(properties.get(key)):
            return width
    lanes = next((n for key in LANE_KEYS if (n := _number(properties.get(key)))), 0)
    return max(LEAST_WIDTH_M, LANE_M * lanes)


def read_lines(path: Path) -> tuple[list[shapely.Geometry], list[dict[str, Any]], str]:
    """Lines, their properties, and their CRS: longitude and latitude unless the file says more."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        features = [feature for feature in content["features"] if feature["geometry"]]
        lines = [shapely.geometry.shape(feature["geometry"]) for feature in features]
        named = (content.get("crs") or {}).get("properties", {}).get("name")
    except (ValueError, TypeError, LookupError, AttributeError, shapely.errors.ShapelyError):
        raise ValueError(f"{path}: cannot be read as GeoJSON") from None
    kinds = {line.geom_type for line in lines} - {"LineString", "MultiLineString"}
    if kinds:
        raise ValueError(f"{path}: expected lines, found {', '.join(sorted(kinds))}")
    if not np.isfinite(shapely.get_coordinates(lines)).all():
        raise ValueError(f"{path}: a line has a coordinate that is not a finite number")
    properties = [feature.get("properties") or {} for feature in features]
    return lines, properties, crs_name(named) if named else WGS84


def _number(value: Any) -> float:
    """0 for what is no positive number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if 0 < number < float("inf") else 0.0
