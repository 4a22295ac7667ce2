"""The graph type: what is refused, and what survives a trip through JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from utils.topology.graph import (
    GraphError,
    graph_from_json,
    graph_from_lines,
    graph_to_json,
    open_parts,
    read_graph_json,
    straight_graph,
)

NODES = [[0, 0], [400, 0], [400, 300]]


def exchange(edges, nodes=NODES, **more):
    return {"nodes": nodes, "edges": edges, **more}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "not a road graph"),
        ({"nodes": []}, "not a road graph"),
        (exchange([[0, 0, 5, []]]), "edge 0 is a self-loop at node 0"),
        (exchange([[0, 1, 0, [[0, 0], [400, 0]]]]), "edge 0 has no length"),
        (exchange([[0, 1, 5, []]], [[0, 0], [0, 0]]), "edge 0 has no length"),
        (exchange([[0, 1, 400, []], [1, 0, 400, []]]), "edge 1 is the same as edge 0"),
        (exchange([[0, 1, 400, []]], [[0, 0], [float("nan"), 0]]), "node 1 has a coordinate"),
        (exchange([[0, 1, float("inf"), []]]), "edge 0 has a coordinate or a length"),
        (exchange([[0, 3, 400, []]]), "edge 0 names a node that is none of the 3"),
        (exchange([[0, -1, 400, []]]), "edge 0 names a node"),
        (exchange([[0, True, 400, []]]), "edge 0 names a node"),
        (exchange([[0, 1, "400", []]]), "edge 0: its length '400' is not a number"),
        (exchange([[0, 1]]), "edge 0: expected"),
        (exchange([[0, 1, 400, [[0, 0], [390, 0]]]]), "ends 10.00 m from its node"),
        (exchange([[0, 1, 400, [[0, 0, 1], [400, 0, 1]]]]), "edge 0: expected a list of"),
        (exchange([], ["a"]), "nodes: expected a list of"),
        (exchange([], [["0", "0"], ["9", "9"]]), "nodes: expected a list of"),
        (exchange([], [[10**400, 0], [9, 9]]), "nodes: expected a list of"),
        (exchange([[0, 1, 10**400, []]]), r"its length 1000\d+ is not a number"),
        (exchange([], crs=4326), "crs: expected a text"),
        (exchange([[0, 1, 111, []]], [[-115.1, 36.2], [-115.1, 36.201]]), "without a CRS"),
        (exchange([[0, 1, 0.001, []]], [[-115.1, 36.2], [-115.1, 36.201]]), "without a CRS"),
    ],
)
def test_unsound_json_is_refused_in_one_line(values, message):
    with pytest.raises(GraphError, match=message) as caught:
        graph_from_json(values)
    assert "\n" not in str(caught.value)


def test_json_keeps_everything(tmp_path):
    values = exchange([[0, 1, 410.5, [[0, 0], [200, 50], [400, 0]]], [1, 2, 300, []]])
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(values))
    graph = read_graph_json(path)
    assert graph.lengths_m.tolist() == [410.5, 300]
    again = graph_from_json(json.loads(json.dumps(graph_to_json(graph))))
    assert graph_to_json(again) == graph_to_json(graph)
    assert graph_to_json(graph)["edges"][0] == [0, 1, 410.5, [[0, 0], [200, 50], [400, 0]]]


def test_parallel_roads_of_different_course_are_kept():
    graph = graph_from_json(exchange([[0, 1, 400, []], [0, 1, 450, [[0, 0], [200, 99], [400, 0]]]]))
    assert len(graph.edges) == 2


def test_a_polyline_given_backwards_is_turned():
    graph = graph_from_json(exchange([[1, 0, 400, [[0, 0], [100, 1], [400, 0]]]]))
    assert graph.edges[0].line.tolist() == [[400, 0], [100, 1], [0, 0]]


def test_a_small_graph_in_metres_is_not_taken_for_degrees():
    assert graph_from_json(exchange([[0, 1, 50, []]], [[0, 0], [50, 0]])).total_length_m == 50


def test_not_json(tmp_path):
    path = tmp_path / "graph.json"
    for content in (b"\xff\xfe nothing", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(GraphError, match="not valid JSON"):
            read_graph_json(path)


def test_a_ring_becomes_two_edges_between_two_nodes():
    ring = np.array([(0, 0), (10, 0), (10, 10), (0, 10), (0, 0)], dtype=float)
    graph = graph_from_lines([ring])
    assert graph.ends.tolist() == [[0, 1], [1, 0]]
    assert graph.lengths_m.tolist() == [20, 20]
    assert graph.nodes.tolist() == [[0, 0], [10, 10]]


def test_a_line_there_and_back_is_one_road():
    (part,) = open_parts(np.array([(0, 0), (10, 0), (0, 0)], dtype=float))
    assert part.tolist() == [[0, 0], [10, 0]]


def test_straight_graph_measures_its_edges():
    graph = straight_graph([(0, 0), (3, 4)], [(0, 1)])
    assert graph.total_length_m == 5
    assert graph.degrees().tolist() == [1, 1]
