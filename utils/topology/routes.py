"""The shortest route between two places as a polyline, to be drawn."""

from __future__ import annotations

from itertools import pairwise

import networkx as nx
import numpy as np
import shapely
from shapely.ops import substring

from utils.topology.distances import Places
from utils.topology.graph import RoadGraph


def route_line(graph: RoadGraph, places: Places, start: int, end: int) -> np.ndarray:
    """The polyline (K x 2) of the shortest route between two of the places.

    For a few routes: the graph is built anew. Raises networkx.NetworkXNoPath without a route.
    """
    network = nx.MultiGraph()
    for edge in graph.edges:
        network.add_edge(edge.start, edge.end, length_m=edge.length_m, line=edge.line)
    for name, number in (("start", start), ("end", end)):
        for node, piece in _ways_to_nodes(graph, places, number):
            network.add_edge(name, node, length_m=float(shapely.length(piece)), line=_xy(piece))
    if places.edge[start] == places.edge[end] >= 0:
        piece = substring(graph.lines[places.edge[start]], *places.from_nodes_m[[start, end], 0])
        network.add_edge("start", "end", length_m=float(shapely.length(piece)), line=_xy(piece))
    nodes = nx.shortest_path(network, "start", "end", weight="length_m")
    pieces = [
        min(network[here][there].values(), key=lambda link: link["length_m"])["line"]
        for here, there in pairwise(nodes)
    ]
    return _in_a_row(pieces)


def _ways_to_nodes(
    graph: RoadGraph, places: Places, number: int
) -> list[tuple[int, shapely.LineString]]:
    """The nodes around a place, and the pieces of its edge that lead to them."""
    left, right = places.nodes[number].tolist()
    edge, along_m = int(places.edge[number]), places.from_nodes_m[number, 0]
    if edge < 0:
        return [(left, shapely.linestrings(graph.nodes[[left, left]]))]
    line = graph.lines[edge]
    return [
        (left, substring(line, 0, along_m)),
        (right, substring(line, along_m, graph.line_lengths_m[edge])),
    ]


def _in_a_row(pieces: list[np.ndarray]) -> np.ndarray:
    """Polylines that follow each other, each turned so that it begins near the last one's end."""
    if len(pieces) > 1:
        ahead = np.concatenate([pieces[1][[0, -1]]])
        gaps = [np.hypot(*(ahead - end).T).min() for end in pieces[0][[0, -1]]]
        row = pieces[0] if gaps[1] <= gaps[0] else pieces[0][::-1]
    else:
        row = pieces[0]
    for piece in pieces[1:]:
        gaps = np.hypot(*(piece[[0, -1]] - row[-1]).T)
        row = np.concatenate([row, piece if gaps[0] <= gaps[1] else piece[::-1]])
    return row


def _xy(line: shapely.Geometry) -> np.ndarray:
    return shapely.get_coordinates(line)
