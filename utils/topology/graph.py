"""The road graph: an undirected multigraph in metres, its checks and its exchange JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely

#: How far the end of a polyline may lie from its node: files are often rounded to centimetres.
END_TOLERANCE_M = 0.05
#: No road runs so far without a bend; a line around the world does, and so do degrees as metres.
LONGEST_PIECE_M = 1e6


class GraphError(ValueError):
    """What is wrong with a graph that a user gave; one line."""


class Edge(NamedTuple):
    """A road between two nodes; `line` is K x 2, from the node `start` to the node `end`."""

    start: int
    end: int
    length_m: float
    line: np.ndarray


@dataclass(frozen=True)
class RoadGraph:
    """Nodes (N x 2: x, y) and edges in metres; `crs` names the metric CRS, None without one.

    Without a CRS, x and y are columns and rows times the pixel size (y points down).
    """

    nodes: np.ndarray
    edges: tuple[Edge, ...]
    crs: str | None = None

    @property
    def is_empty(self) -> bool:
        return not self.edges

    @cached_property
    def lines(self) -> np.ndarray:
        """The edges' polylines as an array of shapely LineStrings."""
        return np.array([shapely.linestrings(edge.line) for edge in self.edges], dtype=object)

    @cached_property
    def line_lengths_m(self) -> np.ndarray:
        return shapely.length(self.lines) if self.edges else np.zeros(0)

    @cached_property
    def tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.lines)

    @cached_property
    def ends(self) -> np.ndarray:
        """E x 2: the two nodes of each edge."""
        return np.array([edge[:2] for edge in self.edges], dtype=np.int64).reshape(-1, 2)

    @cached_property
    def lengths_m(self) -> np.ndarray:
        """The stored lengths, which a file may give differently from its polylines'."""
        return np.array([edge.length_m for edge in self.edges], dtype=float)

    def degrees(self) -> np.ndarray:
        return np.bincount(self.ends.ravel(), minlength=len(self.nodes))

    @property
    def total_length_m(self) -> float:
        return float(self.lengths_m.sum())


def graph_from_lines(lines: Iterable[np.ndarray], crs: str | None = None) -> RoadGraph:
    """A graph whose edges are the polylines (K x 2); lines that share an end share a node.

    A closed line, which would be a self-loop, becomes two edges with a node half-way round.
    """
    index: dict[tuple[float, float], int] = {}
    edges = []
    for line in lines:
        line = np.asarray(line, dtype=float)
        for part in open_parts(line):
            start, end = (index.setdefault(tuple(point), len(index)) for point in part[[0, -1]])
            edges.append(Edge(start, end, polyline_length_m(part), part))
    return RoadGraph(np.array(list(index), dtype=float).reshape(-1, 2), tuple(edges), crs)


def polyline_length_m(line: np.ndarray) -> float:
    return float(np.hypot(*np.diff(line, axis=0).T).sum())


def open_parts(line: np.ndarray) -> tuple[np.ndarray, ...]:
    """The line itself, or of a closed one two halves, cut at the vertex nearest to half-way."""
    if not np.array_equal(line[0], line[-1]):
        return (line,)
    if len(line) == 3:  # there and back again: both halves would be the same
        return (line[:2],)
    travelled = np.hypot(*np.diff(line, axis=0).T).cumsum()
    cut = 1 + int(np.argmin(np.abs(travelled[:-1] - travelled[-1] / 2)))
    return line[: cut + 1], line[cut:]


def check_graph(graph: RoadGraph) -> RoadGraph:
    """The graph, when it is sound; GraphError tells the first thing that is not.

    Refused: coordinates or lengths that are not finite, edges to unknown nodes, self-loops,
    edges without length, the same edge twice, and polylines that do not end at their nodes.
    """
    if not np.isfinite(graph.nodes).all():
        bad = int(np.flatnonzero(~np.isfinite(graph.nodes).all(axis=1))[0])
        raise GraphError(f"node {bad} has a coordinate that is not a finite number")
    seen: dict[tuple, int] = {}
    for number, edge in enumerate(graph.edges):
        problem = _edge_problem(edge, graph.nodes)
        key = (min(edge[:2]), max(edge[:2]), _undirected(edge.line))
        if problem is None and key in seen:
            problem = f"is the same as edge {seen[key]}"
        if problem:
            raise GraphError(f"edge {number} {problem}")
        seen[key] = number
    return graph


def _edge_problem(edge: Edge, nodes: np.ndarray) -> str | None:
    for node in edge[:2]:
        if not 0 <= node < len(nodes):
            return f"names node {node}, and there are {len(nodes)} nodes"
    if edge.start == edge.end:
        return f"is a self-loop at node {edge.start}: cut it in two"
    if not np.isfinite(edge.line).all() or not math.isfinite(edge.length_m):
        return "has a coordinate or a length that is not a finite number"
    if problem := endless_piece(edge.line):
        return problem
    if edge.length_m <= 0 or polyline_length_m(edge.line) <= 0:
        return "has no length"
    gaps = np.hypot(*(edge.line[[0, -1]] - nodes[list(edge[:2])]).T)
    if gaps.max() > END_TOLERANCE_M:
        return f"has a polyline that ends {gaps.max():.2f} m from its node"
    return None


def endless_piece(line: np.ndarray) -> str | None:
    """What is wrong with a polyline (K x 2, metres) that no road can be."""
    longest_m = np.hypot(*np.diff(line, axis=0).T).max()
    if longest_m <= LONGEST_PIECE_M:
        return None
    return (
        f"runs {longest_m / 1000:,.0f} km without a bend: it goes around the world "
        "or across the edge of its CRS"
    )


def _undirected(line: np.ndarray) -> bytes:
    return min(line.tobytes(), np.ascontiguousarray(line[::-1]).tobytes())


def graph_from_json(values: Any) -> RoadGraph:
    """The graph of exchange JSON: {"nodes": [[x, y], ...], "edges": [[i, j, length, [[x, y],
    ...]], ...]} in metres, optionally with "crs". GraphError when it is not that.
    """
    if not isinstance(values, dict) or not {"nodes", "edges"} <= values.keys():
        raise GraphError('not a road graph: expected {"nodes": [...], "edges": [...]}')
    nodes = _points(values["nodes"], "nodes")
    if not isinstance(values["edges"], list):
        raise GraphError("edges: expected a list")
    edges = tuple(_edge(item, nodes, number) for number, item in enumerate(values["edges"]))
    crs = values.get("crs")
    if crs is not None and not isinstance(crs, str):
        raise GraphError(f"crs: expected a text such as 'EPSG:32611', got {crs!r}")
    graph = check_graph(RoadGraph(nodes, edges, crs))
    _refuse_degrees(graph)
    return graph


def _edge(item: Any, nodes: np.ndarray, number: int) -> Edge:
    if not isinstance(item, list) or len(item) not in (3, 4):
        raise GraphError(f"edge {number}: expected [node, node, length, [[x, y], ...]]")
    start, end, length_m = item[:3]
    if not all(type(node) is int and 0 <= node < len(nodes) for node in (start, end)):
        raise GraphError(f"edge {number} names a node that is none of the {len(nodes)} nodes")
    if not (type(length_m) is float or (type(length_m) is int and abs(length_m) < 2**63)):
        raise GraphError(f"edge {number}: its length {length_m!r:.40} is not a number")
    line = _points(item[3] if len(item) == 4 else [], f"edge {number}")
    if len(line) < 2:
        line = nodes[[start, end]]
    reversed_gap = np.hypot(*(line[[-1, 0]] - nodes[[start, end]]).T).max()
    if reversed_gap < np.hypot(*(line[[0, -1]] - nodes[[start, end]]).T).max():
        line = np.ascontiguousarray(line[::-1])
    return Edge(start, end, float(length_m), line)


def _points(values: Any, where: str) -> np.ndarray:
    try:
        points = np.asarray(values)
    except ValueError:  # rows of different lengths
        points = np.array(None)
    numbers = points.dtype.kind in "iuf"  # neither texts nor integers beyond 64 bits
    if not numbers or (points.size and (points.ndim != 2 or points.shape[1] != 2)):
        raise GraphError(f"{where}: expected a list of [x, y] numbers")
    return points.reshape(-1, 2).astype(float)


def _refuse_degrees(graph: RoadGraph) -> None:
    """Longitudes and latitudes betray themselves: roads of metres drawn within a degree."""
    if graph.crs is not None or graph.is_empty:
        return
    in_degrees = (np.abs(graph.nodes) <= (180, 90)).all()
    drawn_m = graph.line_lengths_m.sum()
    if in_degrees and (graph.total_length_m > 1000 * drawn_m or np.ptp(graph.nodes, 0).max() < 1):
        raise GraphError("geographic coordinates without a CRS: exchange JSON is in metres")


def graph_to_json(graph: RoadGraph) -> dict[str, Any]:
    """The exchange JSON of a graph, which `graph_from_json` reads back to an equal one."""
    edges = [[e.start, e.end, e.length_m, e.line.tolist()] for e in graph.edges]
    values: dict[str, Any] = {"nodes": graph.nodes.tolist(), "edges": edges}
    return values if graph.crs is None else {"crs": graph.crs, **values}


def read_graph_json(path: str | os.PathLike[str]) -> RoadGraph:
    """The graph of an exchange JSON file; GraphError or OSError when it cannot be had."""
    return graph_from_json(read_json(path))


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a JSON file holds, GraphError when it is none; a byte order mark is passed over."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        raise GraphError("not valid JSON") from None


def straight_graph(nodes: Sequence[Sequence[float]], links: Sequence[tuple[int, int]]) -> RoadGraph:
    """A graph with straight edges, as `straight_graph([(0, 0), (400, 0)], [(0, 1)])`."""
    points = np.asarray(nodes, dtype=float).reshape(-1, 2)
    lines = [points[list(link)] for link in links]
    edges = [
        Edge(*link, polyline_length_m(line), line) for link, line in zip(links, lines, strict=True)
    ]
    return RoadGraph(points, tuple(edges))
