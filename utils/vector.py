"""Road lines as GeoPackage in a scene's CRS and as GeoJSON in longitude and latitude."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import shapely
from affine import Affine
from pyproj import Geod

from utils.files import atomic_path
from utils.topology.crs import WGS84, to_crs
from utils.topology.export import write_geojson, write_geopackage

LAYER = "roads"


@dataclass(frozen=True)
class RoadLines:
    """Polylines (K x 2) in the metric `crs`, or in pixels (x: column, y: row) when it is None."""

    lines: Sequence[np.ndarray]
    width_m: np.ndarray
    probability: np.ndarray  # mean along the line
    crs: str | None

    def lengths_m(self) -> np.ndarray:
        """Lengths on the ellipsoid, or in pixels."""
        if self.crs is None:
            return np.array([np.hypot(*np.diff(line, axis=0).T).sum() for line in self.lines])
        geod = Geod(ellps="WGS84")
        return np.array([geod.line_length(*to_crs(x, self.crs, WGS84).T) for x in self.lines])

    def frame(self, crs: str | None, transform: Affine | None) -> geopandas.GeoDataFrame:
        """The roads in `crs` with length, width (metres) and probability.

        Without a CRS, lengths and widths are in pixels, and are called so; the coordinates are
        those that `transform` gives to pixels, and pixels without one.
        """
        unit = "px" if self.crs is None else "m"
        columns = {
            f"length_{unit}": self.lengths_m().round(2),
            f"width_{unit}": self.width_m.round(2),
            "probability": self.probability.round(3),
        }
        lines = np.array([shapely.linestrings(line) for line in self.lines], dtype=object)
        frame = geopandas.GeoDataFrame(columns, geometry=lines, crs=self.crs)
        if self.crs is not None:
            return frame.to_crs(crs)
        if transform is not None:
            frame = frame.set_geometry(frame.affine_transform(transform.to_shapely()))
        return frame


def write_roads(frame: geopandas.GeoDataFrame, geopackage: Path, geojson: Path) -> None:
    """Write the roads in both formats."""
    with atomic_path(geopackage) as path:
        write_geopackage({LAYER: frame}, path)
    with atomic_path(geojson) as path:
        write_geojson(frame, path)
