"""SpaceNet 3 and 5: chips and their lines, 11-bit values to 8 bits, lines to masks.

The lines of a chip are buffered in the UTM zone of the chip, so that a width is metres on the
ground, and drawn in the chip's own grid.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import shapely
import shapely.geometry
from rasterio.features import rasterize

from utils.dataset_check import in_threads
from utils.decoding import read_header
from utils.pairing import listed
from utils.preparation.sources import Found, Source
from utils.topology.crs import WGS84, crs_name, metric_crs, to_crs

#: A road without a width is as wide as its lanes, and at least as wide as a parking lot's aisle.
LANE_M = 3.5
LEAST_WIDTH_M = 8.0
WIDTH_KEYS = ("width_m", "width")
LANE_KEYS = ("lane_number", "lane_numbe", "lanes")

#: The share of a city's darkest and of its brightest values that a stretch to 8 bits cuts off.
PERCENTILES = (2.0, 98.0)
#: Every how manyth pixel, along both axes, is looked at for them.
STRETCH_STEP = 8
VALUES = 1 << 16

_IMAGES = ("ps-rgb", "rgb-pansharpen")
_LINES = ("geojson_roads", "spacenetroads", "geojson_roads_speed", "")  # the first found is taken
_KEY = re.compile(r"(AOI_\d+_[A-Za-z]+).*?((?:img|chip)\d+)")


class Stretch(NamedTuple):
    """Values that become 1 and 255, of red, green and blue."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def apply(self, values: np.ndarray) -> np.ndarray:
        """uint8 H W 3 of values H W 3; 0 is kept for pixels without data."""
        low, high = np.array(self.low, np.float32), np.array(self.high, np.float32)
        scaled = 1 + (values.astype(np.float32) - low) * (254 / np.maximum(high - low, 1))
        return np.rint(scaled.clip(1, 255)).astype(np.uint8)


def find_spacenet(src: Path) -> Found:
    """Chips of any number of cities below `src`, with their lines."""
    images, nameless = _by_key(
        path
        for path in sorted([*src.rglob("*.tif"), *src.rglob("*.tiff")])
        if any(kind in _place(path, src) for kind in _IMAGES)
    )
    every_line, nameless_lines = _by_key(
        path for path in sorted(src.rglob("*.geojson")) if "building" not in _place(path, src)
    )
    lines = {key: _preferred(paths) for key, paths in every_line.items()}
    found = Found([], [], [])
    without = []
    for key, paths in images.items():
        if len(paths) > 1:
            names = listed(str(path.relative_to(src)) for path in paths)
            found.problems.append(f"{src}: several images of {key}: {names}")
        elif key not in lines:
            without.append(paths[0])
        else:
            city = _KEY.match(key)[1]
            found.sources.append(Source(key, paths[0], lines[key], city))
    tests = [path for path in without if "test" in _place(path, src)]
    if tests:
        found.notes.append(f"{src}: {len(tests)} test chips without lines are left out")
    if missing := listed(path.name for path in without if path not in tests):
        found.problems.append(f"{src}: images without lines: {missing}")
    if lonely := listed(lines[key].name for key in lines.keys() - images.keys()):
        found.problems.append(f"{src}: lines without an image: {lonely}")
    if nameless or nameless_lines:
        names = listed(path.name for path in nameless + nameless_lines)
        found.problems.append(f"{src}: no AOI_N_City and imgN in the names of: {names}")
    return found


def chip_problem(source: Source) -> str | None:
    """What headers and lines tell before anything is drawn."""
    problems = []
    try:
        read_header(source.image)
        with rasterio.open(source.image) as chip:
            if chip.crs is None:
                problems.append(f"{source.image}: no coordinate reference system to place lines by")
            if chip.count < 3:
                problems.append(f"{source.image}: {chip.count} bands, expected three or more")
    except ValueError as error:
        problems.append(str(error))
    try:
        _read_lines(source.label)
    except ValueError as error:
        problems.append(str(error))
    return "\n".join(problems) or None


def stretches(sources: Sequence[Source]) -> dict[str, Stretch]:
    """How the 16-bit chips of each city become 8-bit; cities with 8-bit chips are left out."""
    totals: dict[str, np.ndarray] = {}
    found = in_threads(_histogram, sources, "spacenet: brightness of the cities")
    for source, counts in zip(sources, found, strict=True):
        if counts is not None:
            totals[source.part] = totals.get(source.part, 0) + counts
    return {city: _stretch(counts) for city, counts in totals.items() if counts.any()}


def _histogram(source: Source) -> np.ndarray | None:
    """How often each 16-bit value occurs, 3 x 65536; None for an 8-bit chip."""
    with rasterio.open(source.image) as chip:
        if chip.dtypes[0] == "uint8":
            return None
        size = [-(-side // STRETCH_STEP) for side in chip.shape]
        bands = chip.read([1, 2, 3], out_shape=(3, *size)).clip(0, VALUES - 1).astype(np.int64)
    valid = (bands > 0).any(axis=0)
    return np.stack([np.bincount(band[valid], minlength=VALUES) for band in bands])


def _stretch(counts: np.ndarray) -> Stretch:
    """The least values that the percentiles' shares do not exceed."""
    reached = counts.cumsum(axis=1) / counts.sum(axis=1, keepdims=True)
    low, high = ((reached < percentile / 100).sum(axis=1) for percentile in PERCENTILES)
    return Stretch(tuple(map(float, low)), tuple(map(float, high)))


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
    lines, properties, lines_crs = _read_lines(path)
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


def _read_lines(path: Path) -> tuple[list[shapely.Geometry], list[dict[str, Any]], str]:
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


def _by_key(paths: Iterable[Path]) -> tuple[dict[str, list[Path]], list[Path]]:
    """Files by chip (AOI_2_Vegas_img7), and those whose names tell none."""
    found: dict[str, list[Path]] = defaultdict(list)
    nameless = []
    for path in paths:
        match = _KEY.search(path.stem)
        if match:
            found[f"{match[1]}_{match[2]}"].append(path)
        else:
            nameless.append(path)
    return dict(sorted(found.items())), nameless


def _preferred(paths: list[Path]) -> Path:
    """Of several files of lines the plain ones: the others repeat them with speeds."""

    def rank(path: Path) -> int:
        return next(i for i, kind in enumerate(_LINES) if kind in (path.parent.name, ""))

    return min(paths, key=rank)


def _place(path: Path, src: Path) -> str:
    return str(path.relative_to(src.parent)).lower()


def _number(value: Any) -> float:
    """0 for what is no positive number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if 0 < number < float("inf") else 0.0
