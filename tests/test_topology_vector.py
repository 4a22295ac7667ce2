"""Vector files to graphs and back, on made lines and on SpaceNet's labels of Las Vegas."""

from __future__ import annotations

import json
import logging

import geopandas
import networkx as nx
import numpy as np
import pytest
import rasterio.features
import shapely
from pyproj import Geod
from rasterio.transform import from_origin

from utils.topology.apls import apls
from utils.topology.crs import metric_crs
from utils.topology.export import write_graph
from utils.topology.from_mask import mask_to_graph
from utils.topology.from_vector import read_centre_lines, vector_to_graph
from utils.topology.graph import (
    Edge,
    GraphError,
    RoadGraph,
    check_graph,
    graph_from_json,
    read_graph_json,
    straight_graph,
)

UTM = "EPSG:32611"
ORIGIN = np.array([664_000.0, 4_012_000.0])


def write_lines(path, *lines, crs=UTM, origin=ORIGIN):
    geometry = [shapely.LineString(np.array(line) + origin) for line in lines]
    frame = geopandas.GeoDataFrame(geometry=geometry, crs=crs)
    frame.to_file(path, driver="GPKG" if path.suffix == ".gpkg" else "GeoJSON")
    return path


def write_geojson(path, *lines, **more):
    features = [
        {"type": "Feature", "properties": {}, "geometry": {"type": "LineString", "coordinates": c}}
        for c in lines
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", **more, "features": features}))
    return path


def test_crossing_lines_are_split(tmp_path):
    path = write_lines(tmp_path / "a.gpkg", [(0, 50), (100, 50)], [(50, 0), (50, 100)])
    graph = check_graph(vector_to_graph(path))
    assert sorted(graph.degrees()) == [1, 1, 1, 1, 4]
    assert graph.crs == UTM


def test_an_end_that_misses_its_road_by_rounding_is_joined(tmp_path):
    path = write_lines(tmp_path / "a.gpkg", [(0, 0), (97, 31)], [(48.5, 15.5 + 1e-7), (48.5, 90)])
    assert sorted(vector_to_graph(path).degrees()) == [1, 1, 1, 3]


def test_vertices_and_feature_limits_make_no_node(tmp_path):
    path = write_lines(tmp_path / "a.gpkg", [(0, 0), (50, 0), (100, 9)], [(100, 9), (150, 0)])
    assert sorted(vector_to_graph(path).degrees()) == [1, 1]


def test_closed_road_has_no_self_loop(tmp_path):
    ring = [(0, 0), (50, 0), (50, 50), (0, 50), (0, 0)]
    graph = check_graph(vector_to_graph(write_lines(tmp_path / "a.gpkg", ring)))
    assert graph.total_length_m == pytest.approx(200)


def test_longitude_and_latitude_become_metres(tmp_path):
    path = write_geojson(tmp_path / "a.geojson", [[-115.17, 36.24], [-115.17, 36.241]])
    graph = vector_to_graph(path)
    assert graph.crs == UTM
    assert graph.total_length_m == pytest.approx(110.97, abs=0.1)  # a thousandth of a degree


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:2263", "EPSG:4269"])
def test_degrees_feet_and_mercator_are_not_metric(crs):
    points = {"EPSG:3857": (-8238310, 4970072), "EPSG:2263": (987654, 212345)}
    point = points.get(crs, (-74.0, 40.7))
    assert metric_crs(crs, np.array([point], dtype=float)) == "EPSG:32618"


@pytest.mark.parametrize("line", [[(179.99, -16.5), (-179.99, -16.5)],
                                  [(179.99, -16.5), (180, -16.5), (-179.99, -16.5)]])  # fmt: skip
def test_a_road_across_the_180th_meridian(tmp_path, line):
    """As long as Geod says, and crossed by a road beside the meridian."""
    across = [(179.995, -16.51), (179.995, -16.49)]
    path = write_lines(tmp_path / "a.gpkg", line, across, crs="EPSG:4326", origin=0)
    graph = vector_to_graph(path)
    expected = sum(Geod(ellps="WGS84").line_length(*np.transpose(x)) for x in (line, across))
    assert graph.total_length_m == pytest.approx(expected, rel=1e-3)
    assert graph.crs in ("EPSG:32760", "EPSG:32701") and max(graph.degrees()) == 4


def test_lines_around_the_world_are_refused(tmp_path):
    around = [(x, 10) for x in range(-180, 181, 10)]
    path = write_lines(tmp_path / "a.gpkg", around, crs="EPSG:4326", origin=0)
    with pytest.raises(ValueError, match="175 degrees east or west of its middle, too far"):
        vector_to_graph(path)
    path = write_lines(tmp_path / "b.gpkg", [(-2e7, 0), (2e7, 0)], crs="EPSG:4087", origin=0)
    with pytest.raises(GraphError, match="line 0 runs 40,000 km without a bend"):
        vector_to_graph(path)
    values = {"nodes": [[0, 0], [4e7, 0]], "edges": [[0, 1, 4e7]]}
    with pytest.raises(GraphError, match="edge 0 runs 40,000 km without a bend"):
        graph_from_json(values)


def test_projected_metres_stay():
    assert metric_crs("EPSG:25832", np.array([(500000.0, 5400000)])) == "EPSG:25832"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"no json", "cannot be read"),
        (b'{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, '
         b'"geometry": {"type": "Polygon", "coordinates": [[[0,0],[1,0],[1,1],[0,0]]]}}]}',
         "expected lines, found Polygon"),
        (b'{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, '
         b'"geometry": {"type": "LineString", "coordinates": [[0, 0]]}}]}', "a line of one point"),
    ],
)  # fmt: skip
def test_unreadable_files_are_refused(tmp_path, content, message):
    path = tmp_path / "a.geojson"
    path.write_bytes(content)
    with pytest.raises(GraphError, match=message):
        read_centre_lines(path)


def test_lines_without_length_nan_or_crs_are_refused(tmp_path):
    with pytest.raises(GraphError, match="line 1 has no length"):
        read_centre_lines(write_lines(tmp_path / "a.gpkg", [(0, 0), (9, 9)], [(5, 5), (5, 5)]))
    with pytest.raises(GraphError, match="not a finite number"):
        read_centre_lines(write_lines(tmp_path / "b.gpkg", [(0, 0), (9, np.nan)]))
    geographic = [(-115.17, 36.24), (-115.17, 36.241)]
    path = write_lines(tmp_path / "c.gpkg", geographic, crs=None, origin=0)
    with pytest.raises(GraphError, match="geographic coordinates without a CRS"):
        read_centre_lines(path)
    path = write_geojson(tmp_path / "d.geojson", geographic, crs=None)
    with pytest.raises(GraphError, match="geographic coordinates without a CRS"):
        read_centre_lines(path)


def test_a_crs_that_nobody_knows_is_refused(tmp_path):
    """GDAL would take the coordinates for longitude and latitude."""
    line = [[664_000, 4_012_000], [664_000, 4_012_100]]
    named = {"type": "name", "properties": {"name": "EPSG:99999999"}}
    with pytest.raises(ValueError, match="unknown CRS 'EPSG:99999999'"):
        read_centre_lines(write_geojson(tmp_path / "a.geojson", line, crs=named))
    with pytest.raises(GraphError, match="crs: expected"):
        read_centre_lines(write_geojson(tmp_path / "b.geojson", line, crs="EPSG:32611"))
    with pytest.raises(ValueError, match="no way leads from CRS 'site'"):
        metric_crs('LOCAL_CS["site", UNIT["metre", 1]]', np.zeros((1, 2)))


def test_coordinates_outside_their_crs_are_refused(tmp_path):
    path = write_lines(
        tmp_path / "a.gpkg", [(10, 89.9), (10, 95)], [(10, 1), (10, 2)], crs="EPSG:4326", origin=0
    )
    with pytest.raises(ValueError, match="coordinates that WGS 84 does not have"):
        vector_to_graph(path)


def test_layers_of_different_crs_are_refused(tmp_path):
    path = tmp_path / "a.gpkg"
    for layer, crs in (("a", "EPSG:32611"), ("b", "EPSG:32612")):
        frame = geopandas.GeoDataFrame(geometry=[shapely.LineString([(0, 0), (9, 9)])], crs=crs)
        frame.to_file(path, layer=layer, driver="GPKG")
    with pytest.raises(GraphError, match="mixed CRS in one file: EPSG:32611, EPSG:32612"):
        read_centre_lines(path)


def test_twins_count_once_and_are_told_of(tmp_path, caplog):
    path = write_lines(tmp_path / "a.gpkg", [(0, 0), (90, 0)], [(90, 0), (0, 0)])
    with caplog.at_level(logging.WARNING):
        assert len(read_centre_lines(path).lines) == 1
    assert "1 lines stand twice" in caplog.text


def test_file_without_a_line_is_an_empty_graph(tmp_path):
    assert vector_to_graph(write_geojson(tmp_path / "a.geojson")).is_empty


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".json"])
@pytest.mark.parametrize("crs", [UTM, None])
def test_written_graph_is_read_back(tmp_path, suffix, crs):
    origin = ORIGIN if crs else np.zeros(2)
    source = vector_to_graph(
        write_lines(tmp_path / "a.gpkg", [(0, 50), (150, 50)], [(50, 0), (50, 100)], crs=crs,
                    origin=origin))  # fmt: skip
    path = tmp_path / f"b{suffix}"
    write_graph(source, path)
    again = read_graph_json(path) if suffix == ".json" else vector_to_graph(path, crs)
    assert again.crs == crs
    assert len(again.edges) == 4
    assert apls(source, again).apls == pytest.approx(1, abs=1e-4)


def test_graphml_holds_all_of_a_multigraph(tmp_path):
    bend = np.array([(0, 0), (15, 31.25), (30, 40)], float)
    graph = straight_graph([(0, 0), (30, 40), (30, 90)], [(0, 1), (1, 2)])
    graph = RoadGraph(graph.nodes, (*graph.edges, Edge(0, 1, 61.5, bend)), UTM)
    write_graph(graph, tmp_path / "a.graphml")
    again = nx.read_graphml(tmp_path / "a.graphml", node_type=int)
    assert again.graph["crs"] == UTM
    assert [(n["x"], n["y"]) for _, n in sorted(again.nodes(data=True))] == [
        *map(tuple, graph.nodes)
    ]
    found = sorted(
        (*sorted(ends), edge["length_m"], edge["line"]) for *ends, edge in again.edges(data=True)
    )
    assert [edge[:3] for edge in found] == [(0, 1, 50), (0, 1, 61.5), (1, 2, 50)]
    assert shapely.get_coordinates(shapely.from_wkt(found[1][3])).tolist() == bend.tolist()


def test_empty_graph_is_written_everywhere(tmp_path):
    for suffix in (".geojson", ".gpkg", ".graphml", ".json"):
        write_graph(straight_graph([], []), tmp_path / f"a{suffix}")
    assert vector_to_graph(tmp_path / "a.geojson").is_empty
    with pytest.raises(ValueError, match=r"one of: \.geojson"):
        write_graph(straight_graph([], []), tmp_path / "a.shp")


@pytest.fixture(scope="module")
def vegas(real_data):
    return vector_to_graph(real_data / "spacenet_vegas" / "AOI_2_Vegas_img0.geojson")


def test_vegas_against_itself(vegas):
    check_graph(vegas)
    assert apls(vegas, vegas).apls == pytest.approx(1, abs=1e-9)
    assert apls(vegas, vegas, displace=False).apls == pytest.approx(1, abs=1e-9)


def test_vegas_against_its_raster(vegas):
    """12 pixels wide at 0.3 m, extracted again: what the way over a mask costs."""
    left, low, right, high = shapely.total_bounds(vegas.lines)
    transform = from_origin(left - 10, high + 10, 0.3, 0.3)
    shape = int((high - low + 20) / 0.3), int((right - left + 20) / 0.3)
    roads = shapely.buffer(vegas.lines, 6 * 0.3)
    mask = rasterio.features.rasterize(roads, shape, transform=transform).astype(bool)
    extracted = check_graph(mask_to_graph(mask, transform=transform, crs=vegas.crs))
    assert apls(vegas, extracted).apls >= 0.90
    assert apls(vegas, extracted, displace=False).apls >= 0.90
