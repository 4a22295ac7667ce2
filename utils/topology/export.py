"""Road graphs into files: GeoJSON, GeoPackage, GraphML and the exchange JSON."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import geopandas
import networkx as nx
import pyogrio
import shapely

from utils.files import atomic_path
from utils.topology.crs import WGS84
from utils.topology.graph import RoadGraph, graph_to_json


def write_graph(graph: RoadGraph, path: str | os.PathLike[str]) -> None:
    """Write a graph in the format that the suffix names: .geojson, .gpkg, .graphml or .json.

    GeoJSON is in longitude and latitude when the graph has a CRS, as RFC 7946 wants it, and in
    the graph's metres with "crs": null when it has none. Raises ValueError for other suffixes.
    """
    path = Path(path)
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ValueError(f"{path.name}: a road graph is written as one of: {', '.join(WRITERS)}")
    with atomic_path(path) as temporary:
        writer(graph, temporary)


def graph_to_networkx(graph: RoadGraph) -> nx.MultiGraph:
    """The graph for networkx: nodes with x and y, edges with length_m and their line as WKT."""
    result = nx.MultiGraph(crs=graph.crs or "")
    result.add_nodes_from((i, {"x": x, "y": y}) for i, (x, y) in enumerate(graph.nodes.tolist()))
    for edge, line in zip(graph.edges, graph.lines, strict=True):
        wkt = shapely.to_wkt(line, rounding_precision=-1)
        result.add_edge(edge.start, edge.end, length_m=float(edge.length_m), line=wkt)
    return result


def _edges(graph: RoadGraph) -> geopandas.GeoDataFrame:
    columns = {
        "start": graph.ends[:, 0],
        "end": graph.ends[:, 1],
        "length_m": graph.lengths_m,
    }
    return geopandas.GeoDataFrame(columns, geometry=graph.lines, crs=graph.crs)


def _nodes(graph: RoadGraph) -> geopandas.GeoDataFrame:
    columns = {"degree": graph.degrees()}
    return geopandas.GeoDataFrame(columns, geometry=shapely.points(graph.nodes), crs=graph.crs)


def write_geojson(frame: geopandas.GeoDataFrame, path: Path) -> None:
    """Features in longitude and latitude, or with "crs": null as they are when without a CRS."""
    has_crs = frame.crs is not None
    values = json.loads((frame.to_crs(WGS84) if has_crs else frame).to_json(drop_id=True))
    values.pop("crs", None)
    if not has_crs:
        values = {"type": values["type"], "crs": None, "features": values["features"]}
    path.write_text(json.dumps(values), encoding="utf-8")


def write_geopackage(frames: Mapping[str, geopandas.GeoDataFrame], path: Path) -> None:
    """Layers by name, of points or of lines, into a new file; equal ones give equal bytes."""
    path.unlink(missing_ok=True)  # GDAL would open the empty temporary file to append to it
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2000-01-01T00:00:00Z"})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        for layer, frame in frames.items():
            kind = frame.geom_type.iloc[0] if len(frame) else "LineString"
            frame.to_file(path, layer=layer, driver="GPKG", geometry_type=kind)
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def _write_graph_geojson(graph: RoadGraph, path: Path) -> None:
    write_geojson(_edges(graph), path)


def _write_graph_geopackage(graph: RoadGraph, path: Path) -> None:
    write_geopackage({"edges": _edges(graph), "nodes": _nodes(graph)}, path)


def _write_graphml(graph: RoadGraph, path: Path) -> None:
    nx.write_graphml(graph_to_networkx(graph), path)


def _write_json(graph: RoadGraph, path: Path) -> None:
    path.write_text(json.dumps(graph_to_json(graph)), encoding="utf-8")


WRITERS: dict[str, Callable[[RoadGraph, Path], None]] = {
    ".geojson": _write_graph_geojson,
    ".gpkg": _write_graph_geopackage,
    ".graphml": _write_graphml,
    ".json": _write_json,
}
