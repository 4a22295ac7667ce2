"""Vector files of road centre lines (GeoJSON, GeoPackage) to road graphs in a metric CRS."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import shapely

from utils.topology.crs import crs_name, metric_crs, to_crs
from utils.topology.graph import (
    GraphError,
    RoadGraph,
    endless_piece,
    graph_from_lines,
    read_json,
)

#: Crossings are computed on a grid of a millimetre, so that an end that lies on a road by its
#: coordinates' last digits is joined to it.
NODING_GRID_M = 0.001

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CentreLines:
    """The lines of a file as shapely LineStrings, in its `crs` (None: metres or pixels)."""

    lines: np.ndarray
    crs: str | None

    def metric_crs(self) -> str | None:
        """The file's own CRS when metric, else the UTM zone of its centre; None without one."""
        if self.crs is None or not len(self.lines):
            return self.crs
        return metric_crs(self.crs, shapely.get_coordinates(self.lines))


def vector_to_graph(path: str | os.PathLike[str], target_crs: str | None = None) -> RoadGraph:
    """The road graph of a GeoJSON or GeoPackage file, lines split where they cross.

    `target_crs` is by default the file's own CRS when that is metric, else the UTM zone of the
    lines' centre. Raises GraphError for a file that cannot be read or is not sound.
    """
    lines = read_centre_lines(path)
    return lines_to_graph(lines, target_crs or lines.metric_crs())


def lines_to_graph(source: CentreLines, target_crs: str | None) -> RoadGraph:
    """The road graph of lines that cross, touch and overlap as they like.

    Labels such as SpaceNet's are not split at intersections; without that no route turns.
    Nodes are ends and crossings, not the vertices between them. Raises GraphError for a line that
    no road can be.
    """
    if not len(source.lines):
        return RoadGraph(np.zeros((0, 2)), (), target_crs)
    if source.crs is None and target_crs is not None:
        raise GraphError(f"has no CRS, and {target_crs} was asked for")
    lines = source.lines
    if source.crs != target_crs:
        lines = shapely.transform(lines, lambda xy: to_crs(xy, source.crs, target_crs))
    for number, line in enumerate(lines):
        if problem := endless_piece(shapely.get_coordinates(line)):
            raise GraphError(f"line {number} {problem}")
    noded = shapely.union_all(lines, grid_size=NODING_GRID_M)
    chains = shapely.get_parts(shapely.line_merge(noded))
    chains = chains[shapely.get_type_id(chains) == shapely.GeometryType.LINESTRING]
    return graph_from_lines((shapely.get_coordinates(chain) for chain in chains), target_crs)


def read_centre_lines(path: str | os.PathLike[str]) -> CentreLines:
    """The lines of a vector file; GraphError says in one line why there are none to be had.

    Refused: what cannot be read, geometries that are no lines, coordinates that are not finite,
    lines without length, layers of different CRS, longitudes and latitudes without a CRS. Lines
    that stand twice count once, with a warning.
    """
    path = Path(path)
    frames = _read_layers(path)
    crs = {crs_name(frame.crs) if frame.crs is not None else None for frame in frames}
    if len(crs) > 1:
        named = ", ".join(sorted(str(name) for name in crs))
        raise GraphError(f"mixed CRS in one file: {named}")
    lines = np.concatenate([_lines(frame) for frame in frames])
    source = CentreLines(lines, crs.pop())
    if path.suffix.lower() != ".gpkg":
        source = CentreLines(lines, _geojson_crs(path, source))
    if source.crs is None and len(lines) and _looks_geographic(lines):
        raise GraphError("geographic coordinates without a CRS: name the CRS in the file")
    return _without_twins(source, path.name)


def _read_layers(path: Path) -> list[geopandas.GeoDataFrame]:
    """Every layer with lines; a layer of points, such as a graph's nodes, is passed over."""
    try:
        layers = pyogrio.list_layers(path)
        names = [name for name, kind in layers if kind is not None and "Point" not in kind]
        if not names:
            raise GraphError("has no layer of lines")
        frames = [geopandas.read_file(path, layer=name) for name in names]
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, UnicodeDecodeError):
        raise GraphError("cannot be read as GeoJSON or GeoPackage") from None
    except shapely.errors.ShapelyError:
        raise GraphError("has a geometry that is damaged, such as a line of one point") from None
    return [f for f in frames if isinstance(f, geopandas.GeoDataFrame)] or [
        geopandas.GeoDataFrame(geometry=[])
    ]


def _lines(frame: geopandas.GeoDataFrame) -> np.ndarray:
    geometries = np.asarray(frame.geometry.array, dtype=object)
    geometries = geometries[~(shapely.is_missing(geometries) | shapely.is_empty(geometries))]
    lines = shapely.force_2d(shapely.get_parts(geometries))
    if (shapely.get_type_id(lines) != shapely.GeometryType.LINESTRING).any():
        kinds = {g.geom_type for g in lines} - {"LineString"}
        raise GraphError(f"expected lines, found {', '.join(sorted(kinds))}")
    if not np.isfinite(shapely.get_coordinates(lines)).all():
        raise GraphError("a line has a coordinate that is not a finite number")
    without_length = np.flatnonzero(shapely.length(lines) == 0)
    if len(without_length):
        raise GraphError(f"line {without_length[0]} has no length")
    return lines


def _geojson_crs(path: Path, source: CentreLines) -> str | None:
    """The CRS of a GeoJSON file: GDAL supposes longitude and latitude where the file says none.

    "crs": null says that there is none; so do coordinates that cannot be degrees. Raises
    GraphError for a CRS that GDAL would pass over.
    """
    values = read_json(path)
    if named := values.get("crs"):
        properties = named.get("properties") if isinstance(named, dict) else None
        if not isinstance(properties, dict) or not properties.get("name"):
            raise GraphError('crs: expected {"type": "name", "properties": {"name": ...}}')
        crs_name(properties["name"])
        return source.crs
    if "crs" in values or (len(source.lines) and not _in_degrees(source.lines)):
        return None
    return source.crs


def _in_degrees(lines: np.ndarray) -> bool:
    return bool((np.abs(shapely.get_coordinates(lines)) <= (180, 90)).all())


def _looks_geographic(lines: np.ndarray) -> bool:
    """Within the range of degrees, and hardly a metre wide: no road is that short."""
    return _in_degrees(lines) and np.ptp(shapely.get_coordinates(lines), axis=0).max() < 1


def _without_twins(source: CentreLines, name: str) -> CentreLines:
    _, first = np.unique(shapely.to_wkb(shapely.normalize(source.lines)), return_index=True)
    if len(first) < len(source.lines):
        log.warning("%s: %d lines stand twice", name, len(source.lines) - len(first))
    return CentreLines(source.lines[np.sort(first)], source.crs)
